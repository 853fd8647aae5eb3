# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of ELF that a boot loader needs: header and loadable segments of a PowerPC program, every field checked."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, Final

MAGIC: Final = b"\x7fELF"
MACHINES: Final = {1: 20, 2: 21}
"""Class (1: 32 bits, 2: 64 bits) to machine: EM_PPC, EM_PPC64."""
BYTE_ORDERS: Final = {1: "<", 2: ">"}
ET_DYN: Final = 3
EXECUTABLE_TYPES: Final = (2, ET_DYN)
"""ET_EXEC, and ET_DYN for programs that relocate themselves."""
PT_LOAD: Final = 1
MAX_SEGMENTS: Final = 64
"""Kernels have two, boot loaders a handful; more is a broken header."""
COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"\xfd7": "xz", b"\x28\xb5": "zstd"}

_IDENTIFICATION_BYTES = 16
_HEADER_FORMATS = {1: "HHIIIIIHHHHHH", 2: "HHIQQQIHHHHHH"}
_SEGMENT_FORMATS = {1: "IIIIIIII", 2: "IIQQQQQQ"}


class ElfError(Exception):
    """A file is not an ELF program that this machine can run; the message says what is wrong."""


@dataclass(frozen=True)
class Segment:
    """A PT_LOAD program header."""

    offset: int
    virtual: int
    physical: int
    file_size: int
    memory_size: int


@dataclass(frozen=True)
class Elf:
    """A program: what to load, and where its first instruction is."""

    entry: int
    """Virtual."""
    little_endian: bool
    relocatable: bool
    """It runs wherever it is loaded."""
    segments: tuple[Segment, ...]


def read_elf(file: BinaryIO) -> Elf:
    """Read the headers of a seekable file. Raises ElfError, OSError."""
    file_size = file.seek(0, 2)
    identification = _read(file, 0, _IDENTIFICATION_BYTES, file_size, "identification")
    if identification[:4] != MAGIC:
        method = COMPRESSED.get(identification[:2])
        raise ElfError(f"is compressed with {method}: unpack it first" if method else "is not an ELF file")
    elf_class, data, version = identification[4:7]
    if elf_class not in MACHINES or data not in BYTE_ORDERS or version != 1:
        raise ElfError(f"has an unknown ELF class, byte order or version: {elf_class}, {data}, {version}")
    order = BYTE_ORDERS[data]
    header = Struct(order + _HEADER_FORMATS[elf_class])
    kind, machine, _, entry, table, _, _, _, entry_size, count, *_ = header.unpack(
        _read(file, _IDENTIFICATION_BYTES, header.size, file_size, "header")
    )
    if machine != MACHINES[elf_class]:
        raise ElfError(f"is for ELF machine {machine}, not for PowerPC ({MACHINES[elf_class]})")
    if kind not in EXECUTABLE_TYPES:
        raise ElfError(f"has ELF type {kind}: not a linked program")
    segment = Struct(order + _SEGMENT_FORMATS[elf_class])
    if entry_size != segment.size or not 0 < count <= MAX_SEGMENTS:
        raise ElfError(f"has {count} program headers of {entry_size} bytes: expected 1 to {MAX_SEGMENTS} of {segment.size}")
    headers = segment.iter_unpack(_read(file, table, count * segment.size, file_size, "program header table"))
    loadable = (_segment(elf_class, fields, file_size) for fields in headers if fields[0] == PT_LOAD)
    segments = tuple(segment for segment in loadable if segment.memory_size)
    if not segments:
        raise ElfError("has nothing to load")
    return Elf(entry, order == "<", kind == ET_DYN, segments)


def _read(file: BinaryIO, offset: int, length: int, file_size: int, what: str) -> bytes:
    if offset + length > file_size:
        raise ElfError(f"ends within its {what}")
    file.seek(offset)
    return file.read(length)


def _segment(elf_class: int, fields: tuple[int, ...], file_size: int) -> Segment:
    if elf_class == 2:
        _, _, offset, virtual, physical, size_in_file, size_in_memory, _ = fields
    else:
        _, offset, virtual, physical, size_in_file, size_in_memory, _, _ = fields
    if offset + size_in_file > file_size:
        raise ElfError(f"ends within the segment for {virtual:#x}")
    if size_in_file > size_in_memory:
        raise ElfError(f"has a segment for {virtual:#x} that is larger in the file than in memory")
    return Segment(offset, virtual, physical, size_in_file, size_in_memory)
