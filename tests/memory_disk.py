# SPDX-License-Identifier: GPL-2.0-or-later
"""A block device in memory, for tests of what is in front of one."""

from __future__ import annotations

import asyncio
import errno

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockDevice, BlockError

_EXTENT = 4096
"""Room is given back in units of this."""


class MemoryDisk(BlockDevice):
    """Bytes in memory. It knows which have been written, fails when it is asked to, and waits when it is asked to.

    Attributes:
        data: what it holds.
        error: a number of errno, for all transfers.
        failures: the number of transfers that had it.
        gate: transfers wait until it is set.
        flushes: the number of flushes.
        forced: the number of writes with FUA.
    """

    def __init__(self, size: int, *, can_discard: bool = True, read_only: bool = False, has_write_cache: bool = True) -> None:
        self.data = bytearray(size)
        self.size = size
        self.can_discard = can_discard
        self.read_only = read_only
        self.has_write_cache = has_write_cache
        self.name = "memory"
        self.error: int | None = None
        self.failures = 0
        self.gate: asyncio.Event | None = None
        self.waiting = 0
        self.flushes = 0
        self.forced = 0
        self._used: set[int] = set()

    async def read(self, offset: int, into: Buffers) -> None:
        await self._pass()
        for piece in into.pieces:
            piece[:] = memoryview(self.data)[offset : offset + len(piece)]
            offset += len(piece)

    async def write(self, offset: int, data: Buffers, fua: bool = False) -> None:
        await self._pass()
        self.forced += fua
        self._used.update(range(offset // _EXTENT, -(-(offset + data.length) // _EXTENT)))
        for piece in data.pieces:
            self.data[offset : offset + len(piece)] = piece
            offset += len(piece)

    async def flush(self) -> None:
        await self._pass()
        self.flushes += 1

    async def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        await self._pass()
        self.data[offset : offset + length] = bytes(length)
        if unmap:
            self._used.difference_update(range(-(-offset // _EXTENT), (offset + length) // _EXTENT))
        else:
            self._used.update(range(offset // _EXTENT, -(-(offset + length) // _EXTENT)))

    async def discard(self, offset: int, length: int) -> None:
        await self.write_zeroes(offset, length, unmap=True)

    async def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        used = offset // _EXTENT in self._used
        end = offset // _EXTENT + 1
        while end * _EXTENT < offset + length and (end in self._used) == used:
            end += 1
        return used, min(end * _EXTENT - offset, length)

    async def close(self) -> None:
        pass

    async def hand_over(self) -> None:
        self.error = errno.EBUSY

    async def take_back(self, seconds: float) -> None:
        self.error = None

    async def _pass(self) -> None:
        if self.gate is not None:
            self.waiting += 1
            try:
                await self.gate.wait()
            finally:
                self.waiting -= 1
        if self.error is not None:
            self.failures += 1
            raise BlockError.number(self.error)
