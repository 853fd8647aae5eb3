# SPDX-License-Identifier: GPL-2.0-or-later
"""Token buckets: how much a disk may do in a second, bytes and transfers each.

A bucket holds the tokens of one second. It is kept as the time at which it will be full again: to take tokens moves that time,
and who finds it more than a second ahead waits for the difference. So there are no ticks and no queue, the first to come is the
first to go on, a transfer larger than the bucket passes and is paid for by those after it, and over time the rate is exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

BURST_SECONDS = 1.0


class Bucket:
    """Tokens for something.

    Args:
        rate: tokens a second; 0: any number.
        clock: seconds.
    """

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._cost = 1 / rate if rate else 0.0
        self._clock = clock
        self._full_at = clock()

    def take(self, tokens: int) -> float:
        """Take tokens, and return for how many seconds to wait before they are used."""
        if not self._cost:
            return 0.0
        now = self._clock()
        full_at, cost = max(self._full_at, now), tokens * self._cost
        self._full_at = full_at + cost
        # What is more than the bucket can hold is not waited for: those that follow do.
        return max(0.0, full_at + min(cost, BURST_SECONDS) - BURST_SECONDS - now)

    def give_back(self, tokens: int) -> None:
        """Put tokens back that were not used."""
        self._full_at -= tokens * self._cost


class Throttle:
    """The buckets of a disk.

    Args:
        bps: bytes a second; 0: any number.
        iops: transfers a second; 0: any number.
        clock: seconds, of the event loop.
    """

    def __init__(self, bps: int, iops: int, clock: Callable[[], float]) -> None:
        self.is_on = bool(bps or iops)
        """Whether there is anything to wait for."""
        self._bytes, self._transfers = Bucket(bps, clock), Bucket(iops, clock)

    async def take(self, length: int) -> None:
        """Wait until a transfer of so many bytes may begin."""
        wait = max(self._bytes.take(length), self._transfers.take(1))
        if wait <= 0:
            return
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            self._bytes.give_back(length)
            self._transfers.give_back(1)
            raise
