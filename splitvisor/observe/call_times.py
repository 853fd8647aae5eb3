# SPDX-License-Identifier: GPL-2.0-or-later
"""How long calls took and what came of them: counted per call of a back end, read by metrics and status.

Plain lists, for this is on the way of every remote call; an observation costs less than a microsecond.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from splitvisor.papr.codes import H, RtasStatus

BOUNDS: tuple[float, ...] = (*(float(f"{step}e{exponent}") for exponent in range(-5, 1) for step in (1, 2, 5)), 10.0, 30.0)
"""Upper bounds of the buckets in seconds; one more bucket has what is slower."""


class ResultClass(IntEnum):
    """What an answer means, whatever the call; the numbers are those of the contract (ResultClass in machine.proto)."""

    SUCCESS = 1
    BUSY = 2
    OTHER = 3
    ERROR = 4
    UNAVAILABLE = 5


_LONG_BUSY = range(H.LONG_BUSY_1_MSEC, H.LONG_BUSY_100_SEC + 1)
_HYPERCALL_BUSY = frozenset({H.BUSY, H.IN_PROGRESS, H.CONTINUE, *_LONG_BUSY})
_RTAS_BUSY = frozenset({int(RtasStatus.BUSY), *_LONG_BUSY})


def hypercall_class(result: int) -> ResultClass:
    """Return what a signed r3 means."""
    if result == H.SUCCESS:
        return ResultClass.SUCCESS
    if result < 0:
        return ResultClass.ERROR
    return ResultClass.BUSY if result in _HYPERCALL_BUSY else ResultClass.OTHER


def rtas_class(word: int) -> ResultClass:
    """Return what a status word means, signed or not."""
    status = word - (1 << 32) if word >> 31 == 1 else word
    if status == RtasStatus.SUCCESS:
        return ResultClass.SUCCESS
    if status in _RTAS_BUSY:
        return ResultClass.BUSY
    return ResultClass.ERROR if status < 0 else ResultClass.OTHER


class Latency:
    """Durations of calls in buckets."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """How many fell into each bucket; the last is for those beyond every bound."""
        self.seconds = 0.0
        """The sum."""

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class Timed(NamedTuple):
    """The durations of one call with one class of result."""

    call: str
    owner: str
    """Where it was made; empty when the observer has only its own."""
    result: ResultClass
    latency: Latency


class CallTimes:
    """Durations by call and result class. One thread observes; any thread reads, and may see the sum of a moment before."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], list[Latency]] = {}

    def observe(self, call: str, result: ResultClass, seconds: float, owner: str = "") -> None:
        """Count one call. The names must be bounded: those of routes and back ends are."""
        found = self._calls.get((call, owner))
        if found is None:
            found = self._calls[call, owner] = [Latency() for _ in range(len(ResultClass) + 1)]
        found[result].add(seconds)

    def seconds(self, call: str, owner: str = "") -> float:
        """Return the seconds of all calls of a name at an owner."""
        return sum(latency.seconds for latency in self._calls.get((call, owner), ()))

    def of(self, call: str, owner: str = "") -> Iterator[Timed]:
        """Yield the durations of one call at an owner by result class, those that occurred."""
        for result, latency in zip(ResultClass, self._calls.get((call, owner), ())[1:], strict=False):
            if any(latency.counts):
                yield Timed(call, owner, result, latency)

    def all(self) -> Iterator[Timed]:
        """Yield the durations of every call."""
        for call, owner in tuple(self._calls):
            yield from self.of(call, owner)


def quantile(counts: list[int], share: float) -> float:
    """Return the seconds that a share (0 to 1) of calls do not exceed, taking a bucket's as evenly spread; 0 without calls."""
    wanted = share * sum(counts)
    below = 0
    for number, count in enumerate(counts):
        if count and below + count >= wanted:
            low = BOUNDS[number - 1] if number else 0.0
            high = BOUNDS[min(number, len(BOUNDS) - 1)]
            return low + max(0.0, high - low) * (wanted - below) / count
        below += count
    return 0.0
