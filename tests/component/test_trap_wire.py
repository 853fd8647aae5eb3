# SPDX-License-Identifier: GPL-2.0-or-later
"""The connection under a trap stream: who reads it, TLS, quiet peers, and peers that are no back ends."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest

from cpu_service.link import wire as trap_wire
from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.wire import TrapWire, WireEndedError
from splitvisor.access.identity import Role
from splitvisor.net.addresses import parse_address
from splitvisor.net.tls_files import TlsError
from splitvisor.rpc import trap_pb2 as pb
from tests.certificates import Authority
from tests.component.trap_backend import H_ADD, H_HELD, H_READ, ThreadBackend
from tests.component.trap_client import DEADLINE_S, Client, wait_until

HELLO = pb.AttachRequest(hello=pb.Hello(vm="vm", beginning=pb.BEGINNING_RUNNING, incarnation=1, vcpus=1, ram_bytes=1 << 20))


class Readers:
    """A tap that notes which thread read each message."""

    def __init__(self) -> None:
        self.threads: list[tuple[str | None, int]] = []

    def sent(self, _message: pb.AttachRequest) -> None:
        pass

    def received(self, message: pb.AttachResponse) -> None:
        self.threads.append((message.WhichOneof("message"), threading.get_ident()))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def tls_backend(authority: Authority, directory: Path) -> Iterator[ThreadBackend]:
    backend = ThreadBackend(directory, certificate=authority.issue(Role.BACKEND, into=directory / "server"))
    yield backend
    backend.close()


def pulse(backend: ThreadBackend) -> None:
    """Have the back end pulse an interrupt source on its own."""

    async def pulse() -> None:
        backend.session().vm.interrupt(0x1001)

    backend.run(pulse())


# Who reads.


def test_a_caller_reads_its_reply_itself_and_the_links_thread_what_comes_between(backend: ThreadBackend) -> None:
    readers = Readers()
    client = Client(backend.address, tap=readers).attached()
    here = threading.get_ident()
    # Now and then the link's thread is just at it.
    wait_until(lambda: client.call(H_ADD, 1) and ("reply", here) in readers.threads, "a caller reads itself")
    pulse(backend)
    wait_until(lambda: client.events.interrupts == [0x1001], "an interrupt arrives while nobody calls")
    assert readers.threads[-1][1] != here
    client.close()


def test_what_a_back_end_does_while_a_caller_waits_is_done_at_once(client: Client, backend: ThreadBackend) -> None:
    answer = client.begin(H_HELD)
    wait_until(lambda: backend.session().started, "the handler runs")
    pulse(backend)
    wait_until(lambda: client.events.interrupts == [0x1001], "an interrupt arrives")
    assert not answer.done()
    backend.open_gate()
    assert answer.result(DEADLINE_S).outputs == [1]


def test_a_stopped_machine_waits_for_nobody(client: Client, backend: ThreadBackend) -> None:
    answer = client.begin(H_HELD)
    wait_until(lambda: backend.session().started, "the handler runs")
    began = time.monotonic()
    client.link.abandon()
    with pytest.raises(AssertionError, match="no answer"):
        answer.result(DEADLINE_S)
    assert client.ask(H_ADD, 1) is None
    assert time.monotonic() - began < DEADLINE_S / 2


def failed_for(client: Client, reason: str) -> bool:
    """True: the link's last attempt failed for this reason."""
    return reason in client.link.failure


# Quiet peers.


def test_a_quiet_peer_is_asked_and_one_that_answered_while_this_process_stood_still_lives(
    backend: ThreadBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trap_wire, "QUIET_S", 0.05)
    monkeypatch.setattr(trap_wire, "PONG_S", 0.05)
    wire = TrapWire(parse_address(backend.address), None)
    try:
        wire.send(HELLO)
        responses: list[pb.AttachResponse] = []
        while not responses:
            wire.listen()
            wire.wait(DEADLINE_S)
            responses = wire.read()
        quiet_since = time.monotonic()
        wait_until(lambda: time.monotonic() > quiet_since + 0.06, "it is quiet for long enough")
        wire.wait(0)
        assert wire._stream.pong_awaited
        assert select.select([wire._socket], [], [], DEADLINE_S)[0], "the peer answers"
        asked_at = time.monotonic()
        wait_until(lambda: time.monotonic() > asked_at + 0.06, "nobody looks for as long as a dead peer is given")
        wire.wait(0)
        wire.read()
        assert wire.ended is None
        assert not wire._stream.pong_awaited
    finally:
        wire.close()


def test_a_peer_that_accepts_and_says_nothing_is_dead(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trap_wire, "QUIET_S", 0.05)
    monkeypatch.setattr(trap_wire, "PONG_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "mute.sock"))
        listener.listen()
        client = Client(f"unix:{directory}/mute.sock")
        wait_until(lambda: "no sign of life" in client.link.failure, "it is given up")
        with pytest.raises(BackendUnavailableError, match="no sign of life"):
            client.link.wait_attached(0.01)
        client.close()


# Peers that are no back ends.


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the peer does not speak HTTP/2"),
        (b"", "it closed the connection"),
    ],
)
def test_what_is_no_back_end_is_told_in_one_line(directory: Path, words: bytes, told: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "other.sock"))
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(words)
                    if words:
                        connection.recv(1 << 16)
                        while connection.recv(1 << 16):
                            pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        client = Client(f"unix:{directory}/other.sock")
        wait_until(lambda: told in client.link.failure, told)
        client.close()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE_S)


def test_a_message_that_is_none_ends_the_stream(directory: Path) -> None:
    def attach(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)
        yield b"\xff\xff\xff"

    from concurrent import futures

    server = grpc.server(futures.ThreadPoolExecutor(2))
    # Without serializers: bytes as they are.
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(attach)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("splitvisor.trap.v1.TrapService", {"Attach": handler}),)
    )
    server.add_insecure_port(f"unix:{directory}/garbage.sock")
    server.start()
    client = Client(f"unix:{directory}/garbage.sock")
    try:
        wait_until(lambda: "a message that is none" in client.link.failure, "it is told")
    finally:
        client.close()
        server.stop(0).wait(DEADLINE_S)


# TLS.


def test_everything_works_through_tls(tls_backend: ThreadBackend, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITVISOR_TLS", str(authority.issue(Role.CPU)))
    client = Client(tls_backend.tls_address).attached()
    assert client.call(H_ADD, 5).outputs == [5]
    size = 3 << 20
    client.ram.map[0x1000 + size - 8 : 0x1000 + size] = (0x5678).to_bytes(8, "big")
    assert client.call(H_READ, 0x1000, size).outputs == [0, 0x5678, size]
    for tag in range(100):
        client.post_in_time(tag)
    client.call(H_ADD, 1)
    assert tls_backend.session().log == list(range(100))
    tls_backend.session().filler = "x" * (20 << 20)
    client.link.state.hold()
    state = client.link.state.save(DEADLINE_S)
    assert len(state) > 20 << 20
    client.link.state.release()
    client.close()
    wait_until(lambda: tls_backend.servicer.session("vm") is None, "the session is gone")
    restored = Client(tls_backend.tls_address, incarnation=2, state=state).attached()
    restored.link.state.resume()
    assert restored.call(H_ADD, 1).outputs == [7]
    assert json.loads(state)["value"] == 6
    restored.close()


def test_a_back_end_with_a_wrong_certificate_is_told_why(
    authority: Authority, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = authority.issue(Role.BACKEND, name="far", hosts=["vio.example"], into=directory / "far")
    backend = ThreadBackend(directory, certificate=elsewhere)
    plain = parse_address(backend.tls_address).target
    foreign = Authority(tmp_path / "other").issue(Role.CPU)
    try:
        for certificate, address, reason in (
            (authority.issue(Role.CPU), backend.tls_address, "for another host; issue one with --host"),
            (foreign, backend.tls_address, "its certificate is from another authority"),
            (None, plain, "it requires a valid certificate"),
        ):
            monkeypatch.setenv("SPLITVISOR_TLS", str(certificate or ""))
            client = Client(address)
            wait_until(partial(failed_for, client, reason), reason)
            client.close()
            assert "\n" not in client.link.failure
        with pytest.raises(TlsError, match="give --tls DIR"):
            Client(backend.tls_address)
    finally:
        backend.close()


def test_a_peer_that_does_not_speak_tls_is_told(
    backend: ThreadBackend, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITVISOR_TLS", str(authority.issue(Role.CPU)))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail.example\r\n" + bytes(100))
                connection.recv(1 << 16)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        client = Client(f"tls:127.0.0.1:{listener.getsockname()[1]}")
        wait_until(lambda: "it does not speak TLS" in client.link.failure, "it is told")
        client.close()
        thread.join(DEADLINE_S)


def test_the_next_connection_takes_a_new_certificate_and_none_that_is_broken(
    tls_backend: ThreadBackend, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = authority.issue(Role.CPU, into=tmp_path / "client")
    monkeypatch.setenv("SPLITVISOR_TLS", str(certificate))
    client = Client(tls_backend.tls_address).attached()
    assert client.link._attachment.tls is not None
    first = client.link._attachment.tls.newest()
    authority.issue(Role.CPU, into=certificate)
    second = client.link._attachment.tls.newest()
    assert second is not first
    (certificate / "cert.pem").write_text("broken")
    assert client.link._attachment.tls.newest() is second

    async def shut() -> None:
        for link in tls_backend.servicer._links.values():
            assert link.connection is not None
            link.connection.end("the test cuts it")

    tls_backend.run(shut())
    wait_until(lambda: client.link.reconnects == 1, "it attaches again")
    assert client.call(H_ADD, 3).outputs == [3]
    client.close()


def test_nobody_is_told_as_what_it_is(directory: Path) -> None:
    with pytest.raises(WireEndedError, match="No such file or directory"):
        TrapWire(parse_address(f"unix:{directory}/nobody.sock"), None)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # without listen(): the port stays ours, and is refused
        with pytest.raises(WireEndedError, match="Connection refused"):
            TrapWire(parse_address(f"127.0.0.1:{deaf.getsockname()[1]}"), None)


# Looking before sleeping.


def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Have each look before a sleep noted: whether it found something."""
    found: list[bool] = []
    spin = TrapWire._spin

    def noted(wire: TrapWire, until: float) -> list[tuple[int, int]]:
        ready = spin(wire, until)
        found.append(bool(ready))
        return ready

    monkeypatch.setattr(TrapWire, "_spin", noted)
    return found


def test_a_caller_looks_for_its_answer_and_sleeps_at_once_when_answers_take_long(
    client: Client, backend: ThreadBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = looks(monkeypatch)
    connection = client.link._outbox.connection
    assert connection is not None
    wire = connection._wire
    wait_until(lambda: client.call(H_ADD, 0) and found, "a caller looks itself")  # Now and then the link's thread is at it.
    monkeypatch.setattr(wire, "_usual_wait", 2 * trap_wire.BRISK_S)
    found.clear()
    answer = client.begin(H_HELD)
    wait_until(lambda: backend.session().started, "the handler runs")
    backend.open_gate()
    assert answer.result(DEADLINE_S).outputs == [1]
    assert found == []
