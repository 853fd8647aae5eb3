# SPDX-License-Identifier: GPL-2.0-or-later
"""What a link remembers of its traps, so that each takes effect once: their numbers, and which were answered or acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from splitvisor.rpc import trap_pb2 as pb


class _Posted(NamedTuple):
    """A posted trap that the back end has not acknowledged; a tuple, because a guest that prints makes 20,000 a second."""

    trap: pb.Trap
    size: int


class TrapLedger:
    """The traps of one VM to one back end, by vCPU. Not safe for threads, but for next() and answered() of one vCPU."""

    def __init__(self) -> None:
        self._sequences: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._given_up: dict[int, int] = {}
        """How many traps of a vCPU were given up since its last that was not."""
        self._unacknowledged: dict[int, deque[_Posted]] = {}
        self._credit_used: dict[int, int] = {}

    def next(self, vcpu: int) -> int:
        """Return the number of a vCPU's next trap."""
        sequence = self._sequences.get(vcpu, 0) + 1
        self._sequences[vcpu] = sequence
        return sequence

    def skipped(self, vcpu: int) -> int:
        """Return how many traps right before this one were given up; it tells the back end, so they count no more."""
        return self._given_up.pop(vcpu, 0) if self._given_up else 0

    def answered(self, trap: pb.Trap) -> None:
        """A trap has its reply."""
        self._positions[trap.vcpu] = trap.sequence

    def give_up(self, trap: pb.Trap) -> None:
        """A trap has no reply and will not be asked for again."""
        self._given_up[trap.vcpu] = trap.skipped + 1

    def take_credit(self, route: int, size: int, credit: int) -> bool:
        """Take so many bytes of a route's credit; False when it has no more."""
        used = self._credit_used.get(route, 0) + size
        if used > credit:
            return False
        self._credit_used[route] = used
        return True

    def posted(self, trap: pb.Trap, size: int) -> None:
        """A trap was posted, with so many bytes of credit."""
        self._unacknowledged.setdefault(trap.vcpu, deque()).append(_Posted(trap, size))

    def acknowledged(self, vcpu: int, sequence: int) -> None:
        """A vCPU's posted traps up to a number took effect; their credit is free again."""
        if vcpu not in self._sequences:  # A back end may invent as many as there are numbers.
            return
        waiting = self._unacknowledged.setdefault(vcpu, deque())
        while waiting and waiting[0].trap.sequence <= sequence:
            trap, size = waiting.popleft()
            self._credit_used[trap.route] -= size
        self._positions[vcpu] = max(sequence, self._positions.get(vcpu, 0))

    @property
    def unacknowledged(self) -> Sequence[pb.Trap]:
        """The posted traps that may not have taken effect, in order."""
        return [trap for waiting in self._unacknowledged.values() for trap, _ in waiting]

    @property
    def positions(self) -> Sequence[pb.VcpuPosition]:
        """How far each vCPU's traps have come."""
        return [pb.VcpuPosition(vcpu=vcpu, sequence=sequence) for vcpu, sequence in self._positions.copy().items()]
