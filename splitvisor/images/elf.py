# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of ELF that a boot loader needs: header and loadable segments of a PowerPC program, every field checked."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, Final

from splitvisor.errors.problem import ProblemError
from splitvisor.images.formats import format_of

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
EXECUTABLE: Final = 1
"""Flag of a segment: it holds instructions."""
ABI_MASK: Final = 3
ABI_V2: Final = 2
"""Of e_flags: in a 64-bit program of an older ABI, or of one that it does not name, e_entry may be a function descriptor."""
FETCH_AGAIN: Final = "fetch or build it again"
GIVE_KERNEL: Final = "give a PowerPC ELF kernel: vmlinux, zImage, or a client program"
OTHER_KINDS: Final = {1: "an object file", 4: "a core dump"}
OTHER_MACHINES: Final = {
    2: "SPARC", 3: "x86", 8: "MIPS", 20: "32-bit PowerPC", 21: "64-bit PowerPC", 22: "S/390", 40: "ARM", 43: "SPARC",
    50: "Itanium", 62: "x86-64", 183: "ARM (AArch64)", 243: "RISC-V", 247: "BPF", 258: "LoongArch",
}  # fmt: skip

_IDENTIFICATION_BYTES = 16
_HEADER_FORMATS = {1: "HHIIIIIHHHHHH", 2: "HHIQQQIHHHHHH"}
_SEGMENT_FORMATS = {1: "IIIIIIII", 2: "IIQQQQQQ"}


class ElfError(ProblemError):
    """A file is not an ELF program that this machine can run; the message says what is wrong."""


@dataclass(frozen=True)
class Segment:
    """A PT_LOAD program header."""

    offset: int
    virtual: int
    physical: int
    file_size: int
    memory_size: int
    executable: bool = True

    def holds(self, virtual: int, length: int = 4) -> bool:
        """Whether the file has so many bytes of it from a virtual address."""
        return self.virtual <= virtual and virtual + length <= self.virtual + self.file_size


@dataclass(frozen=True)
class Elf:
    """A program: what to load, and where its first instruction is."""

    entry: int
    """Virtual."""
    little_endian: bool
    relocatable: bool
    """It runs wherever it is loaded."""
    descriptors: bool
    """Its functions have descriptors (ELFv1, big-endian), and the entry may be one."""
    segments: tuple[Segment, ...]


def read_elf(file: BinaryIO) -> Elf:
    """Read the headers of a seekable file. Raises ElfError, OSError."""
    file_size = file.seek(0, 2)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        found = format_of(file)
        raise ElfError(found.what, found.remedy)
    identification = _read(file, 0, _IDENTIFICATION_BYTES, file_size, "identification")
    elf_class, data, version = identification[4:7]
    if elf_class not in MACHINES or data not in BYTE_ORDERS or version != 1:
        raise ElfError(f"has an unknown ELF class, byte order or version: {elf_class}, {data}, {version}", GIVE_KERNEL)
    order = BYTE_ORDERS[data]
    header = Struct(order + _HEADER_FORMATS[elf_class])
    kind, machine, _, entry, table, _, flags, _, entry_size, count, *_ = header.unpack(
        _read(file, _IDENTIFICATION_BYTES, header.size, file_size, "header")
    )
    _check_machine(elf_class, order, kind, machine)
    segment = Struct(order + _SEGMENT_FORMATS[elf_class])
    if entry_size != segment.size or not 0 < count <= MAX_SEGMENTS:
        raise ElfError(
            f"has {count} program headers of {entry_size} bytes", f"a program has 1 to {MAX_SEGMENTS} of {segment.size} bytes"
        )
    headers = segment.iter_unpack(_read(file, table, count * segment.size, file_size, "program header table"))
    loadable = (_segment(elf_class, fields, file_size) for fields in headers if fields[0] == PT_LOAD)
    segments = tuple(segment for segment in loadable if segment.memory_size)
    if not segments:
        raise ElfError("has nothing to load", GIVE_KERNEL)
    descriptors = elf_class == 2 and order == ">" and flags & ABI_MASK != ABI_V2
    return Elf(entry, order == "<", kind == ET_DYN, descriptors, segments)


def _check_machine(elf_class: int, order: str, kind: int, machine: int) -> None:
    """Raise ElfError unless a header is that of a PowerPC program."""
    expected = MACHINES[elf_class]
    if int.from_bytes(machine.to_bytes(2, "big"), "little") == expected:
        said, is_so = ("little", "big") if order == "<" else ("big", "little")
        raise ElfError(f"says that it is {said}-endian (byte 5), but its header is {is_so}-endian", "link it again")
    if machine in MACHINES.values() and machine != expected:
        raise ElfError(f"is of ELF class {32 * elf_class}, but for {OTHER_MACHINES[machine]} ({machine})", "link it again")
    if machine != expected:
        name = OTHER_MACHINES.get(machine, f"ELF machine {machine}")
        raise ElfError(f"is for {name}, not for PowerPC", GIVE_KERNEL)
    if kind not in EXECUTABLE_TYPES:
        raise ElfError(f"is {OTHER_KINDS.get(kind, f'of ELF type {kind}')}, not a linked program", GIVE_KERNEL)


def _read(file: BinaryIO, offset: int, length: int, file_size: int, what: str) -> bytes:
    if offset + length > file_size:
        raise ElfError(f"ends within its {what}", FETCH_AGAIN)
    file.seek(offset)
    return file.read(length)


def _segment(elf_class: int, fields: tuple[int, ...], file_size: int) -> Segment:
    if elf_class == 2:
        _, flags, offset, virtual, physical, size_in_file, size_in_memory, _ = fields
    else:
        _, offset, virtual, physical, size_in_file, size_in_memory, flags, _ = fields
    if size_in_file and offset + size_in_file > file_size:
        raise ElfError(f"ends within the segment for {virtual:#x}", FETCH_AGAIN)
    if size_in_file > size_in_memory:
        raise ElfError(f"has a segment for {virtual:#x} that is larger in the file than in memory", "link it again")
    return Segment(offset, virtual, physical, size_in_file, size_in_memory, bool(flags & EXECUTABLE))
