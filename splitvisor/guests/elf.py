# SPDX-License-Identifier: GPL-2.0-or-later
"""Which shared libraries a program is linked with, and programs without those that no guest of ours uses.

Little-endian 64-bit ELF as Debian's ppc64el has it; names and layouts are those of the System V ABI and of its GNU extension for
symbol versions.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise

MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<32xQ14xHH")  # where the program headers are, the size of one, their number
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_NEEDED_VERSIONS = struct.Struct("<HHIII")  # version, count, file, aux, next
_NEEDED_VERSION = struct.Struct("<IHHII")  # hash, flags, index, name, next
_SYMBOL = struct.Struct("<IBBH16x")  # name, binding and type, visibility, section; value and size
_VERSION_INDEX = struct.Struct("<H")
_DISTANCE = struct.Struct("<I")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SYMTAB = 0, 1, 5, 6
_DT_VERSYM, _DT_VERNEED, _DT_VERNEEDNUM = 0x6FFF_FFF0, 0x6FFF_FFFE, 0x6FFF_FFFF
_STB_GLOBAL, _STB_WEAK = 1, 2
_VERSION_GLOBAL = 1
"""The index of a symbol without a version."""


class ElfError(ValueError):
    """A file is no program or library of the kind that is handled here."""


def is_elf(data: bytes) -> bool:
    """Return whether a file may have needed libraries at all."""
    return data.startswith(MAGIC)


def needed(data: bytes) -> list[str]:
    """Return the sonames of the libraries that a program or library is linked with. Raises ElfError."""
    return _Image(data).needed()


def without(data: bytes, sonames: Collection[str]) -> bytes:
    """Return a program that starts although some of its libraries are not there.

    What it would call in them is at address 0: it must not. A program of many back ends, each with its own libraries, runs with
    one of them in this way, and the guest need not hold the others.

    Args:
        data: the program.
        sonames: the libraries that it no longer needs.

    Raises ElfError.
    """
    return _Image(data).without(sonames)


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


class _Image:
    """A copy of a file, whose dynamic section is read and edited in place."""

    def __init__(self, data: bytes) -> None:
        if not is_elf(data):
            raise ElfError("no 64-bit little-endian ELF file")
        self._data = bytearray(data)
        headers, size, count = self._read(_HEADER, 0)
        rows = [self._read(_PROGRAM_HEADER, headers + size * number) for number in range(count)]
        self._segments = [_Segment(row[0], row[2], row[3], row[5]) for row in rows]
        self._entries = self._dynamic()

    def needed(self) -> list[str]:
        return [self._name(value) for tag, value in self._entries if tag == _DT_NEEDED]

    def without(self, sonames: Collection[str]) -> bytes:
        versions = self._drop_versions(sonames)
        self._weaken(versions)
        self._write_dynamic(
            [(tag, value) for tag, value in self._entries if tag != _DT_NEEDED or self._name(value) not in sonames]
        )
        return bytes(self._data)

    def _read(self, layout: struct.Struct, at: int) -> tuple[int, ...]:
        if not 0 <= at <= len(self._data) - layout.size:
            raise ElfError("an ELF file that ends too soon")
        return layout.unpack_from(self._data, at)

    def _dynamic(self) -> list[tuple[int, int]]:
        entries: list[tuple[int, int]] = []
        for segment in self._segments:
            if segment.kind == _PT_DYNAMIC:
                if segment.offset + segment.size > len(self._data):
                    raise ElfError("an ELF file that ends too soon")
                self._dynamic_at, self._dynamic_bytes = segment.offset, segment.size
                for at in range(segment.offset, segment.offset + segment.size, _DYNAMIC.size):
                    tag, value = self._read(_DYNAMIC, at)
                    if tag == _DT_NULL:
                        break
                    entries.append((tag, value))
        return entries

    def _write_dynamic(self, entries: list[tuple[int, int]]) -> None:
        written = b"".join(_DYNAMIC.pack(*entry) for entry in entries)
        end = self._dynamic_at + self._dynamic_bytes
        self._data[self._dynamic_at : end] = written.ljust(self._dynamic_bytes, b"\0")

    def _drop_versions(self, sonames: Collection[str]) -> set[int]:
        """Take the libraries out of the list of needed versions, which the loader looks up; return the indices of those."""
        first = self._value(_DT_VERNEED)
        if first is None:
            return set()
        dropped: set[int] = set()
        kept: list[int] = []
        for at in self._chain(self._at(first), _NEEDED_VERSIONS):
            _, _, file, aux, _ = self._read(_NEEDED_VERSIONS, at)
            if self._name(file) in sonames:
                dropped |= {self._read(_NEEDED_VERSION, each)[2] for each in self._chain(at + aux, _NEEDED_VERSION)}
            else:
                kept.append(at)
        for at, following in pairwise([*kept, *kept[-1:]]):  # The last one's distance is 0.
            _DISTANCE.pack_into(self._data, at + _NEEDED_VERSIONS.size - _DISTANCE.size, following - at)
        places = {_DT_VERNEED: first + kept[0] - self._at(first), _DT_VERNEEDNUM: len(kept)} if kept else {}
        self._entries = [
            (tag, places.get(tag, value)) for tag, value in self._entries if kept or tag not in {_DT_VERNEED, _DT_VERNEEDNUM}
        ]
        return dropped

    def _weaken(self, versions: set[int]) -> None:
        """Let symbols that are not found be 0 instead of an error: those of the dropped versions and those without a version."""
        symbols, strings, indices = (self._value(tag) for tag in (_DT_SYMTAB, _DT_STRTAB, _DT_VERSYM))
        if symbols is None or strings is None or indices is None:
            raise ElfError("a program without symbol versions")
        # Linkers put the strings right behind the symbols; nothing else of a program tells how many symbols there are.
        for number in range((strings - symbols) // _SYMBOL.size):
            symbol, index = self._at(symbols) + _SYMBOL.size * number, self._at(indices) + 2 * number
            _, info, _, section = self._read(_SYMBOL, symbol)
            [version] = self._read(_VERSION_INDEX, index)
            if section == 0 and info >> 4 == _STB_GLOBAL and (version in versions or version == _VERSION_GLOBAL):
                self._data[symbol + 4] = _STB_WEAK << 4 | info & 0xF
                _VERSION_INDEX.pack_into(self._data, index, _VERSION_GLOBAL)

    def _chain(self, at: int, layout: struct.Struct) -> Iterator[int]:
        """Walk a list whose records end with the distance to the next one, 0 in the last."""
        while True:
            yield at
            [distance] = self._read(_DISTANCE, at + layout.size - _DISTANCE.size)
            if distance == 0:
                return
            at += distance

    def _value(self, wanted: int) -> int | None:
        return next((value for tag, value in self._entries if tag == wanted), None)

    def _at(self, address: int) -> int:
        """Return where in the file an address is."""
        for segment in self._segments:
            if segment.kind == _PT_LOAD and 0 <= address - segment.address < segment.size:
                return segment.offset + address - segment.address
        raise ElfError(f"address {address:#x} is in no segment of the file")

    def _name(self, offset: int) -> str:
        strings = self._value(_DT_STRTAB)
        if strings is None:
            raise ElfError("a program without strings")
        start = self._at(strings) + offset
        end = self._data.find(0, start)
        if end < 0:
            raise ElfError("a name that does not end")
        return self._data[start:end].decode(errors="replace")
