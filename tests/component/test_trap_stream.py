# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends of the trap stream over real gRPC: order, credit, memory, and that a call takes effect once, whatever breaks."""

from __future__ import annotations

import asyncio
import mmap
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cpu_service.engine.engine import MSR_ME, MSR_PR, MSR_SF, Engine
from cpu_service.hash_page_table import MIN_SHIFT
from cpu_service.ram import GuestRam
from cpu_service.registry import Registry
from cpu_service.scheduler import VcpuScheduler
from cpu_service.timebase import Timebase
from cpu_service.trap_router import TrapRouter
from cpu_service.trap_stream import BackendLink, BackendUnavailableError
from splitvisor.guest_memory import RamFile
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import FIRST_FREE_TOKEN
from splitvisor.rpc import trap_pb2 as pb
from tests.component.trap_backend import (
    CREDIT,
    H_ADD,
    H_FAIL,
    H_HELD,
    H_INVOKE,
    H_LOG,
    H_LOG_HELD,
    H_READ,
    H_WRITE,
    MAX_SIZE,
    ROUTES,
    UNIT,
    ChildBackend,
    OtherSession,
    ThreadBackend,
)

DEADLINE_S = 20.0
RAM_BYTES = 4 << 20
MASK = (1 << 64) - 1


class Events:
    """What a link told the machine."""

    def __init__(self) -> None:
        self.interrupts: list[int] = []
        self.actions: list[str] = []
        self.written: list[tuple[int, int]] = []
        self.connections: list[bool] = []

    def interrupt(self, source: int) -> None:
        self.interrupts.append(source)

    def action(self, action: pb.MachineAction) -> None:
        self.actions.append(action.reason)

    def memory_written(self, address: int, length: int) -> None:
        self.written.append((address, length))

    def connection_changed(self, link: BackendLink) -> None:
        self.connections.append(link.attached)


class Client:
    """A link, with what a machine would have around it."""

    def __init__(
        self, address: str, *, incarnation: int = 1, ram: GuestRam | None = None, ram_path: str = "", claimed: int = 0
    ) -> None:
        self.events = Events()
        self.ram = ram or GuestRam(mmap.mmap(-1, RAM_BYTES))
        hello = pb.Hello(
            vm="vm", incarnation=incarnation, vcpus=2, ram_bytes=claimed or self.ram.size, ram_path=ram_path
        )
        self.link = BackendLink("backend", address, hello, self.ram, self.events)
        self.link.begin()
        self.invoked: list[pb.Invoke] = []
        self._pool = ThreadPoolExecutor(1)

    def attached(self) -> Client:
        self.link.wait_attached(DEADLINE_S)
        return self

    def invoke(self, invoke: pb.Invoke) -> pb.InvokeResult:
        self.invoked.append(invoke)
        return pb.InvokeResult(id=invoke.id, result=H.SUCCESS, outputs=[7])

    def ask(self, token: int, *arguments: int, vcpu: int = 0, timeout: float = DEADLINE_S) -> pb.Reply | None:
        return self.link.call(ROUTES[token], vcpu, arguments, 0, (), timeout, self.invoke)

    def call(self, token: int, *arguments: int, vcpu: int = 0) -> pb.Reply:
        reply = self.ask(token, *arguments, vcpu=vcpu)
        assert reply is not None, "no answer"
        return reply

    def begin(self, token: int, *arguments: int) -> Future[pb.Reply]:
        """Call from another thread, as the vCPU does."""
        return self._pool.submit(self.call, token, *arguments)

    def post(self, tag: int, *, size: int = 1, vcpu: int = 0, token: int = H_LOG) -> bool:
        return self.link.post(ROUTES[token], vcpu, (UNIT, size, tag), (), size)

    def post_in_time(self, tag: int, *, size: int = 1) -> None:
        """Post once there is credit."""
        wait_until(lambda: self.post(tag, size=size), "there is credit")

    def close(self) -> None:
        self.link.close("the test is over")
        self._pool.shutdown()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        pause.wait(0.002)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="sv"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def backend(directory: Path) -> Iterator[ThreadBackend]:
    backend = ThreadBackend(directory)
    yield backend
    backend.close()


@pytest.fixture
def client(backend: ThreadBackend) -> Iterator[Client]:
    client = Client(backend.address).attached()
    yield client
    client.close()


@pytest.fixture
def child(directory: Path) -> Iterator[ChildBackend]:
    child = ChildBackend(directory)
    yield child
    child.kill()


# Calls.


def test_synchronous_call_is_answered(client: Client) -> None:
    assert client.call(H_ADD, 5).outputs == [5]
    reply = client.call(H_ADD, 7)
    assert reply.result == H.SUCCESS
    assert reply.outputs == [12]


def test_calls_of_two_vcpus_are_numbered_apart(client: Client) -> None:
    assert [client.call(H_ADD, 1, vcpu=vcpu).outputs[0] for vcpu in (0, 1, 0, 0, 1)] == [1, 2, 3, 4, 5]


def test_handler_that_raises_costs_one_h_hardware(client: Client) -> None:
    assert client.call(H_FAIL).result == H.HARDWARE
    assert client.call(H_ADD, 1).outputs == [1]


def test_back_end_that_never_answers_costs_the_timeout_and_no_later_call(client: Client, backend: ThreadBackend) -> None:
    began = time.monotonic()
    assert client.ask(H_HELD, timeout=0.3) is None
    assert 0.29 < time.monotonic() - began < 5
    backend.open_gate()
    assert client.call(H_ADD, 10).outputs == [11], "the late answer of the first call is not taken for this one's"


def test_reset_reaches_the_session_and_is_waited_for(client: Client, backend: ThreadBackend) -> None:
    client.link.reset(1, DEADLINE_S)
    assert backend.session().resets == 1


# Posted calls.


def test_posted_calls_arrive_in_order_and_before_a_later_synchronous_call(client: Client, backend: ThreadBackend) -> None:
    tags = iter(range(500))
    seen = []
    for _ in range(50):
        for tag in (next(tags) for _ in range(10)):
            client.post_in_time(tag)
        client.call(H_ADD, 1)
        seen.append(len(backend.session().log))
    assert backend.session().log == list(range(500))
    assert seen == list(range(10, 510, 10))


def test_posted_call_goes_out_without_anything_after_it(client: Client, backend: ThreadBackend) -> None:
    assert client.post(3)
    wait_until(lambda: backend.session().log == [3], "it arrives")


def test_credit_runs_out_and_comes_back(client: Client, backend: ThreadBackend) -> None:
    accepted = [client.post(tag, size=MAX_SIZE, token=H_LOG_HELD) for tag in range(CREDIT // MAX_SIZE + 2)]
    assert accepted == [True] * (CREDIT // MAX_SIZE) + [False] * 2
    backend.open_gate()
    wait_until(lambda: client.post(99, size=MAX_SIZE, token=H_LOG_HELD), "credit is back")
    wait_until(lambda: backend.session().log == [0, 1, 2, 3, 99], "all arrive, the refused ones not")


@pytest.mark.parametrize("token", [H_LOG, H_LOG_HELD])
def test_credit_of_every_vcpu_in_a_batch_comes_back(client: Client, backend: ThreadBackend, token: int) -> None:
    backend.open_gate()
    for _ in range(5):
        for vcpu in (0, 1, 0, 1):
            assert client.post(vcpu, size=MAX_SIZE, vcpu=vcpu, token=token), "credit leaked"
        client.call(H_ADD, 1)  # Its reply comes after the acknowledgements.


# Memory.


@pytest.fixture(params=["stream", "mapped"])
def memory_client(request: pytest.FixtureRequest, backend: ThreadBackend, directory: Path) -> Iterator[Client]:
    if request.param == "stream":
        client = Client(backend.address).attached()
        assert not client.link.offer.ram_mapped
    else:
        file = RamFile.create(directory / secrets.token_hex(16), RAM_BYTES)
        client = Client(backend.address, ram=GuestRam(file.map), ram_path=str(file.path)).attached()
        assert client.link.offer.ram_mapped
    yield client
    client.close()


def test_handler_reads_guest_memory(memory_client: Client) -> None:
    size = 3 << 20  # More than one message holds.
    memory_client.ram.map[0x1000:0x1008] = (0x1234).to_bytes(8, "big")
    memory_client.ram.map[0x1000 + size - 8 : 0x1000 + size] = (0x5678).to_bytes(8, "big")
    assert memory_client.call(H_READ, 0x1000, size).outputs == [0x1234, 0x5678, size]


def test_memory_outside_ram_is_refused(memory_client: Client) -> None:
    for address, length in ((RAM_BYTES - 4, 8), (RAM_BYTES, 1), (1 << 60, 8), (MASK, 1), (0, MASK)):
        assert memory_client.call(H_READ, address, length).result == H.PARAMETER
    assert memory_client.call(H_WRITE, RAM_BYTES - 7, 1).result == H.PARAMETER
    assert memory_client.ram.map[RAM_BYTES - 8 :] == bytes(8)


def test_memory_that_only_the_back_end_believes_in_is_refused(backend: ThreadBackend) -> None:
    client = Client(backend.address, claimed=2 * RAM_BYTES).attached()
    assert client.call(H_READ, RAM_BYTES - 4, 8).result == H.PARAMETER
    assert client.call(H_ADD, 1).outputs == [1]
    client.close()


def test_handlers_write_is_told_with_its_reply(memory_client: Client) -> None:
    reply = memory_client.call(H_WRITE, 0x2000, 0xABCD)
    if memory_client.link.offer.ram_mapped:
        assert [(dirty.address, dirty.length) for dirty in reply.dirty] == [(0x2000, 8)]
        assert memory_client.ram.map[0x2000:0x2008] == (0xABCD).to_bytes(8, "big")
    else:
        assert [(block.address, block.data) for block in reply.writes] == [(0x2000, (0xABCD).to_bytes(8, "big"))]


def test_write_outside_of_a_call_arrives_and_is_told(memory_client: Client, backend: ThreadBackend) -> None:
    backend.run(backend.session().vm.memory.write(0x3000, b"hello"))
    wait_until(lambda: memory_client.events.written == [(0x3000, 5)], "the write is told")
    assert memory_client.ram.map[0x3000:0x3005] == b"hello"


def test_ram_file_of_another_size_is_not_mapped(backend: ThreadBackend, directory: Path) -> None:
    file = RamFile.create(directory / "ram", RAM_BYTES // 2)
    client = Client(backend.address, ram_path=str(file.path)).attached()
    assert not client.link.offer.ram_mapped
    client.close()


# Broken connections and processes.


def test_connection_lost_while_the_handler_runs_and_the_handler_runs_once(client: Client, backend: ThreadBackend) -> None:
    answer = client.begin(H_HELD)
    wait_until(lambda: backend.session().started, "the handler runs")
    backend.drop()
    wait_until(lambda: client.link.reconnects == 1, "it attaches again")
    backend.open_gate()
    assert answer.result(DEADLINE_S).outputs == [1]
    assert backend.session().started == 1
    assert client.events.connections == [True, False, True]


def test_answer_made_while_disconnected_is_kept(client: Client, backend: ThreadBackend) -> None:
    answer = client.begin(H_HELD)
    wait_until(lambda: backend.session().started, "the handler runs")
    backend.drop(refuse=True)
    backend.open_gate()
    wait_until(lambda: backend.session().value == 1, "the handler is done")
    assert not answer.done()
    backend.allow()
    assert answer.result(DEADLINE_S).outputs == [1]
    assert backend.session().started == 1


def test_posted_calls_survive_lost_connections_once_each(client: Client, backend: ThreadBackend) -> None:
    for tag in range(120):
        client.post_in_time(tag, size=8)
        if tag % 20 == 10:
            backend.drop()
    client.call(H_ADD, 1)
    assert backend.session().log == list(range(120))


def test_invoke_whose_answer_was_lost_is_carried_out_once(client: Client, backend: ThreadBackend) -> None:
    def invoke(invoke: pb.Invoke) -> pb.InvokeResult:
        client.invoked.append(invoke)
        backend.drop()
        wait_until(lambda: client.link.reconnects, "it attaches again")
        return pb.InvokeResult(id=invoke.id, result=H.SUCCESS, outputs=[sum(invoke.arguments)])

    client.invoke = invoke  # type: ignore[method-assign]
    assert client.call(H_INVOKE, 0x10, 41).outputs == [41]
    assert [(made.token, list(made.arguments)) for made in client.invoked] == [(0x10, [41])]


def test_interrupt_while_disconnected_arrives_after_the_next_attach_once(client: Client, backend: ThreadBackend) -> None:
    vm = backend.session().vm

    async def pulse() -> None:
        vm.interrupt(0x1001)

    backend.run(pulse())
    wait_until(lambda: client.events.interrupts == [0x1001], "an interrupt arrives")
    backend.drop(refuse=True)
    wait_until(lambda: vm.stream is None, "the back end sees the end")  # type: ignore[attr-defined]
    for _ in range(3):
        backend.run(pulse())
    backend.allow()
    wait_until(lambda: client.link.reconnects == 1, "it attaches again")
    wait_until(lambda: len(client.events.interrupts) == 2, "the interrupt arrives")
    client.call(H_ADD, 1)
    assert client.events.interrupts == [0x1001, 0x1001], "an edge that is pending is one edge"


def test_process_killed_in_a_call_and_started_again_does_it_once(child: ChildBackend) -> None:
    client = Client(child.address).attached()
    answer = client.begin(H_HELD)
    wait_until(lambda: child.journal.read_text() == "started\n", "the handler runs")
    child.kill()
    child.open_gate()
    child.start()
    assert answer.result(DEADLINE_S).outputs == [1]
    assert child.journal.read_text().split() == ["started", "started", "done"]
    assert client.link.reconnects == 1
    client.close()


def test_stopped_process_is_noticed_and_the_call_completes_when_it_goes_on(child: ChildBackend) -> None:
    client = Client(child.address).attached()
    answer = client.begin(H_HELD)
    wait_until(lambda: child.journal.read_text() == "started\n", "the handler runs")
    child.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until(lambda: not client.link.attached, "it is noticed", 5)
    assert time.monotonic() - stopped < 3.5
    child.open_gate()
    child.signal(signal.SIGCONT)
    assert answer.result(DEADLINE_S).outputs == [1]
    assert child.journal.read_text().split() == ["started", "done"]
    client.close()


def test_stopped_process_that_is_killed_and_replaced_answers(child: ChildBackend) -> None:
    client = Client(child.address).attached()
    child.signal(signal.SIGSTOP)
    answer = client.begin(H_ADD, 3)
    wait_until(lambda: not client.link.attached, "it is noticed", 5)
    child.kill()
    child.start()
    assert answer.result(DEADLINE_S).outputs == [3]
    client.close()


def test_newer_incarnation_takes_over_and_older_ones_are_refused(client: Client, backend: ThreadBackend) -> None:
    client.call(H_ADD, 5)
    newer = Client(backend.address, incarnation=2).attached()
    assert newer.call(H_ADD, 1).outputs == [1], "a new life has fresh devices"
    wait_until(lambda: not client.link.attached, "the old one is let go")
    assert client.ask(H_ADD, 1, timeout=0.3) is None
    assert newer.call(H_ADD, 1).outputs == [2]
    late = Client(backend.address, incarnation=1)
    with pytest.raises(BackendUnavailableError, match="a newer cpu_service is attached for VM 'vm'"):
        late.attached()
    late.close()
    newer.close()


def test_nobody_at_the_address_is_one_clear_error(directory: Path) -> None:
    client = Client(f"unix:{directory}/nobody")
    with pytest.raises(BackendUnavailableError, match=r"back end backend at unix:.*nobody.*start it with") as raised:
        client.link.wait_attached(0.5)
    assert "\n" not in str(raised.value)
    client.close()


def test_detach_ends_the_session(backend: ThreadBackend) -> None:
    client = Client(backend.address).attached()
    assert client.post(1)
    session = backend.session()
    client.close()
    wait_until(lambda: backend.servicer.session("vm") is None, "the session is gone")
    assert session.log == [1], "what was posted before arrives"


def test_wait_for_session_sees_a_later_attach(backend: ThreadBackend) -> None:
    waiting = asyncio.run_coroutine_threadsafe(backend.servicer.wait_for_session("vm", DEADLINE_S), backend.loop)
    client = Client(backend.address).attached()
    assert waiting.result(DEADLINE_S) is backend.session()
    assert backend.run(backend.servicer.wait_for_session("nobody", 0.01)) is None
    client.close()


# The router, from a guest's registers to a back end and back.


class Routed:
    """A router over real links; hypercalls are made by setting registers."""

    def __init__(self, *backends: ThreadBackend) -> None:
        self.events = Events()
        ram = mmap.mmap(-1, RAM_BYTES)
        self.ram = GuestRam(ram)
        engine = Engine(ram, mmap.mmap(-1, 1 << MIN_SHIFT))
        self.scheduler = VcpuScheduler(engine, Timebase(engine), 1)
        self.scheduler.reset(0x1000, {}, MSR_SF | MSR_ME)
        registry = Registry()
        self.links = []
        for backend in backends:
            hello = pb.Hello(vm="vm", incarnation=1, vcpus=1, ram_bytes=RAM_BYTES)
            link = BackendLink(backend.address, backend.address, hello, self.ram, self.events)
            link.begin()
            registry.add_offer(link, link.wait_attached(DEADLINE_S))
            self.links.append(link)
        self.router = TrapRouter(registry, self.scheduler, self.ram, self.events)

    def hypercall(self, token: int, *arguments: int) -> int:
        gpr = self.scheduler.loaded.gpr
        gpr[3] = token
        for number, value in enumerate(arguments, 4):
            gpr[number] = value
        self.router.dispatch()
        return gpr[3] - (1 << 64) if gpr[3] >> 63 else gpr[3]

    def rtas(self, token: int, *arguments: int, returns: int) -> tuple[int, list[int]]:
        words = [token, len(arguments), returns, *arguments, *([0xDEAD_BEEF] * (returns + 1))]
        self.ram.map[0x100 : 0x100 + 4 * len(words)] = b"".join(word.to_bytes(4, "big") for word in words)
        result = self.hypercall(Hcall.H_RTAS, 0x100)
        at = 0x100 + 4 * (3 + len(arguments))
        data = self.ram.map[at : at + 4 * (returns + 1)]
        return result, [int.from_bytes(data[start : start + 4], "big") for start in range(0, len(data), 4)]

    def close(self) -> None:
        for link in self.links:
            link.close("the test is over")


@pytest.fixture
def routed(backend: ThreadBackend, directory: Path) -> Iterator[Routed]:
    other = ThreadBackend(directory, "other", OtherSession)
    routed = Routed(backend, other)
    yield routed
    routed.close()
    other.close()


def test_guest_gets_outputs_in_its_registers(routed: Routed) -> None:
    assert routed.hypercall(H_ADD, 40) == H.SUCCESS
    assert routed.hypercall(H_ADD, 2, 77) == H.SUCCESS
    assert list(routed.scheduler.loaded.gpr[4:6]) == [42, 77], "registers without an output keep their values"


def test_guest_gets_h_busy_without_credit(routed: Routed, backend: ThreadBackend) -> None:
    results = [routed.hypercall(H_LOG_HELD, UNIT, MAX_SIZE, tag) for tag in range(5)]
    assert results == [H.SUCCESS] * 4 + [H.BUSY]
    backend.open_gate()
    wait_until(lambda: routed.hypercall(H_LOG_HELD, UNIT, MAX_SIZE, 5) == H.SUCCESS, "credit is back")


def test_call_that_may_not_be_posted_goes_the_synchronous_way(routed: Routed, backend: ThreadBackend) -> None:
    assert routed.hypercall(H_LOG, UNIT + 1, 1, 1) == H.SUCCESS
    assert backend.session().log == [1], "it is done when the guest has its answer"
    assert routed.hypercall(H_LOG, UNIT, 1 << 40, 2) == H.SUCCESS
    assert backend.session().log == [1, 2]


def test_back_end_invokes_another(routed: Routed) -> None:
    assert routed.hypercall(H_INVOKE, 0xF200, 9) == H.SUCCESS
    assert routed.scheduler.loaded.gpr[4] == 9
    assert routed.hypercall(H_INVOKE, 0xF204, 9) == H.FUNCTION, "nobody owns it"
    assert routed.hypercall(H_INVOKE, H_ADD, 9) == H.RESOURCE, "its own calls would wait for themselves"


def test_user_mode_and_unknown_tokens_are_refused(routed: Routed, backend: ThreadBackend) -> None:
    assert routed.hypercall(0xF300) == H.FUNCTION
    assert routed.hypercall(MASK) == H.FUNCTION
    routed.scheduler.loaded.msr.value |= MSR_PR
    assert routed.hypercall(H_ADD, 1) == H.PRIVILEGE
    assert backend.session().value == 0


def test_rtas_call_is_answered_in_its_parameter_block(routed: Routed) -> None:
    assert routed.rtas(FIRST_FREE_TOKEN, 3, 4, returns=2) == (H.SUCCESS, [0, 7, 0xDEAD_BEEF])
    wrong = RtasStatus.PARAMETER_ERROR & 0xFFFF_FFFF
    assert routed.rtas(FIRST_FREE_TOKEN, 3, returns=2) == (H.SUCCESS, [wrong, 0, 0xDEAD_BEEF])
    assert routed.rtas(0x1234, returns=1) == (H.PARAMETER, [wrong, 0xDEAD_BEEF])


@pytest.mark.parametrize("block", [RAM_BYTES - 8, RAM_BYTES, MASK >> 4, 1 << 40])
def test_rtas_parameter_block_outside_ram_is_refused(routed: Routed, block: int) -> None:
    assert routed.hypercall(Hcall.H_RTAS, block) == H.PARAMETER


def test_rtas_counts_without_bound_are_refused(routed: Routed) -> None:
    for nargs, nret in ((0xFFFF_FFFF, 0), (0, 0xFFFF_FFFF), (40, 25)):
        words = FIRST_FREE_TOKEN, nargs, nret
        routed.ram.map[0x100:0x10C] = b"".join(word.to_bytes(4, "big") for word in words)
        assert routed.hypercall(Hcall.H_RTAS, 0x100) == H.PARAMETER


FETCH, STORE = FIRST_FREE_TOKEN + 1, FIRST_FREE_TOKEN + 2


def test_mirrored_array_is_read_here_and_what_is_stored_is_read_next(routed: Routed, backend: ThreadBackend) -> None:
    assert routed.rtas(FETCH, 2, 0x2000, 4, returns=2) == (H.SUCCESS, [0, 4, 0xDEAD_BEEF])
    assert routed.ram.read(0x2000, 5) == b"rror\0"
    assert routed.rtas(STORE, 3, 0x21, returns=1) == (H.SUCCESS, [0, 0xDEAD_BEEF])
    assert routed.rtas(FETCH, 0, 0x2000, 8, returns=2) == (H.SUCCESS, [0, 8, 0xDEAD_BEEF])
    assert routed.ram.read(0x2000, 8) == b"mir!ored"
    assert backend.session().fetches == 0


@pytest.mark.parametrize(
    ("arguments", "status"), [((4, 0x2000, 5), -3), ((0xFFFF_FFFF, 0x2000, 1), -3), ((0, RAM_BYTES - 4, 8), -3)]
)
def test_read_that_a_mirror_cannot_answer_goes_to_its_owner(
    routed: Routed, backend: ThreadBackend, arguments: tuple[int, ...], status: int
) -> None:
    result, (word, _, untouched) = routed.rtas(FETCH, *arguments, returns=2)
    assert (result, word, untouched) == (H.SUCCESS, status & 0xFFFF_FFFF, 0xDEAD_BEEF)
    assert backend.session().fetches == 1
    assert not any(routed.ram.read(0x2000, 8))


def test_mirror_is_taken_anew_when_the_back_end_is_attached_again(routed: Routed, backend: ThreadBackend) -> None:
    backend.session().array[:] = b"replaced"
    backend.drop()
    wait_until(lambda: routed.links[0].reconnects == 1, "attached again")
    assert routed.rtas(FETCH, 0, 0x2000, 8, returns=2)[1][:2] == [0, 8]
    assert routed.ram.read(0x2000, 8) == b"replaced"


def test_write_behind_a_mirrors_end_changes_nothing(routed: Routed) -> None:
    [link, other] = routed.links
    assert not link.mirror_write(pb.MirrorWrite(name="test,fetch", offset=7, data=b"xy"))
    assert link.mirrors["test,fetch"] == b"mirrored"
    assert other.mirror_write(pb.MirrorWrite(name="test,fetch", offset=0, data=b"xy")), "without a mirror there is nothing to do"
    assert not other.mirrors
