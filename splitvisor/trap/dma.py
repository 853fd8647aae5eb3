# SPDX-License-Identifier: GPL-2.0-or-later
"""The two ways of a device through its DMA window: mapped RAM and TCEs, or requests on the trap stream."""

from __future__ import annotations

import mmap
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Protocol

from splitvisor.block.buffers import Buffers
from splitvisor.declarations.dma import DmaError, DmaWindow, Piece, Scatter
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.memory import CHUNK_BYTES
from splitvisor.trap.tce_file import TCE_READ, TCE_WRITE, TceTables, TceWindow

MAX_PIECES = 512
"""Ranges in one request; more go in several."""


class MappedDma(DmaWindow):
    """A window of which TCEs and RAM are mapped here: a device's bytes go from and to guest RAM itself.

    Args:
        ram: guest RAM.
        tables: the VM's windows.
        unit_address: of the device.
        written: told of guest memory that was written.
        may_write: waits until the VM does not stand still.
    """

    def __init__(
        self,
        ram: mmap.mmap,
        tables: TceTables,
        unit_address: int,
        written: Callable[[int, int], None],
        may_write: Callable[[], Awaitable[None]],
    ) -> None:
        self._ram, self._ram_bytes = memoryview(ram), len(ram)
        self._tables, self._unit_address = tables, unit_address
        self._written, self._may_write = written, may_write
        self._found: TceWindow | None = None

    def _window(self) -> TceWindow:
        if self._found is None:  # cpu_service makes it when it has the offer; the guest's first call is later.
            self._found = self._tables.window(self._unit_address)
            if self._found is None:
                raise DmaError(f"the device at {self._unit_address:#x} has no DMA window yet")
        return self._found

    def _ranges(self, pieces: Sequence[Piece], permission: int) -> Sequence[tuple[int, int]]:
        window = self._window()
        if len(pieces) == 1:
            [(ioba, length)] = pieces
            address = window.in_one_page(ioba, length, permission, self._ram_bytes)
            if address >= 0:
                return ((address, length),)
        return window.ranges(pieces, permission, self._ram_bytes)

    def _buffers(self, ranges: Sequence[tuple[int, int]]) -> Buffers:
        if len(ranges) == 1:
            [(address, size)] = ranges
            return Buffers.made((self._ram[address : address + size],), size)
        return Buffers(self._ram[address : address + size] for address, size in ranges)

    async def read(self, ioba: int, length: int) -> bytes:
        """See DmaWindow."""
        address = self._window().in_one_page(ioba, length, TCE_READ, self._ram_bytes)
        if address < 0:
            return await super().read(ioba, length)
        return self._ram[address : address + length].tobytes()

    async def write(self, ioba: int, data: bytes) -> None:
        """See DmaWindow."""
        await self._may_write()
        length = len(data)
        address = self._window().in_one_page(ioba, length, TCE_WRITE, self._ram_bytes)
        if address < 0:
            await super().write(ioba, data)
        else:
            self._ram[address : address + length] = data
            self._written(address, length)

    async def gather(self, pieces: Sequence[Piece]) -> Buffers:
        """See DmaWindow."""
        return self._buffers(self._ranges(pieces, TCE_READ))

    async def scatter(self, pieces: Sequence[Piece]) -> Scatter:
        """See DmaWindow."""
        await self._may_write()
        ranges = self._ranges(pieces, TCE_WRITE)
        return _MappedScatter(self._buffers(ranges), ranges, self._written)


class _MappedScatter(Scatter):
    """Guest RAM itself. What is stored is there; a commit only tells of it."""

    def __init__(self, buffers: Buffers, ranges: Sequence[tuple[int, int]], written: Callable[[int, int], None]) -> None:
        self.buffers = buffers
        self._ranges, self._written = ranges, written

    async def commit(self, length: int) -> None:
        """See Scatter."""
        for address, size in self._ranges:
            if length <= 0:
                break
            self._written(address, min(size, length))
            length -= size


class DmaRequester(Protocol):
    """Asks cpu_service for memory of a DMA window over the trap stream."""

    def __call__(self, *, read: pb.MemoryRead | None = None, write: pb.MemoryWrite | None = None) -> Awaitable[pb.MemoryResult]:
        """Send one request, whose number is set here, and return its answer."""


class StreamDma(DmaWindow):
    """A window of a machine on another host: cpu_service translates and checks.

    Args:
        unit_address: of the device.
        request: asks cpu_service.
        may_write: waits until the VM does not stand still.
    """

    def __init__(self, unit_address: int, request: DmaRequester, may_write: Callable[[], Awaitable[None]]) -> None:
        self._unit_address, self._request, self._may_write = unit_address, request, may_write

    async def gather(self, pieces: Sequence[Piece]) -> Buffers:
        """See DmaWindow."""
        parts: list[bytes] = []
        for part in _requests(pieces):
            ranges = [pb.MemoryRange(address=piece.ioba, length=piece.length) for piece in part]
            result = await self._request(read=pb.MemoryRead(range=ranges[0], liobn=self._unit_address, more=ranges[1:]))
            if not result.ok or len(result.data) != sum(piece.length for piece in part):
                raise DmaError(f"the DMA window of {self._unit_address:#x} does not let its device read {_text(part)}")
            parts.append(result.data)
        return Buffers(memoryview(part) for part in parts)

    async def scatter(self, pieces: Sequence[Piece]) -> Scatter:
        """See DmaWindow. Whether the guest allows it shows at the commit."""
        if any(piece.ioba < 0 or piece.length < 0 for piece in pieces):
            raise DmaError(f"there is no range {_text(pieces)}")
        data = bytearray(sum(piece.length for piece in pieces))

        async def commit(length: int) -> None:
            await self._may_write()
            await self._store(pieces, memoryview(data)[:length])

        return Scatter(Buffers.of(data), commit)

    async def _store(self, pieces: Sequence[Piece], data: memoryview) -> None:
        """Write data to the pieces; a transfer of more than one request may be written in part."""
        for part in _requests(_cut(pieces, len(data))):
            blocks: list[pb.MemoryBlock] = []
            for piece in part:
                blocks.append(pb.MemoryBlock(address=piece.ioba, data=bytes(data[: piece.length])))
                data = data[piece.length :]
            result = await self._request(write=pb.MemoryWrite(block=blocks[0], liobn=self._unit_address, more=blocks[1:]))
            if not result.ok:
                raise DmaError(f"the DMA window of {self._unit_address:#x} does not let its device write {_text(part)}")


def _cut(pieces: Sequence[Piece], length: int) -> list[Piece]:
    """Return the pieces of the first length bytes."""
    found: list[Piece] = []
    for piece, end in zip(pieces, accumulate(piece.length for piece in pieces), strict=True):
        start = end - piece.length
        if start < length:
            found.append(Piece(piece.ioba, min(piece.length, length - start)))
    return found


def _requests(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Return the pieces in parts of at most CHUNK_BYTES and MAX_PIECES, without empty ones."""
    parts: list[list[Piece]] = [[]]
    room = CHUNK_BYTES
    for piece in pieces:
        done = 0
        while done < piece.length:
            if room == 0 or len(parts[-1]) == MAX_PIECES:
                parts.append([])
                room = CHUNK_BYTES
            taken = min(piece.length - done, room)
            parts[-1].append(Piece(piece.ioba + done, taken))
            done, room = done + taken, room - taken
    return [part for part in parts if part]


def _text(pieces: Sequence[Piece]) -> str:
    shown = ", ".join(f"{piece.ioba:#x}+{piece.length:#x}" for piece in pieces[:3])
    return shown + (", ..." if len(pieces) > 3 else "")
