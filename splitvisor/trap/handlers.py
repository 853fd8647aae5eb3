# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a session's handler: a plain one to its end, an async one to the thing to wait for; nothing that it raises passes."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from splitvisor.declarations.calls import Call, Hypercall, Result, RtasCall
from splitvisor.declarations.session import Session
from splitvisor.observe.call_times import ResultClass
from splitvisor.process.logging import trap_in_hand
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.handler_times import Ended, HandlerObserver, answer_class
from splitvisor.trap.messages import counts_fit, failed

Answer = Result | int
ANSWER = (int, Result)
"""The same for isinstance(), which takes twice as long with a union."""


def run_handler(
    session: Session, trap: pb.Trap, call: Call, declared: Hypercall | RtasCall, observers: Sequence[HandlerObserver] = ()
) -> Answer | Awaitable[Answer]:
    """Call the handler of a trap; observers are told when it begins and when it ends."""
    if not observers:
        return _run(session, trap, call, declared)
    ended = [observer.begin(session.vm.name, declared, trap) for observer in observers]
    answer = _run(session, trap, call, declared)
    if not isinstance(answer, ANSWER):
        return _observed(declared, answer, ended)
    _tell(ended, answer_class(declared, answer))
    return answer


async def finished(trap: pb.Trap, declared: Hypercall | RtasCall, answer: Awaitable[Answer]) -> Answer:
    """Return what an async handler answers, or what the guest gets when it raises."""
    trap_in_hand.set((trap.vcpu, trap.sequence))
    try:
        return await answer
    except Exception as error:
        return failed(declared, error)


def _run(session: Session, trap: pb.Trap, call: Call, declared: Hypercall | RtasCall) -> Answer | Awaitable[Answer]:
    if isinstance(declared, RtasCall) and not counts_fit(declared, call):
        return declared.failure(parameter=True)
    trap_in_hand.set((trap.vcpu, trap.sequence))
    try:
        return declared.handler(session, call)
    except Exception as error:
        return failed(declared, error)
    finally:
        trap_in_hand.set(None)


async def _observed(declared: Hypercall | RtasCall, answer: Awaitable[Answer], ended: Sequence[Ended]) -> Answer:
    """What an async handler answers, and its observers are told."""
    result = ResultClass.ERROR
    try:
        value = await answer
        result = answer_class(declared, value)
        return value
    finally:
        _tell(ended, result)


def _tell(ended: Sequence[Ended], result: ResultClass) -> None:
    for tell in ended:
        tell(result)
