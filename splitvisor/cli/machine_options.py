# SPDX-License-Identifier: GPL-2.0-or-later
"""The flags that say what a machine is, for every command that starts one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from splitvisor.connect import CONNECT_VARIABLE

GUEST = "Guest"
MACHINE = "Machine"
"""Panels of the help."""

Kernel = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="vmlinux, zImage or client program, or [bold]debian[/]", rich_help_panel=GUEST),
]
Initrd = Annotated[
    str | None, typer.Option(metavar="FILE", help="Initial RAM disk, or [bold]debian[/]", rich_help_panel=GUEST)
]
Append = Annotated[str | None, typer.Option(metavar="TEXT", help="The kernel's command line", rich_help_panel=GUEST)]
Firmware = Annotated[
    str | None, typer.Option(metavar="FILE", help="Raw firmware image to run instead of ours", rich_help_panel=GUEST)
]
FlatTree = Annotated[
    bool, typer.Option("--flat-tree", help="That image, though small, wants a flattened tree in r3", rich_help_panel=GUEST)
]
MachineFile = Annotated[
    Path | None, typer.Option(metavar="FILE.toml", help="Machine file; flags override it", rich_help_panel=MACHINE)
]
Memory = Annotated[
    str | None, typer.Option("--memory", "-m", metavar="SIZE", help="RAM, 256M to 16G [512M]", rich_help_panel=MACHINE)
]
Smp = Annotated[int | None, typer.Option(metavar="N", help="vCPUs, 1 to 8 [1]", rich_help_panel=MACHINE)]
Vty = Annotated[int | None, typer.Option(metavar="N", help="Terminals of the VM [1]", rich_help_panel=MACHINE)]
Nvram = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Keep the NVRAM there; made when it is new", rich_help_panel=MACHINE)
]
NoSharedMemory = Annotated[
    bool, typer.Option("--no-shared-memory", help="Back ends reach RAM through gRPC only", rich_help_panel=MACHINE)
]

Backend = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=ADDRESS", help="Add a back end of your own, which runs already; may be repeated, or a list with commas",
        rich_help_panel=MACHINE,
    ),
]


def connect(what: str, panel: str) -> Any:
    """Return the option --connect. what: what it does with a service."""
    return typer.Option(
        metavar="NAME=ADDRESS",
        help=f"{what}: cpu, hcall, vio or of-client; may be repeated, or a list with commas",
        envvar=CONNECT_VARIABLE,
        rich_help_panel=panel,
    )
