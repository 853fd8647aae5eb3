# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in RAM the segments of a program and its first instruction are.

          0  firmware, its stack
    0x10000  free
   0x400000  a Linux kernel, moved there from its linear map at 0xC000000000000000, as QEMU does
             or a program that is linked at 0 and relocates itself, as test programs do
Everything else (zImage, GRUB, the demo guest) is where it is linked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct
from typing import Final

from splitvisor.images.elf import Elf, ElfError, Segment

FIRMWARE_END: Final = 0x10000
"""Below are the firmware, its stack and the exception vectors."""
KERNEL_ADDRESS: Final = 0x400000
KERNEL_MAP_NIBBLE: Final = 0xC
KERNEL_MAP: Final = KERNEL_MAP_NIBBLE << 60
PROGRAM_ROOM: Final = 1 << 20
"""Kept free after a client program: GRUB's headers give less memory than it uses."""
DESCRIPTOR: Final = Struct(">QQ")
"""Of an ELFv1 function: the address of its code, and what r2 is for it. An environment pointer follows that C does not use."""


@dataclass(frozen=True)
class PlacedSegment:
    """A segment, and where in RAM it goes."""

    segment: Segment
    address: int

    @property
    def file_end(self) -> int:
        """Behind what of it is in the file."""
        return self.address + self.segment.file_size

    @property
    def end(self) -> int:
        """Behind all of it."""
        return self.address + self.segment.memory_size

    @property
    def label(self) -> str:
        """For messages: where it is linked, and how much of it is in the file."""
        return f"{self.segment.virtual:#x}+{self.segment.file_size:#x}"


@dataclass(frozen=True)
class Placement:
    """A program in RAM."""

    elf: Elf
    segments: tuple[PlacedSegment, ...]
    base: int
    size: int
    """Bytes from base that belong to it: with its uninitialized data, and the room that a client program gets."""

    def descriptor_at(self) -> PlacedSegment | None:
        """The segment whose file bytes at the entry may be a function descriptor; None: the entry is an instruction."""
        at = self._entry_segment()
        may_be = self.elf.descriptors and self.elf.entry % 8 == 0 and at.segment.holds(self.elf.entry, DESCRIPTOR.size)
        return at if may_be else None

    def entry(self, descriptor: bytes | None) -> tuple[int, int]:
        """Return where in RAM the first instruction is, and what r2 is there.

        descriptor: the bytes at the entry when descriptor_at() says that they may be one. Raises ElfError.
        """
        at = self._entry_segment()
        if descriptor is not None and (found := self._described(at, descriptor)) is not None:
            return found
        if not at.segment.executable:
            what = f"its entry point {self.elf.entry:#x} is in a segment that is not executable"
            raise ElfError(what, "link it again: set the entry point to code, or the segment's flag X")
        return at.address + self.elf.entry - at.segment.virtual, 0

    def _entry_segment(self) -> PlacedSegment:
        at = next((each for each in self.segments if each.segment.holds(self.elf.entry)), None)
        if at is None or self.elf.entry % 4:
            what = f"its entry point {self.elf.entry:#x} is not an instruction that it loads"
            raise ElfError(what, "link it again, with an entry point")
        return at

    def _described(self, at: PlacedSegment, descriptor: bytes) -> tuple[int, int] | None:
        """Return what entry() does when the entry is a function descriptor, as SLOF takes it; None when it is an instruction.

        Linux's entry is an instruction, also in kernels whose functions have descriptors. A descriptor is in a segment without
        instructions, or begins with four zero bytes, which are no instruction.
        """
        code, toc = DESCRIPTOR.unpack(descriptor)
        if at.segment.executable and code >> 32:
            return None
        to = next((each for each in self.segments if each.segment.executable and each.segment.holds(code)), None)
        if to is None or code % 4:
            return None
        return to.address + code - to.segment.virtual, at.address + toc - at.segment.virtual & (1 << 64) - 1


def place(elf: Elf, ram_bytes: int) -> Placement:
    """Decide where a program goes in RAM. Raises ElfError when it does not fit there."""
    moved = KERNEL_ADDRESS if elf.relocatable and min(segment.physical for segment in elf.segments) == 0 else 0
    placed = tuple(PlacedSegment(segment, _address(segment, moved)) for segment in elf.segments)
    _check_places(placed, ram_bytes)
    base = min(each.address for each in placed)
    end = max(each.end for each in placed)
    if not any(_is_kernel(segment) for segment in elf.segments):
        end = min(end + PROGRAM_ROOM, ram_bytes)
    placement = Placement(elf, placed, base, end - base)
    placement.descriptor_at()  # an entry outside of the program is an error before anything is loaded
    return placement


def _check_places(placed: Sequence[PlacedSegment], ram_bytes: int) -> None:
    """Raise ElfError when segments do not fit RAM, or when two have bytes for the same address."""
    for each in placed:
        if each.address < FIRMWARE_END:
            what = f"is linked at {each.address:#x}; what is below {FIRMWARE_END:#x} belongs to the firmware"
            raise ElfError(what, f"link it at {FIRMWARE_END:#x} or above, or as a program that relocates itself")
        if each.end > ram_bytes:
            what = f"needs {each.segment.memory_size:#x} bytes at {each.address:#x}; RAM ends at {ram_bytes:#x}"
            raise ElfError(what, "give the machine more --memory")
    filled = sorted((each for each in placed if each.segment.file_size), key=lambda each: each.address)
    for first, second in pairwise(filled):
        if second.address < first.file_end:
            what = f"has two segments for {second.address:#x}: {first.label} and {second.label} overlap"
            raise ElfError(what, "link it again, each segment at addresses of its own")


def _is_kernel(segment: Segment) -> bool:
    return segment.virtual >> 60 == KERNEL_MAP_NIBBLE


def _address(segment: Segment, moved: int) -> int:
    """Where a segment goes; a program that is no kernel is moved by so many bytes."""
    if _is_kernel(segment):
        return KERNEL_ADDRESS + segment.virtual - KERNEL_MAP
    return segment.physical + moved
