# SPDX-License-Identifier: GPL-2.0-or-later
"""Two sides of a trap stream that were built for different contracts: the older one refuses in one line what it does not know."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from cpu_service.link.errors import BackendRefusedError
from splitvisor.errors.problem import Problem
from splitvisor.errors.status import problem_in
from splitvisor.net.channels import open_channel
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from tests.component.trap_backend import H_ADD, ThreadBackend
from tests.component.trap_client import DEADLINE_S, Client

UNKNOWN: Any = 99
STATE = b'{"value": 40, "log": [], "array": "restored"}'


class NewerBackend(trap_pb2_grpc.TrapServiceServicer):
    """A back end that was built for a later contract."""

    def Attach(self, request_iterator: Iterator[pb.AttachRequest], context: Any) -> Iterator[pb.AttachResponse]:
        next(request_iterator)
        yield pb.AttachResponse(offer=pb.Offer(backend="newer", features=[pb.FEATURE_SHARED_CALLS, UNKNOWN]))
        yield from (pb.AttachResponse() for _ in request_iterator)


class Hellos:
    """A tap that keeps what was introduced."""

    def __init__(self) -> None:
        self.sent_messages: list[pb.AttachRequest] = []

    def sent(self, message: pb.AttachRequest) -> None:
        self.sent_messages.append(message)

    def received(self, message: pb.AttachResponse) -> None:
        pass


@pytest.fixture
def backend(short_path: Path) -> Iterator[ThreadBackend]:
    backend = ThreadBackend(short_path)
    yield backend
    backend.close()


def refused(backend: ThreadBackend, **hello: Any) -> tuple[grpc.StatusCode, Problem]:
    """How a back end ends a stream that begins with a hello."""
    request = pb.AttachRequest(hello=pb.Hello(vm="vm", incarnation=1, vcpus=1, ram_bytes=1 << 20, **hello))
    with open_channel(backend.address) as channel, pytest.raises(grpc.RpcError) as ended:
        next(iter(trap_pb2_grpc.TrapServiceStub(channel).Attach(iter([request]), timeout=DEADLINE_S)))
    return ended.value.code(), problem_in(ended.value)


def test_cpu_service_refuses_at_once_what_it_does_not_know_of_an_offer(short_path: Path) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trap_pb2_grpc.add_TrapServiceServicer_to_server(NewerBackend(), server)
    address = f"unix:{short_path}/newer.sock"
    server.add_insecure_port(address)
    server.start()
    began = time.monotonic()
    try:
        text = rf"relies on feature {UNKNOWN}, which cpu_service does not know; use a newer cpu_service$"
        with pytest.raises(BackendRefusedError, match=text):
            Client(address).attached()
        assert time.monotonic() - began < DEADLINE_S / 2, "it tried again until its deadline"
    finally:
        server.stop(None).wait()


def test_a_back_end_refuses_what_it_does_not_know_of_a_hello(backend: ThreadBackend) -> None:
    features = [pb.FEATURE_SAVED_STATE, UNKNOWN]
    code, problem = refused(backend, beginning=pb.BEGINNING_RUNNING, features=features)
    assert (code, problem.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_FEATURE")
    assert str(UNKNOWN) in problem.what
    assert problem.remedy.startswith("use a newer ")
    assert backend.servicer.sessions() == {}


@pytest.mark.parametrize("beginning", [pb.BEGINNING_UNSPECIFIED, UNKNOWN])
def test_a_beginning_that_is_none_is_refused(backend: ThreadBackend, beginning: Any) -> None:
    code, problem = refused(backend, beginning=beginning)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{beginning} is none of Beginning" in problem.what


def test_each_side_names_what_it_relies_on(backend: ThreadBackend) -> None:
    plain, saved = Hellos(), Hellos()
    client = Client(backend.address, tap=plain).attached()
    assert client.call(H_ADD, 1).outputs == [1]
    client.close()
    restored = Client(backend.address, incarnation=2, state=STATE, tap=saved).attached()
    assert restored.call(H_ADD, 1).outputs == [41]
    restored.close()
    hellos = [hellos.sent_messages[0].hello for hellos in (plain, saved)]
    assert [(hello.beginning, list(hello.features)) for hello in hellos] == [
        (pb.BEGINNING_RUNNING, []),
        (pb.BEGINNING_RESTORED, [pb.FEATURE_SAVED_STATE]),
    ]
