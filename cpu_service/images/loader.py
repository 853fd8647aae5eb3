# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts what a machine boots into its RAM: a kernel or client program, an initramfs, a firmware image.

          0  firmware, its stack
    0x10000  free
   0x400000  a Linux kernel, moved there from its linear map at 0xC000000000000000, as QEMU does
             or a program that is linked at 0 and relocates itself, as test programs do; then the initramfs
Everything else (zImage, GRUB, the demo guest) is loaded where it is linked.

An image that is packed with gzip, xz or zstd is unpacked in memory first. This takes time: whoever loads does so in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

from cpu_service.images.elf import MAGIC, Elf, ElfError, Segment, read_elf
from cpu_service.images.unpack import UnpackError, packing_of, unpack
from cpu_service.vcpus.vcpu import Ram
from splitvisor.errors.problem import ProblemError
from splitvisor.process.inputs import open_input

FIRMWARE_ENTRY: Final = 0x100
"""A firmware image starts at the system reset vector."""
FIRMWARE_MAX_SIZE: Final = 4 << 20
FIRMWARE_END: Final = 0x10000
"""Below are the firmware, its stack and the exception vectors."""
KERNEL_ADDRESS: Final = 0x400000
KERNEL_MAP_NIBBLE: Final = 0xC
KERNEL_MAP: Final = KERNEL_MAP_NIBBLE << 60
UNPACKED_MAX: Final = 1 << 30
"""Of a packed kernel, in bytes, however large RAM is: it is in this host's memory twice for a moment."""
DESCRIPTOR: Final = Struct(">QQ")
"""Of an ELFv1 function: the address of its code, and what r2 is for it. An environment pointer follows that C does not use."""
PROGRAM_ROOM: Final = 1 << 20
"""Kept free after a client program: GRUB's headers give less memory than it uses."""
CHUNK: Final = 4 << 20


class LoaderError(ProblemError):
    """An image cannot be booted; the message is "NAME: what is wrong; what to do"."""


@dataclass(frozen=True)
class LoadedImage:
    """A program or firmware in RAM; addresses are real."""

    entry: int
    base: int
    size: int
    """Bytes from base that belong to it: with its uninitialized data, and the room that a client program gets."""
    little_endian: bool
    toc: int = 0
    """What r2 is at the entry, when that was given by a function descriptor."""


@dataclass(frozen=True)
class LoadedInitrd:
    """An initramfs in RAM."""

    base: int
    size: int


@contextmanager
def open_image(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for one of the functions below. Raises LoaderError."""
    try:
        file = open_input(path)
    except OSError as error:
        raise LoaderError(f"{path}: {error.strerror}", "give the path of a file that cpu_service can read") from error
    with file:
        yield file


def load_program(ram: Ram, file: BinaryIO, name: str) -> LoadedImage:
    """Load an ELF kernel or client program, 32 or 64 bits, either byte order. Raises LoaderError before RAM changes."""
    try:
        packing = packing_of(file)
        if packing is None:
            return _load_elf(ram, file, name)
        with unpack(file, packing, min(ram.size, UNPACKED_MAX)) as unpacked:
            return _load_elf(ram, unpacked, f"{name} (unpacked)")
    except (ElfError, UnpackError) as error:
        raise LoaderError(f"{name}: {error.problem.what}", error.problem.remedy) from error


@dataclass(frozen=True)
class _Placed:
    """A segment, and where in RAM it goes."""

    segment: Segment
    address: int

    @property
    def file_end(self) -> int:
        return self.address + self.segment.file_size

    @property
    def end(self) -> int:
        return self.address + self.segment.memory_size

    def __str__(self) -> str:
        return f"the segment for {self.segment.virtual:#x}"


def _load_elf(ram: Ram, file: BinaryIO, name: str) -> LoadedImage:
    elf = read_elf(file)
    moved = KERNEL_ADDRESS if elf.relocatable and min(segment.physical for segment in elf.segments) == 0 else 0
    placed = [_Placed(segment, _address(segment, moved)) for segment in elf.segments]
    _check_places(placed, ram.size)
    entry, toc = _entry(elf, placed, file)
    # Uninitialized data first: where it overlaps what another segment has in the file, the file's bytes are meant.
    for each in placed:
        _clear(ram, each.file_end, each.end - each.file_end)
    for each in placed:
        _copy(ram, file, each.segment.offset, each.segment.file_size, each.address, name)
    base = min(each.address for each in placed)
    end = max(each.end for each in placed)
    if not any(_is_kernel(segment) for segment in elf.segments):
        end = min(end + PROGRAM_ROOM, ram.size)
    return LoadedImage(entry, base, end - base, elf.little_endian, toc)


def _check_places(placed: Sequence[_Placed], ram_size: int) -> None:
    """Raise ElfError when segments do not fit RAM, or when two have bytes for the same address."""
    for each in placed:
        if each.address < FIRMWARE_END:
            what = f"is linked at {each.address:#x}; what is below {FIRMWARE_END:#x} belongs to the firmware"
            raise ElfError(what, f"link it at {FIRMWARE_END:#x} or above, or as a program that relocates itself")
        if each.end > ram_size:
            what = f"needs {each.segment.memory_size:#x} bytes at {each.address:#x}; RAM ends at {ram_size:#x}"
            raise ElfError(what, "give the machine more --memory")
    filled = sorted((each for each in placed if each.segment.file_size), key=lambda each: each.address)
    for first, second in pairwise(filled):
        if second.address < first.file_end:
            what = f"has two segments for {second.address:#x}: {_range(first)} and {_range(second)} overlap"
            raise ElfError(what, "link it again, each segment at addresses of its own")


def _range(placed: _Placed) -> str:
    """Name a segment: where it is linked, and what of it is in the file."""
    return f"{placed.segment.virtual:#x}+{placed.segment.file_size:#x}"


def _entry(elf: Elf, placed: Sequence[_Placed], file: BinaryIO) -> tuple[int, int]:
    """Return where in RAM the first instruction is, and what r2 is there. Raises ElfError."""
    at = next((each for each in placed if each.segment.holds(elf.entry)), None)
    if at is None or elf.entry % 4:
        raise ElfError(
            f"its entry point {elf.entry:#x} is not an instruction that it loads", "link it again, with an entry point"
        )
    if elf.descriptors and (found := _descriptor(elf, at, placed, file)) is not None:
        return found
    if not at.segment.executable:
        what = f"its entry point {elf.entry:#x} is in a segment that is not executable"
        raise ElfError(what, "link it again: set the entry point to code, or the segment's flag X")
    return at.address + elf.entry - at.segment.virtual, 0


def _descriptor(elf: Elf, at: _Placed, placed: Sequence[_Placed], file: BinaryIO) -> tuple[int, int] | None:
    """Return what _entry() does when the entry is a function descriptor, as SLOF takes it; None when it is an instruction.

    Linux's entry is an instruction, also in kernels whose functions have descriptors. A descriptor is in a segment without
    instructions, or begins with four zero bytes, which are no instruction.
    """
    if elf.entry % 8 or not at.segment.holds(elf.entry, DESCRIPTOR.size):
        return None
    file.seek(at.segment.offset + elf.entry - at.segment.virtual)
    code, toc = DESCRIPTOR.unpack(file.read(DESCRIPTOR.size))
    if at.segment.executable and code >> 32:
        return None
    to = next((each for each in placed if each.segment.executable and each.segment.holds(code)), None)
    if to is None or code % 4:
        return None
    return to.address + code - to.segment.virtual, at.address + toc - at.segment.virtual & (1 << 64) - 1


def load_firmware(ram: Ram, file: BinaryIO, name: str) -> LoadedImage:
    """Load a raw firmware image (VOF, SLOF) at 0, of 4 MiB at most. Raises LoaderError before RAM changes."""
    packing = packing_of(file)
    if packing is not None:
        raise LoaderError(f"{name}: is compressed with {packing.name}", f"unpack it first: {packing.name} -dc FILE > OUT")
    file.seek(0)
    if file.read(len(MAGIC)) == MAGIC:
        remedy = "make a raw image of it (objcopy -O binary FILE OUT), or give a client program with --kernel"
        raise LoaderError(f"{name}: is an ELF file, not a raw firmware image", remedy)
    size = file.seek(0, 2)
    largest = min(FIRMWARE_MAX_SIZE, ram.size)
    if not FIRMWARE_ENTRY < size <= largest:
        remedy = f"give a raw image, which has {FIRMWARE_ENTRY + 1} to {largest} bytes and starts at {FIRMWARE_ENTRY:#x}"
        raise LoaderError(f"{name}: has {size} bytes, and is no firmware image" if size else f"{name}: is empty", remedy)
    _copy(ram, file, 0, size, 0, name)
    return LoadedImage(FIRMWARE_ENTRY, 0, size, little_endian=False)


def load_initrd(ram: Ram, file: BinaryIO, name: str, kernel: LoadedImage) -> LoadedInitrd:
    """Load an initramfs at the next 64 KiB boundary but one after the kernel. Raises LoaderError before RAM changes.

    It is loaded as it is: the kernel knows how to unpack it.
    """
    size = file.seek(0, 2)
    base = kernel.base + kernel.size + 0x1FFFF & ~0xFFFF
    if not size:
        raise LoaderError(f"{name}: is empty", "give an initramfs, or no --initrd")
    if base + size > ram.size:
        what = f"{name}: needs {size:#x} bytes at {base:#x}, after the kernel; RAM ends at {ram.size:#x}"
        raise LoaderError(what, "give the machine more --memory")
    _copy(ram, file, 0, size, base, name)
    return LoadedInitrd(base, size)


def _is_kernel(segment: Segment) -> bool:
    return segment.virtual >> 60 == KERNEL_MAP_NIBBLE


def _address(segment: Segment, moved: int) -> int:
    """Where a segment goes; a program that is no kernel is moved by so many bytes."""
    if _is_kernel(segment):
        return KERNEL_ADDRESS + segment.virtual - KERNEL_MAP
    return segment.physical + moved


def _copy(ram: Ram, file: BinaryIO, offset: int, size: int, address: int, name: str) -> None:
    file.seek(offset)
    end = address + size
    while address < end:
        data = file.read(min(CHUNK, end - address))
        if not data:
            raise LoaderError(f"{name}: became shorter while it was read", "try again once it is whole")
        ram.write(address, data)
        address += len(data)


def _clear(ram: Ram, address: int, size: int) -> None:
    for start in range(0, size, CHUNK):
        ram.write(address + start, bytes(min(CHUNK, size - start)))
