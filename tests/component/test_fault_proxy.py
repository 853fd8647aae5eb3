# SPDX-License-Identifier: GPL-2.0-or-later
"""Each kind of fault on a real stream: it happens, the journal has it, and calls take effect once all the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from splitvisor.faults.journal import Journal, read_journal
from splitvisor.faults.scenario import scenario_from
from splitvisor.faults.service import Proxy
from splitvisor.net.channels import SERVICE_OPTIONS
from splitvisor.papr.codes import H
from splitvisor.service.serve import SERVER_OPTIONS
from tests.component.trap_backend import H_ADD, H_READ, H_WRITE, ChildBackend, ThreadBackend
from tests.component.trap_client import DEADLINE_S, Client, wait_until


class ThreadProxy:
    """A proxy in the loop of a thread."""

    def __init__(self, to: str, directory: Path, faults: list[dict[str, Any]], seed: int = 1) -> None:
        self.journal_file = directory / "journal.jsonl"
        self.address = f"unix:{directory}/faults.sock"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._start(to, faults, seed))

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    async def _start(self, to: str, faults: list[dict[str, Any]], seed: int) -> None:
        scenario = scenario_from({"seed": seed, "fault": faults}, "test")
        self.journal = Journal(self.journal_file)
        self._proxy = Proxy(grpc.aio.insecure_channel(to, SERVICE_OPTIONS), to, scenario, "backend", self.journal)
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers((self._proxy,))
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def _stop(self) -> None:
        await self._server.stop(0)
        await self._proxy.close()

    def close(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def faulty(
    backend: ThreadBackend | ChildBackend, directory: Path, *faults: dict[str, Any]
) -> Iterator[tuple[Client, ThreadProxy]]:
    proxy = ThreadProxy(backend.address, directory, list(faults))
    client = Client(proxy.address).attached()
    yield client, proxy
    client.close()
    proxy.close()


TO_BACKEND: dict[str, Any]
TO_CPU: dict[str, Any]
TO_BACKEND, TO_CPU = {"direction": "to-backend"}, {"direction": "to-cpu"}
SURVIVED: dict[str, dict[str, Any]] = {
    "delay": {"seconds": 0.002, **TO_CPU},
    "jitter": {"seconds": 0.004, **TO_BACKEND},
    "stall": {"seconds": 0.05, "every": 20, **TO_BACKEND},
    "slow": {"bytes_per_second": 100_000, **TO_BACKEND},
    "lose-requests": {"kind": "lose", "messages": ["trap", "posted"], "every": 9, **TO_BACKEND},
    "lose-replies": {"kind": "lose", "messages": ["reply", "acknowledge"], "every": 9, **TO_CPU},
    "duplicate-requests": {"kind": "duplicate", **TO_BACKEND},
    "duplicate-replies": {"kind": "duplicate", **TO_CPU},
    "reorder-requests": {"kind": "reorder", "messages": ["posted"], "probability": 0.5, **TO_BACKEND},
    "reorder-replies": {"kind": "reorder", "messages": ["acknowledge"], "probability": 0.5, **TO_CPU},
}


@pytest.mark.parametrize("name", SURVIVED)
def test_calls_take_effect_once_and_in_order_whatever_the_stream_does(backend: ThreadBackend, directory: Path, name: str) -> None:
    fault = {"kind": name, **SURVIVED[name]}
    with faulty(backend, directory, fault) as (client, proxy):
        total = 0
        for tag in range(60):
            client.post_in_time(tag, size=8)
            if tag % 3 == 2:
                total += tag
                assert client.call(H_ADD, tag).outputs == [total]
        assert backend.session().log == list(range(60))
        assert proxy.journal.counts[str(fault["kind"])] > 0
        happened = read_journal(proxy.journal_file)
        assert len(happened) == proxy.journal.counts.total()
        assert {each["direction"] for each in happened} == {fault["direction"]}


def test_a_reply_that_is_lost_again_and_again_comes_at_last(backend: ThreadBackend, directory: Path) -> None:
    """A guest that polls its console has a call under way whenever a connection is lost, so also when the next one is."""
    fault = {"kind": "lose", "messages": ["reply"], "at": [2, 3, 4, 5], **TO_CPU}
    with faulty(backend, directory, fault) as (client, proxy):
        assert client.call(H_ADD, 7).outputs == [7]
        client.post_in_time(1)
        assert client.call(H_ADD, 1).outputs == [8]
        assert proxy.journal.counts == {"lose": 4}
        client.post_in_time(2)
        assert client.call(H_ADD, 1).outputs == [9]
        assert backend.session().log == [1, 2]


def test_another_rpcs_error_is_the_back_ends_own(backend: ThreadBackend, directory: Path) -> None:
    proxy = ThreadProxy(backend.target, directory, [])
    try:
        with grpc.insecure_channel(proxy.address) as channel:
            listing: grpc.UnaryUnaryMultiCallable[bytes, bytes]
            listing = channel.unary_unary("/splitvisor.control.v1.ConsoleService/ListConsoles", None, None)
            with pytest.raises(grpc.RpcError) as raised:
                listing(b"", timeout=DEADLINE_S)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        proxy.close()


def test_wrong_registers_reach_the_guest_and_nobody_else(backend: ThreadBackend, directory: Path) -> None:
    with faulty(backend, directory, {"kind": "wrong-registers", "at": [2]}) as (client, proxy):
        assert client.call(H_ADD, 5).outputs == [5]
        wrong = client.call(H_ADD, 1)
        assert (wrong.result, list(wrong.outputs)) == (~H.SUCCESS, [6 ^ (1 << 64) - 1])
        assert client.call(H_ADD, 1).outputs == [7]
        assert proxy.journal.counts == {"wrong-registers": 1}


def test_refused_memory_is_a_bad_address_to_the_guest(backend: ThreadBackend, directory: Path) -> None:
    with faulty(backend, directory, {"kind": "refuse-memory", "at": [1, 2]}) as (client, proxy):
        assert client.call(H_READ, 0x1000, 8).result != H.SUCCESS
        assert client.call(H_WRITE, 0x1000, 9).result == H.SUCCESS
        assert client.call(H_READ, 0x1000, 8).outputs[2] == 8
        assert proxy.journal.counts == {"refuse-memory": 2}


def test_a_back_end_that_is_stopped_by_the_scenario_answers_later(child: ChildBackend, directory: Path) -> None:
    stop = {"kind": "stop", "seconds": 2.5, "messages": ["trap"], "at": [2], **TO_BACKEND}
    with faulty(child, directory, stop) as (client, proxy):
        assert client.call(H_ADD, 1).outputs == [1]
        answer = client.begin(H_ADD, 1)
        wait_until(lambda: not client.link.attached, "the proxy notices, and lets the stream go", 8)
        assert answer.result(DEADLINE_S).outputs == [2]
        assert proxy.journal.counts == {"stop": 1}


def test_a_back_end_that_is_killed_by_the_scenario_answers_once_it_is_back(child: ChildBackend, directory: Path) -> None:
    with faulty(child, directory, {"kind": "kill", "messages": ["trap"], "at": [1], **TO_BACKEND}) as (client, proxy):
        answer = client.begin(H_ADD, 3)
        wait_until(lambda: proxy.journal.counts["kill"], "it is killed")
        child.kill()
        child.start()
        assert answer.result(DEADLINE_S).outputs == [3]
