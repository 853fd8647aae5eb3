# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts what a machine boots into its RAM: a kernel or client program, an initramfs, a firmware image.

          0  firmware, its stack
    0x10000  free
   0x400000  a Linux kernel, moved there from its linear map at 0xC000000000000000, as QEMU does
             or a program that is linked at 0 and relocates itself, as test programs do; then the initramfs
Everything else (zImage, GRUB, the demo guest) is loaded where it is linked.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import O_CLOEXEC, O_NONBLOCK, O_RDONLY, fdopen, fstat
from os import open as os_open
from pathlib import Path
from typing import BinaryIO, Final

from cpu_service.images.elf import ElfError, Segment, read_elf
from cpu_service.vcpus.vcpu import Ram

FIRMWARE_ENTRY: Final = 0x100
"""A firmware image starts at the system reset vector."""
FIRMWARE_MAX_SIZE: Final = 4 << 20
FIRMWARE_END: Final = 0x10000
"""Below are the firmware, its stack and the exception vectors."""
KERNEL_ADDRESS: Final = 0x400000
KERNEL_MAP_NIBBLE: Final = 0xC
KERNEL_OFFSET_MASK: Final = 0x0FFF_FFFF
PROGRAM_ROOM: Final = 1 << 20
"""Kept free after a client program: GRUB's headers give less memory than it uses."""
CHUNK: Final = 4 << 20


class LoaderError(Exception):
    """An image cannot be booted; the message is "NAME: what is wrong"."""


@dataclass(frozen=True)
class LoadedImage:
    """A program or firmware in RAM; addresses are real."""

    entry: int
    base: int
    size: int
    """Bytes from base that belong to it: with its uninitialized data, and the room that a client program gets."""
    little_endian: bool


@dataclass(frozen=True)
class LoadedInitrd:
    """An initramfs in RAM."""

    base: int
    size: int


@contextmanager
def open_image(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for one of the functions below. Raises LoaderError."""
    try:
        file = fdopen(os_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), "rb")
    except OSError as error:
        raise LoaderError(f"{path}: {error.strerror}") from error
    with file:
        if not stat.S_ISREG(fstat(file.fileno()).st_mode):
            raise LoaderError(f"{path}: is not a regular file")
        yield file


def load_program(ram: Ram, file: BinaryIO, name: str) -> LoadedImage:
    """Load an ELF kernel or client program, 32 or 64 bits, either byte order. Raises LoaderError before RAM changes."""
    try:
        elf = read_elf(file)
    except ElfError as error:
        raise LoaderError(f"{name}: {error}") from error
    moved = KERNEL_ADDRESS if elf.relocatable and min(segment.physical for segment in elf.segments) == 0 else 0
    placed = [(segment, _address(segment, moved)) for segment in elf.segments]
    for segment, address in placed:
        if address < FIRMWARE_END:
            raise LoaderError(f"{name}: is linked at {address:#x}; what is below {FIRMWARE_END:#x} belongs to the firmware")
        if address + segment.memory_size > ram.size:
            raise LoaderError(f"{name}: needs {segment.memory_size:#x} bytes at {address:#x}; RAM ends at {ram.size:#x}")
    entries = [
        address + elf.entry - segment.virtual
        for segment, address in placed
        if segment.virtual <= elf.entry < segment.virtual + segment.file_size
    ]
    if not entries or elf.entry % 4:
        raise LoaderError(f"{name}: its entry point {elf.entry:#x} is not an instruction that it loads")
    for segment, address in placed:
        _copy(ram, file, segment.offset, segment.file_size, address, name)
        _clear(ram, address + segment.file_size, segment.memory_size - segment.file_size)
    base = min(address for _, address in placed)
    end = max(address + segment.memory_size for segment, address in placed)
    if not any(_is_kernel(segment) for segment in elf.segments):
        end = min(end + PROGRAM_ROOM, ram.size)
    return LoadedImage(entries[0], base, end - base, elf.little_endian)


def load_firmware(ram: Ram, file: BinaryIO, name: str) -> LoadedImage:
    """Load a raw firmware image (VOF, SLOF) at 0, of 4 MiB at most. Raises LoaderError before RAM changes."""
    size = file.seek(0, 2)
    if not FIRMWARE_ENTRY < size <= min(FIRMWARE_MAX_SIZE, ram.size):
        raise LoaderError(f"{name}: has {size} bytes; a firmware image has {FIRMWARE_ENTRY + 1} to {FIRMWARE_MAX_SIZE}")
    _copy(ram, file, 0, size, 0, name)
    return LoadedImage(FIRMWARE_ENTRY, 0, size, little_endian=False)


def load_initrd(ram: Ram, file: BinaryIO, name: str, kernel: LoadedImage) -> LoadedInitrd:
    """Load an initramfs at the next 64 KiB boundary but one after the kernel. Raises LoaderError before RAM changes."""
    size = file.seek(0, 2)
    base = kernel.base + kernel.size + 0x1FFFF & ~0xFFFF
    if not size:
        raise LoaderError(f"{name}: is empty")
    if base + size > ram.size:
        raise LoaderError(f"{name}: needs {size:#x} bytes at {base:#x}, after the kernel; RAM ends at {ram.size:#x}")
    _copy(ram, file, 0, size, base, name)
    return LoadedInitrd(base, size)


def _is_kernel(segment: Segment) -> bool:
    return segment.virtual >> 60 == KERNEL_MAP_NIBBLE


def _address(segment: Segment, moved: int) -> int:
    """Where a segment goes; a program that is no kernel is moved by so many bytes."""
    if _is_kernel(segment):
        return KERNEL_ADDRESS + (segment.virtual & KERNEL_OFFSET_MASK)
    return segment.physical + moved


def _copy(ram: Ram, file: BinaryIO, offset: int, size: int, address: int, name: str) -> None:
    file.seek(offset)
    end = address + size
    while address < end:
        data = file.read(min(CHUNK, end - address))
        if not data:
            raise LoaderError(f"{name}: became shorter while it was read")
        ram.write(address, data)
        address += len(data)


def _clear(ram: Ram, address: int, size: int) -> None:
    for start in range(0, size, CHUNK):
        ram.write(address + start, bytes(min(CHUNK, size - start)))
