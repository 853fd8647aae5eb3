# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries out the traps of a VM, each once: finds the bound call, and commits what it did before anybody hears of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from splitvisor.declarations.session import Session
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.acknowledgements import VmAcknowledgements
from splitvisor.trap.bound_call import BoundCall
from splitvisor.trap.connection import ContractError
from splitvisor.trap.progress import Progress


class TrapDispatcher:
    """The traps of one VM at one back end.

    Args:
        session: whose calls they are.
        calls: bound, in the order of the offer.
        vcpus: of the VM.
        progress: which traps were taken before.
        acknowledgements: told of posted traps that took effect.
        put_effects: takes the effects of a posted trap, which no reply carries.
    """

    def __init__(
        self,
        session: Session,
        calls: Sequence[BoundCall],
        vcpus: int,
        progress: Progress,
        acknowledgements: VmAcknowledgements,
        put_effects: Callable[[list[pb.Effect]], None],
    ) -> None:
        self._session, self._calls, self._vcpus = session, calls, vcpus
        self._progress, self._acknowledgements, self._put_effects = progress, acknowledgements, put_effects

    def trap(self, trap: pb.Trap) -> pb.AttachResponse | Awaitable[pb.AttachResponse] | None:
        """Carry out a trap whose vCPU waits. Returns its reply, or a wait for it; None: it has or will have one already.

        Raises ContractError.
        """
        if not self._progress.is_new(trap):
            return self._progress.reply(trap)
        outcome = self._find(trap).answer(trap)
        self._progress.begin(trap)
        return self._replied(outcome) if isinstance(outcome, pb.AttachResponse) else self._replied_later(outcome)

    async def _replied_later(self, outcome: Awaitable[pb.AttachResponse]) -> pb.AttachResponse:
        return self._replied(await outcome)

    def _replied(self, response: pb.AttachResponse) -> pb.AttachResponse:
        self.commit()
        self._progress.replied(response)
        return response

    def posted(self, traps: Sequence[pb.Trap]) -> Awaitable[None] | None:
        """Carry out a batch of posted traps. Returns a wait for its end when a handler waits. Raises ContractError."""
        return self._posted(len(traps), 0, iter(traps), {})

    def _posted(self, count: int, size: int, traps: Iterator[pb.Trap], done: dict[int, int]) -> Awaitable[None] | None:
        """Carry out what is left of a batch of so many traps.

        size: bytes of those with buffers so far. done: by vCPU, the last one so far.
        """
        progress = self._progress
        for trap in traps:
            vcpu, sequence = trap.vcpu, trap.sequence  # Each look at a message's field costs as much as a call.
            done[vcpu] = sequence
            if not progress.is_next(vcpu, sequence) and not progress.is_new(trap):
                continue
            call = self._find(trap)
            if call.has_buffers:
                size += trap.ByteSize()  # To read the buffers would copy them.
            effects = call.carry_out(trap)
            if not isinstance(effects, list):
                return self._posted_later(trap, effects, count, size, traps, done)
            progress.carried_out(vcpu, sequence)
            if effects:
                self._put_effects(effects)
        self._acknowledgements.add(done, count, size)
        return None

    async def _posted_later(
        self,
        trap: pb.Trap,
        effects: Awaitable[list[pb.Effect]],
        count: int,
        size: int,
        traps: Iterator[pb.Trap],
        done: dict[int, int],
    ) -> None:
        """Go on with a batch after a handler that waits."""
        found = await effects
        self._progress.carried_out(trap.vcpu, trap.sequence)
        self._put_effects(found)
        begun = self._posted(count, size, traps, done)
        if begun is not None:
            await begun

    def _find(self, trap: pb.Trap) -> BoundCall:
        """Return the call that a trap makes. Raises ContractError when nothing like it was offered."""
        if trap.vcpu >= self._vcpus:
            raise ContractError(f"trap of vCPU {trap.vcpu} of {self._vcpus}")
        try:
            return self._calls[trap.route]
        except IndexError:
            raise ContractError(f"trap names route {trap.route} of {len(self._calls)}") from None

    def commit(self) -> None:
        """Make lasting what calls did so far; it comes before every reply and acknowledgement."""
        if self._session.uncommitted:
            self._session.commit()
