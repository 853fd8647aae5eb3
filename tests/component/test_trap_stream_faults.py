# SPDX-License-Identifier: GPL-2.0-or-later
"""The trap stream when connections break and processes die: a call takes effect once, whatever happens."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from cpu_service.link.errors import BackendUnavailableError
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from tests.component.trap_backend import (
    H_ADD,
    H_HELD,
    H_INVOKE,
    ROUTES,
    ChildBackend,
    ThreadBackend,
)
from tests.component.trap_client import DEADLINE_S, Client, wait_until


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
    wait_until(lambda: not client.link.attached, "it is noticed")
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
    wait_until(lambda: vm.connection is None, "the back end sees the end")  # type: ignore[attr-defined]
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
    with pytest.raises(BackendUnavailableError, match=r"back end backend at unix:.*nobody.*start it") as raised:
        client.link.wait_attached(0.5)
    assert "\n" not in str(raised.value)
    client.close()


def test_a_back_end_that_ends_takes_no_new_stream(client: Client, backend: ThreadBackend) -> None:
    client.call(H_ADD, 1)
    backend.run(backend.servicer.close())
    wait_until(lambda: not client.link.attached, "the stream is let go")
    wait_until(lambda: "shuts down" in client.link.failure, "the next one is refused")
    assert backend.servicer.session("vm") is None
    assert client.ask(H_ADD, 1, timeout=0.2) is None


def test_a_call_out_of_order_is_refused_before_it_takes_effect(backend: ThreadBackend) -> None:
    def attempt(position: int, *traps: pb.Trap) -> str:
        hello = pb.Hello(
            vm="vm",
            beginning=pb.BEGINNING_RUNNING,
            incarnation=1,
            vcpus=1,
            ram_bytes=1 << 20,
            positions=[pb.VcpuPosition(sequence=position)],
        )
        requests = [pb.AttachRequest(hello=hello), *(pb.AttachRequest(trap=trap) for trap in traps)]
        with grpc.insecure_channel(backend.address) as channel:
            responses: Any = trap_pb2_grpc.TrapServiceStub(channel).Attach(iter(requests), timeout=DEADLINE_S)
            try:
                list(responses)
            except grpc.RpcError as error:
                return str(error.details())
        return ""

    def trap(sequence: int, skipped: int = 0) -> pb.Trap:
        return pb.Trap(sequence=sequence, skipped=skipped, route=ROUTES[H_ADD], arguments=[1])

    assert attempt(0, trap(1), trap(3)) == "trap 3 of vCPU 0 after 1: what is between did not come"
    assert backend.session().value == 1
    assert attempt(1, trap(4, skipped=1))
    assert backend.session().value == 1
    assert attempt(1, trap(4, skipped=2), trap(2)) == "", "given up, and come late"
    assert backend.session().value == 2
    assert attempt(9, trap(10)) == "", "answered by an earlier life of the back end"
    assert backend.session().value == 3


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


def test_nobody_waits_for_a_session_of_a_service_that_ends(backend: ThreadBackend) -> None:
    waiting = asyncio.run_coroutine_threadsafe(backend.servicer.wait_for_session("nobody", 10 * DEADLINE_S), backend.loop)
    backend.run(backend.servicer.close())
    assert waiting.result(DEADLINE_S) is None
    assert backend.run(backend.servicer.wait_for_session("nobody", 10 * DEADLINE_S)) is None
