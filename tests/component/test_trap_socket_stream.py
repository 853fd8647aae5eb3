# SPDX-License-Identifier: GPL-2.0-or-later
"""Trap streams that move to a unix socket: peers that break the contract, that die, and that do not read."""

from __future__ import annotations

import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from functools import partial
from pathlib import Path

import grpc
import pytest

from cpu_service.engine.ram import GuestRam
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.trap import socket_peer
from splitvisor.trap.ram_file import RAM_SUFFIX, RamFile
from splitvisor.trap.trap_socket import TrapListener, connect, framed
from tests.component.trap_backend import H_ADD, ChildBackend, ThreadBackend
from tests.component.trap_client import DEADLINE_S, RAM_BYTES, Client, wait_until


@pytest.fixture
def ram(directory: Path) -> Iterator[RamFile]:
    ram = RamFile.create(directory / f"vm{RAM_SUFFIX}", RAM_BYTES)
    yield ram
    ram.close()


def on(address: str, ram: RamFile) -> Client:
    return Client(address, ram=GuestRam(ram.map), ram_path=str(ram.path))


class Scripted(trap_pb2_grpc.TrapServiceServicer):
    """A back end that connects to the socket, or says so, and then breaks the contract there."""

    def __init__(self, directory: Path, *, connects: bool, words: bytes) -> None:
        self._connects, self._words = connects, words
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        trap_pb2_grpc.add_TrapServiceServicer_to_server(self, self._server)
        self.address = f"unix:{directory}/scripted.sock"
        self._server.add_insecure_port(self.address)
        self._server.start()

    def Attach(self, request_iterator: Iterator[pb.AttachRequest], context: grpc.ServicerContext) -> Iterator[pb.AttachResponse]:
        hello = next(request_iterator).hello
        path = Path(hello.socket_path)
        assert path.parent == Path(hello.ram_path).parent
        connection = connect(path, Path(hello.ram_path)) if self._connects else None
        try:
            yield pb.AttachResponse(offer=pb.Offer(backend="scripted", socket_connected=True))
            for request in request_iterator:
                if request.HasField("move") and connection is not None:
                    yield pb.AttachResponse(move=pb.Move())
                    connection.sendall(self._words)
                    if not self._words:
                        connection.close()
        finally:
            if connection is not None:
                connection.close()

    def close(self) -> None:
        self._server.stop(0).wait(DEADLINE_S)


@pytest.mark.parametrize(
    ("connects", "words", "told"),
    [
        (False, b"", "says that it is connected to the socket of its trap stream"),
        (True, b"\xff\xff\xff\xff", "it sent a message of 4294967295 bytes"),
        (True, framed(b"\xff\xff\xff"), "a message that is none"),
        (True, framed(pb.AttachResponse(offer=pb.Offer()).SerializeToString()), "an unexpected message: offer"),
        (True, framed(pb.AttachResponse(move=pb.Move()).SerializeToString()), "an unexpected message: move"),
        (True, b"", "it closed the socket of its trap stream"),
    ],
)
def test_a_back_end_that_breaks_the_contract_is_told_of_in_one_line(
    directory: Path, ram: RamFile, connects: bool, words: bytes, told: str
) -> None:
    backend = Scripted(directory, connects=connects, words=words)
    client = on(backend.address, ram)
    try:
        wait_until(lambda: told in client.link.failure, told)
        assert "\n" not in client.link.failure
    finally:
        client.close()
        backend.close()
    assert not [path for path in directory.iterdir() if path.suffix == ".trap"]


def test_a_back_end_that_moves_unasked_is_refused(directory: Path, ram: RamFile) -> None:
    class Eager(Scripted):
        def Attach(
            self, request_iterator: Iterator[pb.AttachRequest], context: grpc.ServicerContext
        ) -> Iterator[pb.AttachResponse]:
            next(request_iterator)
            yield pb.AttachResponse(offer=pb.Offer(backend="eager"))
            yield pb.AttachResponse(move=pb.Move())
            for _ in request_iterator:
                pass

    backend = Eager(directory, connects=False, words=b"")
    client = on(backend.address, ram)
    try:
        wait_until(lambda: "an unexpected message: move" in client.link.failure, "it is told")
    finally:
        client.close()
        backend.close()


class Machine:
    """cpu_service's end, by hand."""

    def __init__(self, backend: ThreadBackend, ram: RamFile) -> None:
        self._listener = TrapListener(ram.path.parent)
        hello = pb.Hello(
            vm="vm", incarnation=1, vcpus=1, ram_bytes=ram.size, ram_path=str(ram.path), beginning=pb.BEGINNING_RUNNING,
            socket_path=str(self._listener.path),
        )  # fmt: skip
        self._requests: queue.Queue[pb.AttachRequest | None] = queue.Queue()
        self._requests.put(pb.AttachRequest(hello=hello))
        self._channel = grpc.insecure_channel(backend.target)
        self.responses = trap_pb2_grpc.TrapServiceStub(self._channel).Attach(iter(self._requests.get, None), timeout=DEADLINE_S)
        self.offer = next(self.responses).offer
        self.socket = self._listener.accept() if self.offer.socket_connected else None

    def say(self, request: pb.AttachRequest) -> None:
        self._requests.put(request)

    def close(self) -> None:
        self._requests.put(None)
        if self.socket is not None:
            self.socket.close()
        self._channel.close()
        self._listener.close()


@pytest.fixture
def machine(backend: ThreadBackend, ram: RamFile) -> Iterator[Machine]:
    machine = Machine(backend, ram)
    yield machine
    machine.close()


def moved(machine: Machine) -> socket.socket:
    machine.say(pb.AttachRequest(move=pb.Move()))
    assert next(machine.responses).HasField("move")
    assert machine.socket is not None
    machine.socket.settimeout(DEADLINE_S)
    return machine.socket


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (b"\xff\xff\xff\xff", "it sent a message of 4294967295 bytes"),
        (framed(b"\xff\xff\xff"), "a message that is none"),
        (framed(pb.AttachRequest(hello=pb.Hello()).SerializeToString()), "unexpected message hello"),
        (framed(pb.AttachRequest(move=pb.Move()).SerializeToString()), "unexpected message move"),
        (framed(b""), "unexpected message without content"),
        (framed(pb.AttachRequest(trap=pb.Trap(sequence=1, route=999)).SerializeToString()), "trap names route 999"),
    ],
)
def test_a_cpu_service_that_breaks_the_contract_is_told_why(machine: Machine, words: bytes, told: str) -> None:
    connection = moved(machine)
    connection.sendall(words)
    with pytest.raises(grpc.RpcError) as caught:
        next(machine.responses)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told in (caught.value.details() or "")
    assert connection.recv(1) == b""


def test_a_cpu_service_that_does_not_read_is_not_kept_for_ever(
    machine: Machine, backend: ThreadBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_peer, "MAX_UNSENT_BYTES", 64 << 10)
    moved(machine)
    session = backend.session()

    async def flood() -> None:
        for _ in range(60_000):
            session.vm.interrupt(0x1000)

    backend.run(flood())
    with pytest.raises(grpc.RpcError) as caught:
        next(machine.responses)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "does not read" in (caught.value.details() or "")


def test_a_stream_that_does_not_move_goes_on_over_grpc(machine: Machine) -> None:
    trap = pb.Trap(vcpu=0, sequence=1, route=0, arguments=[2])
    machine.say(pb.AttachRequest(trap=trap))
    assert next(machine.responses).reply.sequence == 1


def test_a_move_without_a_socket_is_refused(backend: ThreadBackend, ram: RamFile) -> None:
    ram.path.rename(ram.path.with_name("other.ram"))  # Nothing is mapped now.
    machine = Machine(backend, ram)
    assert machine.socket is None
    machine.say(pb.AttachRequest(move=pb.Move()))
    with pytest.raises(grpc.RpcError) as caught:
        next(machine.responses)
    assert "a socket that is not connected" in (caught.value.details() or "")
    machine.close()


def test_a_killed_back_end_comes_back_and_the_stream_moves_again(child: ChildBackend, ram: RamFile) -> None:
    client = on(child.address, ram).attached()
    try:
        assert client.moved
        assert client.call(H_ADD, 2).outputs == [2]
        for reconnects in range(1, 4):
            child.kill()
            child.start()
            wait_until(partial(_is_back, client, reconnects), "it is attached again")
            assert client.moved
            assert client.call(H_ADD, 4).outputs == [4]
    finally:
        client.close()


def _is_back(client: Client, reconnects: int) -> bool:
    return client.link.reconnects >= reconnects and client.link.attached


def test_a_stopped_back_end_is_noticed_though_its_socket_is_open(child: ChildBackend, ram: RamFile) -> None:
    client = on(child.address, ram).attached()
    try:
        child.signal(signal.SIGSTOP)
        began = time.monotonic()
        wait_until(lambda: not client.link.attached, "it is noticed")
        assert time.monotonic() - began < DEADLINE_S / 2
        child.signal(signal.SIGCONT)
        wait_until(lambda: client.link.attached, "it is attached again")
        assert client.call(H_ADD, 4).outputs == [4]
    finally:
        client.close()


def test_large_answers_and_many_requests_pass_through_full_sockets(client: Client, backend: ThreadBackend) -> None:
    done = threading.Event()
    results: list[int] = []

    def ask() -> None:
        results.extend(client.call(H_ADD, 1).outputs[0] for _ in range(2000))
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    posted = 0
    while not done.is_set() and posted < 5000:
        posted += client.post(posted, vcpu=1)
    thread.join(DEADLINE_S)
    assert results == [number + 1 for number in range(2000)]
    wait_until(lambda: len(backend.session().log) >= posted, "every posted call arrives")
