# SPDX-License-Identifier: GPL-2.0-or-later
"""The flags that say what a machine is, for every command that starts one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from splitvisor.cli.flags import Flag
from splitvisor.machine.service_addresses import CONNECT_VARIABLE

GUEST = "Guest"
MACHINE = "Machine"
"""Panels of the help."""

Kernel = Annotated[str | None, Flag(metavar="FILE", help="vmlinux, zImage or client program, or [bold]debian[/]", panel=GUEST)]
Initrd = Annotated[str | None, Flag(metavar="FILE", help="Initial RAM disk, or [bold]debian[/]", panel=GUEST)]
Append = Annotated[str | None, Flag(metavar="TEXT", help="The kernel's command line", panel=GUEST)]
Firmware = Annotated[str | None, Flag(metavar="FILE", help="Raw firmware image, in place of Splitvisor's own", panel=GUEST)]
Boot = Annotated[
    str | None,
    Flag(metavar="LIST", help="Without a kernel: disk, cdrom, net, nvram, menu, in order, such as disk,net", panel=GUEST),
]
FlatTree = Annotated[bool, Flag(help="Pass a flattened tree in r3 to that image, even if it is small", panel=GUEST)]
BootProtocol = Annotated[
    str | None, Flag(metavar="NAME", help="How the kernel is started: [bold]papr[/] or [bold]epapr[/] \\[papr]", panel=GUEST)
]
MachineFile = Annotated[Path | None, Flag(metavar="FILE.toml", help="Machine file; flags override it", panel=MACHINE)]
Memory = Annotated[str | None, Flag(("--memory", "-m"), metavar="SIZE", help="RAM, 256M to 16G [512M]", panel=MACHINE)]
Smp = Annotated[int | None, Flag(metavar="N", help="vCPUs, 1 to 8 [1]", panel=MACHINE)]
Vty = Annotated[int | None, Flag(metavar="N", help="Terminals of the VM [1]", panel=MACHINE)]
Nvram = Annotated[Path | None, Flag(metavar="FILE", help="Keep the NVRAM in this file, created if missing", panel=MACHINE)]
Disk = Annotated[
    list[str] | None,
    Flag(
        metavar="FILE[,OPTION...]",
        help="Add a disk: a file or nbd://HOST:PORT/EXPORT; options: format=, readonly, snapshot, serial=, "
        "cache=writeback|none|unsafe, bps=, iops=, werror=enospc|stop|report, rerror=report|stop; may be repeated",
        panel=MACHINE,
    ),
]
Cdrom = Annotated[
    list[str] | None,
    Flag(
        metavar="FILE[,OPTION...]",
        help='Add a CD-ROM drive with this image; "empty": with nothing in it; may be repeated',
        panel=MACHINE,
    ),
]
WatchdogAction = Annotated[
    str | None,
    Flag(metavar="ACTION", help="What an expired watchdog of the guest does: reset, poweroff, nmi or log", panel=MACHINE),
]
Net = Annotated[
    list[str] | None,
    Flag(
        metavar="KIND[,OPTION]...",
        help="Add a network device: user, tap=IF, socket=ADDR or switch=NAME (docs/networks.md); may be repeated",
        panel=MACHINE,
    ),
]
NoSharedMemory = Annotated[bool, Flag(help="Let back ends access RAM through gRPC only", panel=MACHINE)]

Backend = Annotated[
    list[str] | None,
    Flag(
        metavar="NAME=ADDRESS",
        help="Add a running back end of your own; may be repeated, or a comma-separated list",
        panel=MACHINE,
    ),
]


def connect(what: str, panel: str) -> Flag:
    """Return the option --connect. what: what it does with a service."""
    return Flag(
        metavar="NAME=ADDRESS",
        help=f"{what}: cpu, hcall, vio or of-client; may be repeated, or a comma-separated list",
        environment=CONNECT_VARIABLE,
        panel=panel,
    )
