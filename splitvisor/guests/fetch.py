# SPDX-License-Identifier: GPL-2.0-or-later
"""Real guests, fetched from the machine's own Debian mirror into a cache; nothing of them is in the repository.

Packages of another architecture need an apt with its own state, so the machine's package lists stay as they are. Next to
every file stands, in guests.json, the package, version and SHA-256 that it came from.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from splitvisor.guests import io_guest
from splitvisor.guests.apt import ForeignApt, GuestError, Package, run, unpack
from splitvisor.guests.cpio import Entry, archive
from splitvisor.guests.disk_image import CD_TOOLS, DISK_TOOLS, DiskImageError, has_tools, make_cd, make_disk

__all__ = (
    "CD", "DISK", "FORMAT", "GRUB", "GRUB_MODULES", "GRUB_TOOL", "INDEX", "KITS", "MARKER", "MODULES", "RNG_MODULES",
    "VTERM_MODULES", "Guest", "GuestError", "cache_directory", "cached_guests", "fetch", "resolve",
)  # fmt: skip

MARKER = "SPLITVISOR-USERSPACE"
"""What every /init prints once the kernel has reached user space."""
INDEX = "guests.json"
FORMAT = 2
"""Raised when the files built from packages change: the cache is then rebuilt."""

_APPLETS = """
    [ ash awk base64 basename cat chmod chown cmp cp cut date dd df diff dmesg du echo env expr false find free grep gunzip
    gzip head hexdump hostname id kill ln ls md5sum mkdir mknod mount mv nproc ps pwd rm rmdir sed seq sh sha256sum sleep
    sort stat stty tail tee test time top touch tr true tty umount uname uniq uptime vi wc which xargs yes
"""

_HEAD = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
"""
_INIT_POWEROFF = f"""{_HEAD}echo {MARKER}
/bin/busybox poweroff -f
"""
# The shell gets the console as its controlling terminal, for ^C and job control; when it ends, so does the machine.
_INIT_SHELL = f"""{_HEAD}/bin/busybox mount -t devtmpfs dev /dev
{{prepare}}export PATH=/bin HOME=/ TERM=vt100 PS1='guest# ' ENV=/shellrc
echo {MARKER}
/bin/busybox setsid /bin/busybox cttyhack /bin/busybox sh
/bin/busybox poweroff -f
"""
# Without -f they ask process 1, which is that script and would not listen.
_SHELLRC = "".join(f"alias {name}='{name} -f'\n" for name in ("poweroff", "reboot", "halt"))


@dataclass(frozen=True)
class Guest:
    """A file of the cache."""

    name: str
    kind: str
    """kernel, initrd, firmware, module, disk or cdrom."""
    path: str
    """Relative to the cache."""
    package: str
    version: str
    sha256: str
    """Of the package's file; of an initrd, of the archive itself."""


def cache_directory() -> Path:
    """Return where guests are kept: $SPLITVISOR_CACHE, or ~/.cache/splitvisor/guests."""
    named = os.environ.get("SPLITVISOR_CACHE")
    return Path(named) if named else Path("~/.cache/splitvisor/guests").expanduser()


def cached_guests(cache: Path | None = None) -> dict[tuple[str, str], Guest]:
    """Return what is there, by kind and name; nothing when the cache is of another format."""
    directory = cache if cache is not None else cache_directory()
    try:
        index = json.loads((directory / INDEX).read_text())
        if index["format"] != FORMAT:
            return {}
        guests = [Guest(**item) for item in index["guests"]]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {(guest.kind, guest.name): guest for guest in guests if (directory / guest.path).is_file()}


def resolve(kind: str, value: str) -> Path:
    """Return the file that value names: a path, or else a guest of the cache such as "debian".

    A value that is neither is returned as a path; whoever reads it says that it is not there.
    """
    path = Path(value)
    if path.exists() or "/" in value:
        return path
    cache = cache_directory()
    guest = cached_guests(cache).get((kind, value))
    return cache / guest.path if guest is not None else path


def fetch(say: Callable[[str], None], cache: Path | None = None) -> dict[tuple[str, str], Guest]:
    """Fill the cache, unless it is full; return what is there. Raises GuestError."""
    directory = cache if cache is not None else cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = cached_guests(directory)
        complete = set(found) >= {(kind, name) for name, kind in _NAMES}
        with_grub = not _with_grub() or (complete and set(found) >= set(_with_grub()))
        if complete and with_grub:
            return found
        guests = list(found.values()) if complete else _build(directory, say)
        if not with_grub:
            guests = [guest for guest in guests if (guest.kind, guest.name) not in (GRUB, DISK, CD)]
            guests += _build_grub(directory, {(guest.kind, guest.name): guest for guest in guests}, say)
        index = {"format": FORMAT, "guests": [asdict(guest) for guest in guests]}
        partial = directory / f"{INDEX}.new"
        partial.write_text(json.dumps(index, indent=2) + "\n")
        partial.replace(directory / INDEX)
    return cached_guests(directory)


GRUB, DISK, CD = ("kernel", "grub"), ("disk", "debian"), ("cdrom", "grub")
"""What is made of GRUB: a client program, a disk that boots Debian by it, and its own CD."""
GRUB_TOOL = "grub-mkimage"
"""From the package grub-common; without it there is no GRUB."""
GRUB_MODULES = ("normal", "echo", "halt", "ls", "lsmmap", "minicmd", "reboot")
MODULES = ("rpaphp", "rpadlpar_io")
"""Kernel modules for devices that come and go, in the order in which they are loaded."""
RNG_MODULES = ("pseries-rng",)
"""The driver of the platform's random number generator."""
VTERM_MODULES = ("hvcserver", "hvcs")
"""The driver of vty-servers."""
_MODULE_DIRECTORIES = {
    "drivers/pci/hotplug": MODULES,
    "drivers/char/hw_random": RNG_MODULES,
    "arch/powerpc/platforms/pseries": VTERM_MODULES[:1],
    "drivers/tty/hvc": VTERM_MODULES[1:],
}
"""Where the modules are, below the kernel's own directory."""


@dataclass(frozen=True)
class _Kit:
    """An initrd: the shell's, with programs of Debian's for one purpose."""

    name: str
    packages: tuple[str, ...]
    """That of the programs first, then those of their libraries."""
    programs: tuple[str, ...]
    libraries: tuple[str, ...]
    modules: tuple[str, ...] = ()


KITS = (
    _Kit(  # With drmgr and lsslot an administrator adds and removes devices.
        "debian-slots",
        ("powerpc-ibm-utils", "librtas2", "libnuma1", "libc6"),
        ("usr/sbin/drmgr", "usr/sbin/lsslot"),
        ("ld64.so.2", "libc.so.6", "librtas.so.2", "libnuma.so.1"),
        MODULES,
    ),
    _Kit("debian-kexec", ("kexec-tools", "libc6"), ("sbin/kexec",), ("ld64.so.2", "libc.so.6")),
)
_LIBRARY_DIRECTORY = "lib/powerpc64le-linux-gnu"
_NAMES = (
    ("debian", "kernel"),
    ("debian", "initrd"),
    ("debian-poweroff", "initrd"),
    *((kit.name, "initrd") for kit in KITS),
    ("debian-io", "initrd"),
    ("slof", "firmware"),
    ("vof", "firmware"),
    *((name, "module") for names in _MODULE_DIRECTORIES.values() for name in names),
)


def _build(cache: Path, say: Callable[[str], None]) -> list[Guest]:
    apt = ForeignApt(cache / "apt", "ppc64el")
    say("reading package lists for ppc64el")
    apt.update()
    kernel_package = apt.dependency("linux-image-powerpc64le", "linux-image-")
    kernel = unpack(apt, kernel_package, cache, say)
    busybox = unpack(apt, "busybox-static", cache, say)
    qemu = unpack(apt, "qemu-system-data", cache, say)

    guests = [_take(kernel, "debian", "kernel", "boot/vmlinux-*", cache)]
    program = (busybox.root / "bin/busybox").read_bytes()
    guests.append(_initrd("debian", _shell_archive(program), busybox, cache))
    guests.append(_initrd("debian-poweroff", _poweroff_archive(program), busybox, cache))
    guests += [_take(qemu, name, "firmware", f"usr/share/qemu/{name}.bin", cache) for name in ("slof", "vof")]
    for directory, names in _MODULE_DIRECTORIES.items():
        modules = f"lib/modules/*/kernel/{directory}"
        guests += [_take(kernel, name, "module", f"{modules}/{name}.ko", cache) for name in names]
    guests += [_build_kit(kit, apt, program, cache, say) for kit in KITS]
    shell = _shell_archive(program, io_guest.PREPARE, io_guest.shell_settings())
    guests.append(_initrd("debian-io", io_guest.entries(shell, kernel.root, apt, cache, say), kernel, cache))
    for name in ("unpacked", "apt"):
        shutil.rmtree(cache / name, ignore_errors=True)
    return guests


def _build_kit(kit: _Kit, apt: ForeignApt, program: bytes, cache: Path, say: Callable[[str], None]) -> Guest:
    """Make the shell's archive with the programs of a kit, their libraries and its modules."""
    packages = [unpack(apt, name, cache, say) for name in kit.packages]
    return _initrd(kit.name, _kit_archive(kit, program, [package.root for package in packages], cache), packages[0], cache)


def _initrd(name: str, entries: Sequence[Entry], package: Package, cache: Path) -> Guest:
    """Write an archive. package: what most of it is from."""
    data = archive(entries)
    path = cache / f"{name}.cpio"
    partial = path.with_suffix(".new")
    partial.write_bytes(data)
    partial.replace(path)
    return Guest(name, "initrd", path.name, package.name, package.version, hashlib.sha256(data).hexdigest())


def _with_grub() -> list[tuple[str, str]]:
    """Return what can be made of GRUB with the tools of this host."""
    if shutil.which(GRUB_TOOL) is None:
        return []
    return [GRUB, *([DISK] if has_tools(DISK_TOOLS) else ()), *([CD] if has_tools(CD_TOOLS) else ())]


def _build_grub(cache: Path, guests: Mapping[tuple[str, str], Guest], say: Callable[[str], None]) -> list[Guest]:
    """Make a GRUB for Open Firmware from the modules of its package, and a disk with it."""
    apt = ForeignApt(cache / "apt", "ppc64el")
    apt.update()
    package = unpack(apt, "grub-ieee1275-bin", cache, say)
    path = cache / "grub.elf"
    modules = package.root / "usr/lib/grub/powerpc-ieee1275"
    run([GRUB_TOOL, "-O", "powerpc-ieee1275", "-d", str(modules), "-p", "/boot/grub", "-o", str(path), *GRUB_MODULES])
    made = [Guest(GRUB[1], GRUB[0], path.name, package.name, package.version, package.sha256)]
    for key in _with_grub():
        if key != GRUB:
            say(f"making a {key[0]} with GRUB")
            file = _make_medium(key, cache, modules, guests)
            made.append(Guest(key[1], key[0], file.name, package.name, package.version, package.sha256))
    for name in ("unpacked", "apt"):
        shutil.rmtree(cache / name, ignore_errors=True)
    return made


def _make_medium(key: tuple[str, str], cache: Path, modules: Path, guests: Mapping[tuple[str, str], Guest]) -> Path:
    """Make DISK or CD; return its file."""
    try:
        if key == CD:
            file = cache / "grub.iso"
            make_cd(file, modules)
        else:
            file = cache / "debian.disk"
            kernel, initrd = (cache / guests[kind, "debian"].path for kind in ("kernel", "initrd"))
            make_disk(file, modules, kernel, initrd)
    except DiskImageError as error:
        raise GuestError(error.problem.what, error.problem.remedy) from error
    return file


def _take(package: Package, name: str, kind: str, pattern: str, cache: Path) -> Guest:
    found = sorted(package.root.glob(pattern))
    if not found:
        raise GuestError(f"{package.name} {package.version} has no {pattern}", "please report it")
    path = cache / found[-1].name
    shutil.move(found[-1], path)
    return Guest(name, kind, path.name, package.name, package.version, package.sha256)


def _base(init: str, program: bytes) -> list[Entry]:
    return [
        *(Entry.directory(name) for name in ("bin", "dev", "proc", "sys", "tmp")),
        Entry.character_device("dev/console", 5, 1),
        Entry.character_device("dev/null", 1, 3),
        Entry.program("bin/busybox", program),
        Entry.program("init", init.encode()),
    ]


def _poweroff_archive(program: bytes) -> list[Entry]:
    return _base(_INIT_POWEROFF, program)


def _shell_archive(program: bytes, prepare: str = "", settings: str = "") -> list[Entry]:
    """Make the shell's archive. prepare: lines of /init before the marker; settings: further lines that the shell reads."""
    return [
        *_base(_INIT_SHELL.format(prepare=prepare), program),
        *(Entry.link(f"bin/{applet}", "busybox") for applet in _APPLETS.split()),
        Entry.program("shellrc", f"{_SHELLRC}{settings}".encode()),
    ]


def _kit_archive(kit: _Kit, program: bytes, roots: Sequence[Path], cache: Path) -> list[Entry]:
    def find(pattern: str) -> bytes:
        found = [path for root in roots for path in sorted(root.glob(pattern)) if path.is_file()]
        if not found:
            raise GuestError(f"none of {', '.join(kit.packages)} has {pattern}", "please report it")
        return found[0].read_bytes()

    directories = ("lib", "lib64", _LIBRARY_DIRECTORY, "sbin", "usr", "usr/sbin", "var", "var/lock", "var/log")
    libraries = {name: find(f"**/{_LIBRARY_DIRECTORY}/{name}") for name in kit.libraries}
    return [
        *_shell_archive(program),
        *(Entry.directory(name) for name in directories),
        *(Entry.program(f"{name}.ko", (cache / f"{name}.ko").read_bytes()) for name in kit.modules),
        Entry.link("bin/insmod", "busybox"),
        *(Entry.program(name, find(name)) for name in kit.programs),
        *(Entry.program(f"{_LIBRARY_DIRECTORY}/{name}", data) for name, data in libraries.items()),
        Entry.link("lib64/ld64.so.2", f"/{_LIBRARY_DIRECTORY}/ld64.so.2"),
    ]
