# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts what a machine boots into its RAM: a kernel or client program, an initramfs, a firmware image.

splitvisor/images/placement.py says where a program goes; the initramfs follows it.

An image that is packed with gzip, xz or zstd is unpacked in memory first. This takes time: whoever loads does so in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cpu_service.images.unpack import UnpackError, packing_of, unpack
from cpu_service.vcpus.vcpu import Ram
from splitvisor.errors.problem import ProblemError
from splitvisor.images.elf import MAGIC, Elf, ElfError, read_elf
from splitvisor.images.placement import DESCRIPTOR, PlacedSegment, place
from splitvisor.process.inputs import open_input

FIRMWARE_ENTRY: Final = 0x100
"""A firmware image starts at the system reset vector."""
FIRMWARE_MAX_SIZE: Final = 4 << 20
UNPACKED_MAX: Final = 1 << 30
"""Of a packed kernel, in bytes, however large RAM is: it is in this host's memory twice for a moment."""
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


def _load_elf(ram: Ram, file: BinaryIO, name: str) -> LoadedImage:
    placement = place(read_elf(file), ram.size)
    at = placement.descriptor_at()
    entry, toc = placement.entry(None if at is None else _descriptor(placement.elf, at, file))
    # Uninitialized data first: where it overlaps what another segment has in the file, the file's bytes are meant.
    for each in placement.segments:
        _clear(ram, each.file_end, each.end - each.file_end)
    for each in placement.segments:
        _copy(ram, file, each.segment.offset, each.segment.file_size, each.address, name)
    return LoadedImage(entry, placement.base, placement.size, placement.elf.little_endian, toc)


def _descriptor(elf: Elf, at: PlacedSegment, file: BinaryIO) -> bytes:
    file.seek(at.segment.offset + elf.entry - at.segment.virtual)
    return file.read(DESCRIPTOR.size)


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
