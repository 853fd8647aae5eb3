# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest with disks and networks: an initramfs with drivers of the VIO bus, file systems, and tools that try them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from splitvisor.guests.apt import ForeignApt
from splitvisor.guests.cpio import Entry
from splitvisor.guests.modules import Module, modules_with_dependencies, tables
from splitvisor.guests.programs import Programs

DRIVERS = ("sd_mod", "sr_mod", "sg", "ibmvscsi", "ibmveth", "loop")
"""Loaded before the marker, in this order."""
PREPARE = f"""/bin/busybox ifconfig lo up
/bin/busybox modprobe -a {" ".join(DRIVERS)}
"""
"""What its /init does before the marker."""
_ON_DEMAND = (
    "ext4", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859_1", "crc32c_generic", "libcrc32c",
    "scsi_mod", "af_packet", "ipv6",
)  # fmt: skip
"""Loaded by modprobe, when the kernel or a test wants them."""

PROGRAMS: dict[str, tuple[str, ...]] = {
    "dash": ("dash",),
    "fio": ("fio",),
    "e2fsprogs": ("mke2fs", "e2fsck", "dumpe2fs"),
    "sg3-utils": (
        "sg_compare_and_write", "sg_dd", "sg_get_config", "sg_inq", "sg_logs", "sg_luns", "sg_map", "sg_modes", "sg_opcodes",
        "sg_persist", "sg_prevent", "sg_raw", "sg_readcap", "sg_requests", "sg_reset", "sg_start", "sg_sync", "sg_turs",
        "sg_unmap", "sg_verify", "sg_vpd", "sg_write_same",
    ),
    "hdparm": ("hdparm",),
    "fdisk": ("fdisk", "sfdisk"),
    "eject": ("eject",),
    "sqlite3": ("sqlite3",),
    "iproute2": ("ip",),
    "iputils-ping": ("ping",),
    "iperf3": ("iperf3",),
    "kexec-tools": ("kexec",),
    "ethtool": ("ethtool",),
    "util-linux": ("blkdiscard", "lsblk"),
}  # fmt: skip
"""By package."""
LEFT_OUT = (
    "libgfapi.so.0", "libibverbs.so.1", "libnbd.so.0", "libpmem.so.1", "libpmemblk.so.1", "librados.so.2", "librbd.so.1",
    "librdmacm.so.1",
)  # fmt: skip
"""What fio is linked with for clusters and RDMA: 90 MB with all that it needs in turn."""

_APPLETS = """
    arping blockdev bunzip2 cpio expand fallocate fsync grep hwclock ifconfig insmod kill killall losetup lsmod lsscsi mkdosfs
    mkfifo mktemp modprobe nc netstat nohup od patch pgrep pidof pkill printf readlink realpath rmmod route sha1sum
    sha512sum shuf sync sysctl tar taskset tftp timeout traceroute truncate udhcpc unlink unxz usleep wget xxd
"""
_DIRECTORIES = ("etc", "etc/udhcpc", "lib/modules", "mnt", "run", "sbin", "var", "var/lib")
_DHCP_SCRIPT = """#!/bin/dash
# Takes over what a lease says; udhcpc passes it in the environment.
case $1 in
deconfig)
    ip address flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    ip address replace "$ip/${mask:-24}" dev "$interface"
    for each in $router; do ip route replace default via "$each" dev "$interface"; done
    : >/etc/resolv.conf
    for each in $dns; do echo "nameserver $each" >>/etc/resolv.conf; done
    ;;
esac
"""
# busybox's shell takes its own utilities without a look at PATH, which for a script of tests would hide the real ones.
_ANSWER = """#!/bin/dash
# answer ID COMMAND: run a command between two lines that show where its output begins and ends, with its status.
echo
echo "@$1<"
/bin/dash -c "$2" </dev/null 2>&1
status=$?
echo
echo "@$1>$status"
"""
_FILES = {
    "etc/passwd": "root::0:0:root:/:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}


def entries(shell: Sequence[Entry], kernel: Path, apt: ForeignApt, cache: Path, say: Callable[[str], None]) -> list[Entry]:
    """Return what the archive has.

    Args:
        shell: the archive of a guest with a shell, whose /init and settings are those of this module.
        kernel: the kernel's package, unpacked.
        apt: where the other packages are had from.
        cache: where they are unpacked.
        say: gets each step.

    Raises GuestError.
    """
    say("fetching tools for disks and networks")
    apt.prepare(PROGRAMS)
    programs = Programs(apt, cache, say, LEFT_OUT)
    for package, names in PROGRAMS.items():
        programs.add(package, names)
    # glibc opens it when a thread ends.
    programs.add_library("libgcc-s1", "libgcc_s.so.1")
    [tree] = kernel.glob("lib/modules/*")
    modules = modules_with_dependencies(tree, (*DRIVERS, *_ON_DEMAND))
    own = [entry for entry in shell if entry.name.removeprefix("bin/") not in programs.names]
    settings = programs.package("e2fsprogs").root / "etc/mke2fs.conf"
    return [
        *own,
        *programs.entries(),
        *(Entry.directory(name) for name in _DIRECTORIES),
        *(Entry.link(f"bin/{name}", "busybox") for name in _new_applets(own, programs.names)),
        *(Entry.link(f"bin/mkfs.{kind}", "mke2fs") for kind in ("ext2", "ext3", "ext4")),
        *(Entry.file(name, text.encode()) for name, text in _FILES.items()),
        Entry.file("etc/mke2fs.conf", settings.read_bytes()),
        Entry.link("etc/mtab", "/proc/mounts"),
        Entry.program("etc/udhcpc/default.script", _DHCP_SCRIPT.encode()),
        Entry.program("bin/answer", _ANSWER.encode()),
        Entry.link("sbin/modprobe", "/bin/busybox"),
        *_module_entries(tree.name, modules),
    ]


def shell_settings() -> str:
    """Return lines for the shell, by which it runs the real programs and not its own utilities of the same names."""
    return "".join(f"alias {name}=/bin/{name}\n" for names in PROGRAMS.values() for name in names)


def _new_applets(own: Sequence[Entry], programs: Sequence[str]) -> list[str]:
    there = {entry.name for entry in own}
    return [name for name in _APPLETS.split() if name not in programs and f"bin/{name}" not in there]


def _module_entries(version: str, modules: list[Module]) -> list[Entry]:
    root = f"lib/modules/{version}"
    parents = {str(parent) for module in modules for parent in Path(module.path).parents if parent.name}
    return [
        *(Entry.directory(name) for name in (root, *(f"{root}/{name}" for name in sorted(parents)))),
        *(Entry.file(f"{root}/{module.path}", module.data) for module in modules),
        *(Entry.file(f"{root}/{name}", text.encode()) for name, text in tables(modules).items()),
    ]
