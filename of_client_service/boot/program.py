# SPDX-License-Identifier: GPL-2.0-or-later
"""An ELF program from a medium into RAM, a piece at a time, so that no call of the firmware lasts long."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from of_client_service.claims import Claims
from of_client_service.client_interface import StartedProgram
from of_client_service.disks.medium import Medium
from of_client_service.volumes.source import Source, VolumeError
from splitvisor.backend import Vm
from splitvisor.images.elf import ElfError, read_elf
from splitvisor.images.placement import DESCRIPTOR, Placement, place

HEADER_BYTES = 64 << 10
"""From the start, which have the headers of every program that there is."""
PIECE_BYTES = 1 << 20
STEP_SECONDS = 2.0
"""After which a step ends, for the guest's other work: what waits longer than half a minute is given up by cpu_service."""


@dataclass(frozen=True)
class _Piece:
    """Bytes of RAM to fill: from the file, or with zeros."""

    address: int
    length: int
    offset: int | None = None
    """In the file."""


class _Beginning(io.BytesIO):
    """The first bytes of a longer file; what follows cannot be read."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See BytesIO; the end is the longer file's."""
        return super().seek(self._size + offset if whence == io.SEEK_END else offset)


class ProgramLoader:
    """A program that is being loaded. See open_program().

    Args:
        vm: the machine.
        medium: where the program is.
        source: its bytes.
        placement: where it goes.
    """

    def __init__(self, vm: Vm, medium: Medium, source: Source, placement: Placement) -> None:
        self._vm, self._medium, self._source, self._placement = vm, medium, source, placement
        self._pieces = deque(_pieces(placement))

    async def step(self) -> bool:
        """Load for a while. Returns whether all is there. Raises VolumeError, MediumError."""
        until = time.monotonic() + STEP_SECONDS
        while self._pieces and time.monotonic() < until:
            piece = self._pieces.popleft()
            if piece.offset is None:
                await self._vm.memory.write(piece.address, bytes(piece.length))
                continue
            address = piece.address
            for extent in self._source.extents(piece.offset, piece.length):
                await self._medium.load(extent.start, address, extent.length)
                address += extent.length
        return not self._pieces

    async def start(self, claims: Claims) -> StartedProgram:
        """Claim its memory once all is there. Raises VolumeError for an entry that cannot be."""
        return await start_program(self._vm, self._placement, claims)


async def start_program(vm: Vm, placement: Placement, claims: Claims) -> StartedProgram:
    """Claim the memory of a program that is there, and say where it starts. Raises VolumeError for an entry that cannot be."""
    at = placement.descriptor_at()
    descriptor = None
    if at is not None:
        address = at.address + placement.elf.entry - at.segment.virtual
        descriptor = await vm.memory.read(address, DESCRIPTOR.size)
    try:
        entry, toc = placement.entry(descriptor)
    except ElfError as error:
        raise VolumeError(error.problem.what) from error
    claims.reserve(placement.base, placement.size)
    return StartedProgram(entry, toc)


async def open_program(vm: Vm, medium: Medium, source: Source, claims: Claims) -> ProgramLoader:
    """Read a program's headers and decide where it goes. Raises VolumeError for what cannot be loaded, MediumError."""
    head = await source.read(0, min(source.size, HEADER_BYTES))
    return ProgramLoader(vm, medium, source, place_program(head, source.size, vm.memory.size, claims))


def place_program(head: bytes, size: int, ram_bytes: int, claims: Claims) -> Placement:
    """Decide where a program goes, by the first HEADER_BYTES of its file. Raises VolumeError for what cannot be loaded."""
    try:
        placement = place(read_elf(_Beginning(head, size)), ram_bytes)
    except ElfError as error:
        raise VolumeError(error.problem.what) from error
    for each in placement.segments:
        if not claims.is_free(each.address, each.segment.memory_size):
            raise VolumeError(f"needs memory at {each.address:#x} that is in use")
    return placement


def zeros(placement: Placement) -> Iterator[tuple[int, int]]:
    """Yield address and length of what is to be zero: before all else, since some of it may be what the file has bytes for."""
    for each in placement.segments:
        for start in range(each.file_end, each.end, PIECE_BYTES):
            yield start, min(PIECE_BYTES, each.end - start)


def _pieces(placement: Placement) -> Iterator[_Piece]:
    """Yield what to do, in order."""
    for address, length in zeros(placement):
        yield _Piece(address, length)
    for each in placement.segments:
        for start in range(0, each.segment.file_size, PIECE_BYTES):
            length = min(PIECE_BYTES, each.segment.file_size - start)
            yield _Piece(each.address + start, length, each.segment.offset + start)
