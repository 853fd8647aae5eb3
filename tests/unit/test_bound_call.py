# SPDX-License-Identifier: GPL-2.0-or-later
"""A bound call decodes a trap, runs the handler and encodes the reply; whatever the handler does, the guest gets an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest

from splitvisor.backend import Call, GuestAddressError, Hypercall, Result, RtasCall, Session, Vm
from splitvisor.declarations.calls import MAX_WRITTEN
from splitvisor.observe.call_times import ResultClass
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.acknowledgements import AcknowledgementSchedule
from splitvisor.trap.bound_call import BoundCall
from splitvisor.trap.connection import ContractError
from splitvisor.trap.handler_times import Ended
from splitvisor.trap.link import VmLink
from splitvisor.trap.memory import StreamMemory

RAM_BYTES = 0x1000


class Observer:
    """Notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def begin(self, vm: str, declared: Hypercall | RtasCall, trap: pb.Trap) -> Ended:
        self.seen.append(f"{vm} {declared.call_name} {trap.sequence}")
        return lambda result: self.seen.append(result.name)


def hypercall(handler: object, arguments: int = 1) -> Hypercall:
    return Hypercall(0xF100, handler, arguments=arguments, section="test", name="H_TEST")  # type: ignore[arg-type]


def rtas(handler: object) -> RtasCall:
    return RtasCall("test,call", handler, "test", arguments=2, returns=2)  # type: ignore[arg-type]


async def no_stream(*, read: pb.MemoryRange | None = None, write: pb.MemoryBlock | None = None) -> pb.MemoryResult:
    raise AssertionError("nothing is asked for")


def bound(declared: Hypercall | RtasCall, *observers: Observer) -> BoundCall:
    link: Vm = VmLink(pb.Hello(vm="vm", vcpus=1, ram_bytes=RAM_BYTES), Session, AcknowledgementSchedule())
    return BoundCall(declared, Session(link), StreamMemory(RAM_BYTES, no_stream), observers)


def trap(*arguments: int, returns: int = 0) -> pb.Trap:
    return pb.Trap(vcpu=0, sequence=5, arguments=arguments, returns=returns)


def answered(call: BoundCall, message: pb.Trap) -> pb.Reply:
    async def wait() -> pb.Reply:
        outcome = call.answer(message)
        return (outcome if isinstance(outcome, pb.AttachResponse) else await outcome).reply

    reply = asyncio.run(wait())
    assert (reply.vcpu, reply.sequence) == (message.vcpu, message.sequence)
    return reply


def test_a_hypercall_is_decoded_and_its_result_encoded() -> None:
    def handler(_session: Session, call: Call) -> Result:
        call.interrupt(9)
        return Result(H.BUSY, outputs=(call.arguments[0] + 1, call.sequence))

    reply = answered(bound(hypercall(handler)), trap(7))
    assert (reply.result, list(reply.outputs), len(reply.effects)) == (H.BUSY, [8, 5], 1)


def test_an_rtas_call_is_answered_in_words() -> None:
    assert answered(bound(rtas(lambda _session, _call: Result(returns=(0, -1)))), trap(1, 2, returns=2)).returns == [
        0,
        0xFFFF_FFFF,
    ]
    assert answered(bound(rtas(lambda _session, _call: -3)), trap(1, 2, returns=2)).returns == [0xFFFF_FFFD]


@pytest.mark.parametrize(("arguments", "returns"), [((1,), 2), ((1, 2, 3), 2), ((1, 2), 1)])
def test_an_rtas_caller_with_other_counts_is_refused(arguments: tuple[int, ...], returns: int) -> None:
    reply = answered(bound(rtas(lambda _session, _call: 0)), trap(*arguments, returns=returns))
    assert reply.returns == [RtasStatus.PARAMETER_ERROR & 0xFFFF_FFFF]


def test_a_trap_that_was_not_offered_so_breaks_the_contract_and_nothing_runs() -> None:
    ran: list[Call] = []
    call = bound(hypercall(lambda _session, call: ran.append(call)))
    for carry_out in (call.answer, call.carry_out):
        with pytest.raises(ContractError, match="H_TEST with 2 arguments; the offer says 1"):
            carry_out(trap(1, 2))
    assert not ran


@pytest.mark.parametrize(("error", "result"), [(GuestAddressError(1, 2, 3), H.PARAMETER), (KeyError("x"), H.HARDWARE)])
def test_what_a_handler_raises_is_the_calls_failure(error: Exception, result: int) -> None:
    def plain(_session: Session, _call: Call) -> int:
        raise error

    async def waiting(_session: Session, _call: Call) -> int:
        raise error

    assert answered(bound(hypercall(plain)), trap(1)).result == result
    assert answered(bound(hypercall(waiting)), trap(1)).result == result


@pytest.mark.parametrize("answer", [None, "text", 1 << 64, Result(outputs=(-1,)), Result(outputs=(1 << 64,)), Result("text")])  # type: ignore[arg-type]
def test_an_answer_that_fits_no_register_is_the_calls_failure(answer: object) -> None:
    async def waiting(_session: Session, _call: Call) -> object:
        return answer

    observer = Observer()
    assert answered(bound(hypercall(lambda _session, _call: answer), observer), trap(1)).result == H.HARDWARE
    assert answered(bound(hypercall(waiting), observer), trap(1)).result == H.HARDWARE
    assert observer.seen[1::2] == [ResultClass.ERROR.name] * 2
    assert answered(bound(rtas(lambda _session, _call: Result(returns=("text",)))), trap(1, 2, returns=2)).returns  # type: ignore[arg-type]


def test_a_call_ends_with_its_vm() -> None:
    observer = Observer()

    async def waiting(_session: Session, _call: Call) -> int:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        answered(bound(hypercall(waiting), observer), trap(1))
    assert observer.seen[1:] == [ResultClass.ERROR.name]


def test_what_a_waiting_handler_writes_is_sent_with_its_reply() -> None:
    memory = StreamMemory(RAM_BYTES, no_stream)

    async def handler(_session: Session, call: Call) -> int:
        await memory.write(call.arguments[0], b"written")
        return H.SUCCESS

    call = BoundCall(hypercall(handler), Session(cast("Vm", None)), memory)
    assert [(each.address, each.data) for each in answered(call, trap(0x100)).writes] == [(0x100, b"written")]


def test_what_a_handler_writes_with_its_reply_is_in_the_reply() -> None:
    def handler(_session: Session, call: Call) -> int:
        call.write(call.arguments[0], b"first")
        call.write(call.arguments[0] + 5, b"second")
        return H.SUCCESS

    written = [(each.address, each.data) for each in answered(bound(hypercall(handler)), trap(0x100)).writes]
    assert written == [(0x100, b"first"), (0x105, b"second")]


def test_a_reply_that_would_write_too_much_is_the_calls_failure() -> None:
    def handler(_session: Session, call: Call) -> int:
        call.write(0, bytes(MAX_WRITTEN))
        call.write(0, b"x")
        return H.SUCCESS

    assert answered(bound(hypercall(handler)), trap(0)).result == H.HARDWARE


def test_a_posted_trap_has_effects_and_no_reply() -> None:
    def plain(_session: Session, call: Call) -> int:
        call.interrupt(1)
        return H.SUCCESS

    async def waiting(_session: Session, call: Call) -> int:
        call.interrupt(2)
        return H.SUCCESS

    async def effects(call: BoundCall) -> list[int]:
        outcome = call.carry_out(trap(1))
        return [each.interrupt.source for each in (outcome if isinstance(outcome, list) else await outcome)]

    assert asyncio.run(effects(bound(hypercall(plain)))) == [1]
    assert asyncio.run(effects(bound(hypercall(waiting)))) == [2]


def test_observers_see_each_call_begin_and_end() -> None:
    async def waiting(_session: Session, _call: Call) -> int:
        raise KeyError("x")

    observer = Observer()
    answered(bound(hypercall(lambda _session, _call: H.SUCCESS), observer), trap(1))
    answered(bound(hypercall(waiting), observer), trap(1))
    posted = bound(hypercall(lambda _session, _call: H.PARAMETER), observer).carry_out(trap(1))
    assert not isinstance(posted, Awaitable)
    begun = "vm H_TEST 5"
    assert observer.seen[:4] == [begun, ResultClass.SUCCESS.name, begun, ResultClass.ERROR.name]
    assert observer.seen[4] == begun
    assert observer.seen[5] != ResultClass.SUCCESS.name
