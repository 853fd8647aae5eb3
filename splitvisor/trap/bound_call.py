# SPDX-License-Identifier: GPL-2.0-or-later
"""A call that a session declares, bound once to all that a trap of it needs: decode, run the handler, encode the reply.

Nothing that a handler raises passes: the guest gets the call's own failure, and the log the reason.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import structlog

from splitvisor.declarations.calls import Call, Hypercall, Result, RtasCall
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.declarations.session import Session
from splitvisor.observe.call_times import ResultClass
from splitvisor.process.logging import trap_in_hand
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.connection import ContractError
from splitvisor.trap.handler_times import Ended, HandlerObserver, answer_class
from splitvisor.trap.memory import BackendMemory

Answer = Result | int
_ANSWER = (int, Result)
"""The same for isinstance(), which takes twice as long with a union."""

log = structlog.get_logger()


class BoundCall:
    """One declared call of one VM's session.

    Args:
        declared: the call.
        session: given to its handler.
        memory: the guest's, as the handler uses it.
        observers: see each call begin and end.
    """

    def __init__(
        self,
        declared: Hypercall | RtasCall,
        session: Session,
        memory: BackendMemory,
        observers: Sequence[HandlerObserver] = (),
    ) -> None:
        self._name = declared.call_name
        self._registers = None if isinstance(declared, RtasCall) else declared.arguments
        """How many come with a trap; None: an RTAS call, whose caller passes as many words as it likes."""
        self._declared, self._handler = declared, declared.handler
        self._rtas = declared if isinstance(declared, RtasCall) else None
        posted = declared.posted if isinstance(declared, Hypercall) else None
        self.has_buffers = posted is not None and posted.buffers is not None
        """Posted traps may carry buffers."""
        self._session, self._memory, self._observers = session, memory, observers

    def answer(self, trap: pb.Trap) -> pb.AttachResponse | Awaitable[pb.AttachResponse]:
        """Carry out a trap whose vCPU waits. Returns the reply, or a wait for it when the handler waits for something.

        Raises ContractError, before anything happens, for a trap that does not fit what was offered.
        """
        call = Call(trap.vcpu, self._arguments(trap), trap.returns, sequence=trap.sequence)
        ended = self._begin(trap) if self._observers else ()
        answer = self._run(call)
        if not isinstance(answer, _ANSWER):
            return self._answer_later(trap, call, answer, ended)
        return self._reply(trap, call, answer, ended)

    def carry_out(self, trap: pb.Trap) -> list[pb.Effect] | Awaitable[list[pb.Effect]]:
        """Carry out a posted trap, which gets no reply. Returns its effects, or a wait for them. Raises ContractError."""
        buffers = trap.buffers if self.has_buffers and trap.HasField("buffers") else None
        call = Call(trap.vcpu, self._arguments(trap), sequence=trap.sequence, buffers=buffers)
        ended = self._begin(trap) if self._observers else ()
        answer = self._run(call)
        if not isinstance(answer, _ANSWER):
            return self._carry_out_later(trap, call, answer, ended)
        if ended:
            _end(ended, answer_class(self._declared, answer))
        return call.effects

    def _arguments(self, trap: pb.Trap) -> Sequence[int]:
        arguments = trap.arguments[:]  # A list of numbers is read several times as fast as the message's own.
        if self._registers is not None and len(arguments) != self._registers:
            raise ContractError(f"{self._name} with {len(arguments)} arguments; the offer says {self._registers}")
        return arguments

    def _begin(self, trap: pb.Trap) -> Sequence[Ended]:
        return [observer.begin(self._session.vm.name, self._declared, trap) for observer in self._observers]

    def _run(self, call: Call) -> Answer | Awaitable[Answer]:
        if self._rtas is not None and not _counts_fit(self._rtas, call):
            return self._rtas.failure(parameter=True)
        trap_in_hand.set((call.vcpu, call.sequence))
        try:
            return self._handler(self._session, call)
        except Exception as error:
            return self._failed(error)
        finally:
            trap_in_hand.set(None)

    async def _answer_later(
        self, trap: pb.Trap, call: Call, waiting: Awaitable[Answer], ended: Sequence[Ended]
    ) -> pb.AttachResponse:
        """Only a handler that waits can use guest memory; what it writes is sent with the reply."""
        self._memory.begin_call(trap.operands)
        response = self._reply(trap, call, await self._wait(trap, waiting, ended), ended)
        self._memory.end_call(response.reply)
        return response

    async def _carry_out_later(
        self, trap: pb.Trap, call: Call, waiting: Awaitable[Answer], ended: Sequence[Ended]
    ) -> list[pb.Effect]:
        """There is no reply for what it writes."""
        answer = await self._wait(trap, waiting, ended)
        if ended:
            _end(ended, answer_class(self._declared, answer))
        return call.effects

    async def _wait(self, trap: pb.Trap, waiting: Awaitable[Answer], ended: Sequence[Ended]) -> Answer:
        """Wait for a handler. When the VM ends meanwhile, so does the call."""
        trap_in_hand.set((trap.vcpu, trap.sequence))
        try:
            return await waiting
        except Exception as error:
            return self._failed(error)
        except BaseException:
            _end(ended, ResultClass.ERROR)
            raise

    def _failed(self, error: Exception) -> Result:
        """What the guest gets when a handler raised."""
        if isinstance(error, GuestAddressError):
            log.info("guest gave a bad address", call=self._name, reason=str(error))
            return self._declared.failure(parameter=True)
        log.error("handler failed", call=self._name, exc_info=error)
        return self._declared.failure(parameter=False)

    def _reply(self, trap: pb.Trap, call: Call, answer: Answer, ended: Sequence[Ended]) -> pb.AttachResponse:
        """The reply, without what the call wrote to memory; the call has ended."""
        try:
            response = self._encoded(trap, call, answer)
        except (AttributeError, TypeError, ValueError) as error:  # Not an answer, or a number that fits no register.
            answer = self._failed(error)
            response = self._encoded(trap, call, answer)
        if ended:
            _end(ended, answer_class(self._declared, answer))
        return response

    def _encoded(self, trap: pb.Trap, call: Call, answer: Answer) -> pb.AttachResponse:
        response = pb.AttachResponse()
        reply = response.reply  # In its place: half the time of making a reply and then a response with it.
        reply.vcpu, reply.sequence = trap.vcpu, trap.sequence
        if call.effects:
            reply.effects.extend(call.effects)
        if call.writes:
            reply.writes.extend(call.writes)
        if isinstance(answer, Result):
            reply.result = answer.result
            if answer.outputs:
                reply.outputs.extend(answer.outputs)
            if answer.returns:
                reply.returns.extend([word & 0xFFFF_FFFF for word in answer.returns])
        elif self._rtas is not None:
            reply.returns.append(answer & 0xFFFF_FFFF)
        else:
            reply.result = answer
        return response


def _counts_fit(declared: RtasCall, call: Call) -> bool:
    """Whether an RTAS caller passes as many words, and has room for as many, as the call wants."""
    arguments_fit = declared.arguments is None or declared.arguments == len(call.arguments)
    return arguments_fit and (declared.returns is None or declared.returns <= call.returns)


def _end(ended: Sequence[Ended], result: ResultClass) -> None:
    for each in ended:
        each(result)
