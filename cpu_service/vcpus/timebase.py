# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's clock: a time base that follows the host's monotonic clock, and when each decrementer reaches zero."""

from __future__ import annotations

import time

from cpu_service.engine.engine import Engine
from splitvisor.papr.processor import TIMEBASE_HZ

NS_PER_S = 1_000_000_000


class Timebase:
    """The time base of a machine, the same for all vCPUs (Power ISA, Book II, chapter 6).

    It starts at 0 and stands still while the machine is paused.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopped_at: int | None = None
        engine.timebase_offset.value = -ticks(time.monotonic_ns())

    def read(self) -> int:
        """The value that `mftb` gives now."""
        return ticks(self.now_ns()) + self._engine.timebase_offset.value & 0xFFFF_FFFF_FFFF_FFFF

    def set(self, value: int) -> None:
        """Go on from a value."""
        offset = value - ticks(self.now_ns()) & 0xFFFF_FFFF_FFFF_FFFF
        self._engine.timebase_offset.value = offset - (1 << 64) if offset >> 63 else offset

    def stop(self) -> None:
        """Let it stand still."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic_ns()

    def now_ns(self) -> int:
        """The host's monotonic clock in nanoseconds, of the moment when the time base stopped while it stands still."""
        return self._stopped_at if self._stopped_at is not None else time.monotonic_ns()

    def go(self) -> int:
        """Let it go on; returns the nanoseconds that it stood, by which deadlines move."""
        if self._stopped_at is None:
            return 0
        stood = time.monotonic_ns() - self._stopped_at
        self._stopped_at = None
        self._engine.timebase_offset.value -= ticks(stood)
        return stood


def ticks(nanoseconds: int) -> int:
    """Time base ticks in so many nanoseconds."""
    return nanoseconds * TIMEBASE_HZ // NS_PER_S


def decrementer_deadline(value: int) -> int:
    """Monotonic time in nanoseconds at which a decrementer reaches zero that is now written with a 32-bit value.

    A value with its top bit set is negative: zero was in the past.
    """
    signed = value - (1 << 32) if value & 1 << 31 else value
    return max(0, time.monotonic_ns() + signed * NS_PER_S // TIMEBASE_HZ)
