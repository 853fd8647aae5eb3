# SPDX-License-Identifier: GPL-2.0-or-later
"""How far the traps of a VM have come at a back end, so that each takes effect once: positions, and the last replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.connection import ContractError


class Progress:
    """By vCPU: the last trap that was taken, and its reply until cpu_service has it."""

    def __init__(self) -> None:
        self._positions: dict[int, int] = {}
        self._replies: dict[int, tuple[int, pb.AttachResponse | None]] = {}

    def is_next(self, vcpu: int, sequence: int) -> bool:
        """Whether a vCPU's trap is the one behind the last that was taken, as most are; is_new() is to tell of another."""
        return sequence == self._positions.get(vcpu, 0) + 1

    def is_new(self, trap: pb.Trap) -> bool:
        """Whether a trap was not taken before.

        Raises ContractError when one before it is missing, which would never take effect: this one moves the position past it.
        """
        position = self._positions.get(trap.vcpu, 0)
        sequence = trap.sequence
        if sequence <= position:
            return False
        if sequence > position + 1 and sequence - trap.skipped > position + 1:
            raise ContractError(f"trap {sequence} of vCPU {trap.vcpu} after {position}: what is between did not come")
        return True

    def reply(self, trap: pb.Trap) -> pb.AttachResponse | None:
        """Return the reply to a trap that came again; None while it is in hand, or when cpu_service has its reply."""
        sequence, reply = self._replies.get(trap.vcpu, (0, None))
        return reply if sequence == trap.sequence else None

    def begin(self, trap: pb.Trap) -> None:
        """A trap is in hand whose reply is to be kept."""
        self._positions[trap.vcpu] = trap.sequence
        self._replies[trap.vcpu] = (trap.sequence, None)

    def replied(self, response: pb.AttachResponse) -> None:
        """A trap has its reply."""
        self._replies[response.reply.vcpu] = (response.reply.sequence, response)

    def carried_out(self, vcpu: int, sequence: int) -> None:
        """A vCPU's posted trap took effect."""
        self._positions[vcpu] = sequence

    def attach(self, positions: Iterable[pb.VcpuPosition], vcpus: int) -> None:
        """Take over what cpu_service has, of so many vCPUs: it asks for none of that again."""
        for position in positions:
            sequence, _ = self._replies.get(position.vcpu, (0, None))
            if sequence <= position.sequence:
                self._replies.pop(position.vcpu, None)
            if position.vcpu < vcpus:  # What was answered in an earlier life of this back end will not come again.
                self._positions[position.vcpu] = max(position.sequence, self._positions.get(position.vcpu, 0))

    def acknowledgements(self) -> Iterator[pb.AttachResponse]:
        """Yield what to acknowledge at an attach."""
        for vcpu, sequence in self._positions.items():
            # Not a trap whose reply is still kept: cpu_service would take it for answered, and say so at the next attach.
            done = sequence - 1 if self._replies.get(vcpu, (-1, None))[0] == sequence else sequence
            yield pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=vcpu, sequence=done))
