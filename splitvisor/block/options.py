# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user says of a disk, as one text: `FILE[,option...]`, the same in a flag and in a machine file.

    disk.img                                raw
    disk.qcow2,cache=none,serial=D1         a format by the end of its name
    installer.iso,readonly
    nbd://127.0.0.1:10809/export            another process has it
    nbd+unix:///export?socket=/run/nbd.sock
    empty                                   of a CD drive: there is nothing in it (a file of that name is ./empty)

The format of an image is never guessed from its contents: a guest that has a raw disk could write the first bytes of another
format there, which would be read as such the next time, with any file of the host as its backing file. So it is what `format=`
says, else what the end of the name says (.qcow2, .vmdk, .vdi, .vhdx), else raw.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

from splitvisor.block.nbd.address import NbdAddress, NbdAddressError, is_nbd, parse_nbd
from splitvisor.errors.problem import ProblemError
from splitvisor.errors.similar import did_you_mean
from splitvisor.process.text import is_text, shown

SERIAL_CHARACTERS = 36
"""The longest serial number; SCSI pads it."""
TEXT_BYTES = 8192
"""The longest text of a disk."""
EMPTY = "empty"
"""Of a CD drive: instead of a file."""
RATE_MAX = 1 << 50
"""Bytes or transfers a second."""


class DiskOptionError(ProblemError):
    """What somebody says of a disk is wrong."""


class Format(StrEnum):
    """What holds an image's blocks in its file."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VDI = "vdi"
    VHDX = "vhdx"


class Cache(StrEnum):
    """What the host does with what is written until it is flushed."""

    WRITEBACK = "writeback"
    """It is in the host's page cache."""
    NONE = "none"
    """It is written past the page cache (O_DIRECT)."""
    UNSAFE = "unsafe"
    """As writeback, and flush does nothing: what was written may be lost when the host fails."""


class OnWriteError(StrEnum):
    """What becomes of a write that failed: a flush, a discard and zeroes too."""

    REPORT = "report"
    """The guest gets the error."""
    STOP = "stop"
    """The machine is paused, and the write is tried again when it goes on."""
    ENOSPC = "enospc"
    """As STOP when the host has no space left, else as REPORT."""


class OnReadError(StrEnum):
    """What becomes of a read that failed."""

    REPORT = "report"
    """The guest gets the error."""
    STOP = "stop"
    """The machine is paused, and the read is tried again when it goes on."""


@dataclass(frozen=True)
class DiskOptions:
    """A disk or a CD, as somebody wants it."""

    place: Path | NbdAddress | None
    """A file or block device of this host, or an export of an NBD server; None: a CD drive with nothing in it."""
    format: Format = Format.RAW
    read_only: bool = False
    snapshot: bool = False
    """Throw away what the guest writes when the disk is closed."""
    serial: str = ""
    """Empty: what has the disk chooses one."""
    cache: Cache = Cache.WRITEBACK
    bps: int = 0
    """Bytes a second, at most; 0: no limit."""
    iops: int = 0
    """Transfers a second, at most; 0: no limit."""
    werror: OnWriteError = OnWriteError.ENOSPC
    rerror: OnReadError = OnReadError.REPORT
    cdrom: bool = False

    @property
    def name(self) -> str:
        """The disk, for messages."""
        return EMPTY if self.place is None else shown(str(self.place))

    def absolute(self, base: Path = Path()) -> DiskOptions:
        """Return the same with a path that does not depend on the working directory. base: where a relative path starts."""
        if not isinstance(self.place, Path):
            return self
        return replace(self, place=Path(os.path.abspath(base / self.place.expanduser())))

    def text(self) -> str:
        """Return the text that parse_disk() or parse_cdrom() reads as this."""
        place = EMPTY if self.place is None else str(self.place)
        parts = [place.replace(",", ",,")]
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if each.name == "format":
                if isinstance(self.place, Path):
                    parts.append(f"format={value}")
            elif each.name == "read_only":
                parts.extend(["readonly"] if value and not self.cdrom else [])
            elif value != each.default and each.name != "cdrom":
                parts.append(each.name if value is True else f"{each.name}={str(value).replace(',', ',,')}")
        return ",".join(parts)


def parse_disk(text: str) -> DiskOptions:
    """Return what a text says of a disk. Raises DiskOptionError."""
    return _parse(text, _DISK, DiskOptions(Path()))


def parse_cdrom(text: str) -> DiskOptions:
    """Return what a text says of a CD, which is only read. Raises DiskOptionError."""
    return _parse(text, _CDROM, DiskOptions(Path(), read_only=True, cdrom=True))


def _parse(text: str, known: Mapping[str, _Option], options: DiskOptions) -> DiskOptions:
    if not is_text(text):
        raise DiskOptionError(f"{shown(text)} is not UTF-8", "give the path of a link to it")
    if len(text.encode()) > TEXT_BYTES or "\0" in text:
        raise DiskOptionError("is no name of a disk", f"give a file, at most {TEXT_BYTES} bytes with its options")
    place, *rest = _split(text)
    if not place:
        raise DiskOptionError("there is no file", "start with the file, such as disk.img,readonly")
    options = replace(options, **({"place": None} if options.cdrom and place == EMPTY else _place(place)))
    seen: set[str] = set()
    for part in rest:
        key, equals, value = part.partition("=")
        option = known.get(key)
        if option is None:
            what = f"{shown(key)!r} is not an option of {'a CD' if options.cdrom else 'a disk'}"
            raise DiskOptionError(what, _instead(key, known))
        if key in seen:
            raise DiskOptionError(f"{key} is given twice", "give it once")
        seen.add(key)
        if option.read is None and equals:
            raise DiskOptionError(f"{key} takes no value", f"give {key}, or leave it out")
        if option.read is not None and not value:
            raise DiskOptionError(f"{key} has no value", f"give {key}={option.example}")
        setting: dict[str, Any] = {option.field: True if option.read is None else option.read(value)}
        options = replace(options, **setting)
    if options.place is None and seen - {"serial"}:
        raise DiskOptionError(f"{min(seen - {'serial'})} is for a medium, and there is none", "give it with the medium")
    if isinstance(options.place, NbdAddress) and "format" in seen:
        raise DiskOptionError("an NBD server has the format", "leave out format=")
    if isinstance(options.place, NbdAddress) and "cache" in seen:
        raise DiskOptionError("an NBD server has the cache", "leave out cache=")
    if options.read_only and options.snapshot:
        raise DiskOptionError("readonly and snapshot exclude each other", "leave out one")
    return options


def _instead(key: str, known: Mapping[str, _Option]) -> str:
    """Return what to give instead of an option that there is not."""
    if key in _DISK:
        return f"a CD is only read; known: {', '.join(known)}"
    return did_you_mean(key, known) or f"known: {', '.join(known)}; double a comma that is part of a name"


def _split(text: str) -> list[str]:
    """Return what stands between single commas; a double one is one that is meant."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def _place(text: str) -> dict[str, Any]:
    if is_nbd(text):
        try:
            return {"place": parse_nbd(text)}
        except NbdAddressError as error:
            raise DiskOptionError(error.problem.what, error.problem.remedy) from None
    if scheme := re.match(r"([a-z][a-z0-9+.-]*)://", text):
        raise DiskOptionError(f"{scheme[1]}:// is no place of a disk", "give a file, nbd://HOST:PORT/EXPORT or nbd+unix://")
    return {"place": Path(text), "format": _BY_SUFFIX.get(Path(text).suffix.lower(), Format.RAW)}


_BY_SUFFIX = {f".{each}": each for each in Format if each is not Format.RAW}


def _choice(key: str, kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def read(value: str) -> StrEnum:
        if value not in {each.value for each in kind}:
            names = ", ".join(kind)
            raise DiskOptionError(f"{key}={shown(value)} is not possible", did_you_mean(value, kind) or f"give {names}")
        return kind(value)

    return read


def _serial(value: str) -> str:
    printable = set(string.ascii_letters + string.digits + string.punctuation)
    if len(value) > SERIAL_CHARACTERS or not set(value) <= printable:
        what = f"{shown(value)!r} is not a serial number"
        raise DiskOptionError(what, f"give 1 to {SERIAL_CHARACTERS} printable ASCII characters without spaces")
    return value


_RATE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)([KMGT]?)", re.IGNORECASE | re.ASCII)


def _rate(key: str) -> Callable[[str], int]:
    def read(value: str) -> int:
        match = _RATE.fullmatch(value)
        rate = int(Fraction(match[1]) * (1 << 10 * " KMGT".index(match[2].upper() or " "))) if match else 0
        if not 1 <= rate <= RATE_MAX:
            raise DiskOptionError(f"{key}={shown(value)} is not a number a second", f"give 1 to 1024T, such as {key}=20M")
        return rate

    return read


@dataclass(frozen=True)
class _Option:
    field: str
    read: Callable[[str], Any] | None = None
    """Of its value; None: it has none."""
    example: str = ""


_CDROM: Mapping[str, _Option] = {
    "format": _Option("format", _choice("format", Format), "raw"),
    "serial": _Option("serial", _serial, "SN1"),
    "cache": _Option("cache", _choice("cache", Cache), "writeback"),
    "bps": _Option("bps", _rate("bps"), "20M"),
    "iops": _Option("iops", _rate("iops"), "1000"),
}
_DISK: Mapping[str, _Option] = {
    **_CDROM,
    "readonly": _Option("read_only"),
    "snapshot": _Option("snapshot"),
    "werror": _Option("werror", _choice("werror", OnWriteError), "stop"),
    "rerror": _Option("rerror", _choice("rerror", OnReadError), "stop"),
}
