# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers of a trap stream that send what nobody asked for, or do not read: they lose the stream, and nothing grows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from cpu_service.link.answers import MAX_UNASKED
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.trap.connection import MAX_UNSENT, Connection
from splitvisor.trap.request_queue import BACKLOG_BYTES
from tests.component.trap_backend import H_ADD, H_HELD, H_READ, ROUTES, ThreadBackend
from tests.component.trap_client import DEADLINE_S, Client, wait_until

_FLOODS = {
    "answers": pb.AttachResponse(reply=pb.Reply(vcpu=0, sequence=1 << 40)),
    "memory": pb.AttachResponse(memory_read=pb.MemoryRead(id=1, range=pb.MemoryRange(length=1 << 20))),
}


class Flooding(trap_pb2_grpc.TrapServiceServicer):
    """A back end that offers nothing and then sends one message for ever."""

    def __init__(self, message: pb.AttachResponse) -> None:
        self._message = message
        self.streams = 0

    def Attach(self, request_iterator: Any, context: Any) -> Iterator[pb.AttachResponse]:
        next(request_iterator)
        self.streams += 1
        yield pb.AttachResponse(offer=pb.Offer(backend="flooding"))
        while context.is_active():
            yield self._message


@contextmanager
def attached_to(servicer: trap_pb2_grpc.TrapServiceServicer, directory: Path) -> Iterator[Client]:
    """Serve a back end, and attach a client to it."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trap_pb2_grpc.add_TrapServiceServicer_to_server(servicer, server)
    address = f"unix:{directory}/hostile.sock"
    server.add_insecure_port(address)
    server.start()
    client = Client(address)
    try:
        yield client
    finally:
        client.close()
        server.stop(0).wait(DEADLINE_S)


@pytest.mark.parametrize("flood", _FLOODS)
def test_a_back_end_that_floods_loses_its_stream(directory: Path, flood: str) -> None:
    servicer = Flooding(_FLOODS[flood])
    with attached_to(servicer, directory) as client:
        wait_until(lambda: servicer.streams > 1, "the stream ended and began anew", DEADLINE_S)
        assert client.link._answers.count <= MAX_UNASKED + 1


class Hasty(trap_pb2_grpc.TrapServiceServicer):
    """A back end that acknowledges a call before it has answered it, and loses its first connection between the two."""

    def __init__(self) -> None:
        self.positions: list[int] = []

    def Attach(self, request_iterator: Any, context: Any) -> Iterator[pb.AttachResponse]:
        hello = next(request_iterator).hello
        self.positions += [position.sequence for position in hello.positions]
        yield pb.AttachResponse(offer=pb.Offer(backend="hasty", routes=[pb.Route(kind=pb.CALL_KIND_HYPERCALL, token=0xF100)]))
        trap = next(request_iterator).trap
        yield pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=trap.vcpu, sequence=trap.sequence))
        if not self.positions:
            context.abort(grpc.StatusCode.UNAVAILABLE, "on purpose")
        yield pb.AttachResponse(reply=pb.Reply(vcpu=trap.vcpu, sequence=trap.sequence, result=5))


def test_a_call_that_was_acknowledged_and_not_answered_is_not_told_as_done(directory: Path) -> None:
    """The back end would forget the reply, and the vCPU wait for it until its deadline."""
    servicer = Hasty()
    with attached_to(servicer, directory) as client:
        client.link.wait_attached(DEADLINE_S)
        reply = client.link.trap(0, 0, (), 0, (), DEADLINE_S, client.invoke)
        assert reply is not None
        assert reply.result == 5
        assert servicer.positions == [0]


def test_a_cpu_service_that_floods_loses_its_stream(backend: ThreadBackend) -> None:
    def requests() -> Iterator[pb.AttachRequest]:
        yield pb.AttachRequest(hello=pb.Hello(vm="vm", beginning=pb.BEGINNING_RUNNING, incarnation=1, vcpus=1, ram_bytes=1 << 20))
        yield pb.AttachRequest(trap=pb.Trap(vcpu=0, sequence=1, route=ROUTES[H_HELD]))
        operand = pb.MemoryBlock(data=bytes(1 << 20))
        for sequence in range(2, BACKLOG_BYTES // len(operand.data) + 3):
            yield pb.AttachRequest(trap=pb.Trap(vcpu=0, sequence=sequence, route=ROUTES[H_HELD], operands=[operand]))

    with grpc.insecure_channel(backend.address) as channel:
        responses: Any = trap_pb2_grpc.TrapServiceStub(channel).Attach(requests(), timeout=DEADLINE_S)
        assert next(responses).HasField("offer")
        with pytest.raises(grpc.RpcError) as ended:
            list(responses)
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "while one is in hand" in str(ended.value.details())


def _end_of(backend: ThreadBackend, *requests: pb.AttachRequest) -> str:
    """Why a stream ended on which these requests came, when an answer was asked for after the last."""

    def all_requests() -> Iterator[pb.AttachRequest]:
        yield pb.AttachRequest(hello=pb.Hello(vm="vm", beginning=pb.BEGINNING_RUNNING, incarnation=1, vcpus=1, ram_bytes=1 << 20))
        yield from requests
        asked.wait(DEADLINE_S)
        if requests[-1].trap.route == ROUTES[H_READ]:  # It has asked for memory.
            yield pb.AttachRequest(invoke_result=pb.InvokeResult(id=number))

    asked, number = threading.Event(), 0
    with grpc.insecure_channel(backend.address) as channel:
        responses: Any = trap_pb2_grpc.TrapServiceStub(channel).Attach(all_requests(), timeout=DEADLINE_S)

        def read() -> None:
            nonlocal number
            for response in responses:
                if response.HasField("memory_read"):
                    number = response.memory_read.id
                    asked.set()

        with pytest.raises(grpc.RpcError) as ended:
            read()
        asked.set()
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(ended.value.details())


def test_a_call_without_its_arguments_does_not_come_to_a_handler(backend: ThreadBackend) -> None:
    trap = pb.Trap(vcpu=0, sequence=1, route=ROUTES[H_ADD])
    assert _end_of(backend, pb.AttachRequest(trap=trap)) == "H_ADD with 0 arguments; the offer says 1"
    assert backend.session().value == 0
    trap.arguments.extend((1, 2))
    batch = pb.PostedBatch(traps=[trap])
    assert _end_of(backend, pb.AttachRequest(posted=batch)) == "H_ADD with 2 arguments; the offer says 1"


def test_an_answer_of_another_kind_than_was_asked_for_does_not_come_to_a_handler(backend: ThreadBackend) -> None:
    trap = pb.Trap(vcpu=0, sequence=1, route=ROUTES[H_READ], arguments=[0x1000, 8])
    assert _end_of(backend, pb.AttachRequest(trap=trap)) == "InvokeResult 2 for a request that is memory_read"


def test_a_cpu_service_that_does_not_read_loses_its_stream() -> None:
    class Blocked:
        """A connection whose other side takes nothing."""

        async def write(self, _message: pb.AttachResponse) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        reading = asyncio.create_task(asyncio.Event().wait())
        context: Any = Blocked()
        connection = Connection(context, reading)  # type: ignore[arg-type]  # any task will do
        for _ in range(MAX_UNSENT + 1):
            assert not connection.end_reason
            connection.send(pb.AttachResponse(interrupt=pb.Interrupt(source=1)))
        connection.send(pb.AttachResponse())
        assert "does not read" in connection.end_reason
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(scenario())
