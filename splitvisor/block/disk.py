# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk as a device of a machine drives it: counted, throttled, bounded, and with what happens when a transfer fails."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockDevice, BlockError
from splitvisor.block.options import DiskOptions, OnReadError, OnWriteError
from splitvisor.block.statistics import Counters, DiskStatistics
from splitvisor.block.throttle import Throttle
from splitvisor.block.turns import Turns
from splitvisor.observe.call_times import Latency

TRANSFERS = 64
"""Under way at once below; others wait for their turn."""

OnError = Callable[[BlockError], Awaitable[bool]]
"""Is told that a transfer failed that is to stop the machine: pauses it, and returns once it goes on: whether to try again."""
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_T = TypeVar("_T")


class Disk(BlockDevice):
    """The disk.

    Args:
        below: has the bytes; it is closed with this.
        options: what somebody wants of it.
        on_error: for werror and rerror; None: errors are reported, whatever the options say.
    """

    def __init__(self, below: BlockDevice, options: DiskOptions, on_error: OnError | None = None) -> None:
        self.options = options
        self.name, self.size, self.block_bytes = options.name, below.size, below.block_bytes
        self.read_only, self.can_discard = below.read_only, below.can_discard
        self.has_write_cache = below.has_write_cache
        self._below = below
        self._throttle = Throttle(options.bps, options.iops, asyncio.get_running_loop().time)
        self._on_error = on_error
        self._counters = Counters()
        self._turns = Turns(TRANSFERS)

    @property
    def statistics(self) -> DiskStatistics:
        """What it has done."""
        return self._counters.snapshot()

    async def read(self, offset: int, into: Buffers) -> None:
        """Fill the buffers."""
        counters, began = self._counters, time.monotonic()
        counters.began()
        try:
            if self._throttle.is_on:
                await self._throttle.take(into.length)
            while True:
                if not self._turns.take():
                    await self._turns.wait()
                try:
                    await self._below.read(offset, into)
                    break
                except BlockError as error:
                    counters.errors += 1
                    failed = error
                finally:
                    self._turns.end()
                if not await self._tries_again(failed, self.options.rerror is OnReadError.STOP):
                    raise failed
        finally:
            counters.depth -= 1
        counters.reads += 1
        counters.read_bytes += into.length
        counters.read_times.add(time.monotonic() - began)

    async def write(self, offset: int, data: Buffers, fua: bool = False) -> None:
        """Store the buffers."""
        await self._change(lambda: self._below.write(offset, data, fua), data.length, self._counters.write_times)
        self._counters.writes += 1
        self._counters.written_bytes += data.length

    async def flush(self) -> None:
        """Make everything durable that was written."""
        await self._change(self._below.flush, None, self._counters.flush_times)
        self._counters.flushes += 1

    async def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        """Make a range zero."""
        await self._change(lambda: self._below.write_zeroes(offset, length, unmap), 0, self._counters.write_times)
        self._counters.writes += 1
        self._counters.written_bytes += length

    async def discard(self, offset: int, length: int) -> None:
        """Give the room of a range back."""
        await self._change(lambda: self._below.discard(offset, length), 0, self._counters.discard_times)
        self._counters.discards += 1

    async def close(self) -> None:
        """Close what is below."""
        await self._below.close()

    async def hand_over(self) -> None:
        """Let somebody else have it, after all transfers, which the caller has ended."""
        await self._below.hand_over()

    async def take_back(self, seconds: float) -> None:
        """Have it again."""
        await self._below.take_back(seconds)

    async def _change(self, change: Callable[[], Coroutine[None, None, None]], length: int | None, times: Latency) -> None:
        """Do what changes the disk, again as often as on_error wants.

        Args:
            change: does it.
            length: in bytes, to throttle; None: it is not.
            times: count how long it takes.
        """
        counters, began = self._counters, time.monotonic()
        counters.began()
        try:
            if length is not None and self._throttle.is_on:
                await self._throttle.take(length)
            while True:
                if not self._turns.take():
                    await self._turns.wait()
                try:
                    await change()
                    times.add(time.monotonic() - began)
                    return
                except BlockError as error:
                    counters.errors += 1
                    failed = error
                finally:
                    self._turns.end()
                werror = self.options.werror
                full = werror is OnWriteError.ENOSPC and failed.errno in _NO_SPACE
                if not await self._tries_again(failed, full or werror is OnWriteError.STOP):
                    raise failed
        finally:
            counters.depth -= 1

    async def _tries_again(self, error: BlockError, stops: bool) -> bool:
        """Wait, if the options say so, until the machine goes on after an error. A disk on its way to another host is none."""
        return stops and self._on_error is not None and error.errno != errno.EBUSY and await self._on_error(error)
