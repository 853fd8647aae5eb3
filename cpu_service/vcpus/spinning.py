# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that wait for another one in a loop, without the priority hint that would say so.

Linux does this in stop_machine() while one vCPU changes the mapping of the kernel that all of them run on: the others look at a
word in memory until it is done. On one engine, each such look takes a turn from the vCPU that they wait for. A loop that only
looks leaves every register as it is, so a vCPU whose registers are the same at both ends of a turn rests for a while.
"""

from __future__ import annotations

LOOK_NS = 100_000
"""A vCPU must have run for this long between two looks at its registers; a loop over memory has changed some by then."""
FIRST_REST_NS = 1_000_000
LONGEST_REST_NS = 8_000_000
"""Rests double up to this: the longest that a vCPU goes on waiting for what is there already."""


class SpinWatch:
    """Whether one vCPU spins, and until when it rests. All times are monotonic, in nanoseconds."""

    def __init__(self) -> None:
        self.resting_until_ns = 0
        """It takes no turn before, unless no other vCPU can run."""
        self._rest_ns = 0
        self._registers = b""
        self._began_ns = 0

    @property
    def is_suspect(self) -> bool:
        """Whether it spun in its last turn: a short one shows whether it still does."""
        return self._rest_ns != 0

    def rests(self, now_ns: int) -> bool:
        """Whether other vCPUs run before this one."""
        return now_ns < self.resting_until_ns

    def begin(self, registers: bytes, now_ns: int) -> None:
        """Its turn begins, with these registers."""
        self._registers, self._began_ns = registers, now_ns

    def end(self, registers: bytes, now_ns: int) -> None:
        """Its turn ends, with these registers."""
        if now_ns - self._began_ns < LOOK_NS:
            return
        self._rest_ns = min(max(2 * self._rest_ns, FIRST_REST_NS), LONGEST_REST_NS) if registers == self._registers else 0
        self.resting_until_ns = now_ns + self._rest_ns

    def wake(self) -> None:
        """Something happened to it, such as an interrupt: it takes its next turn."""
        self.resting_until_ns = 0
