# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends of the trap stream over real gRPC: calls, posted calls with credit, memory."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cpu_service.engine.ram import GuestRam
from splitvisor.papr.codes import H
from splitvisor.trap.ram_file import RamFile
from tests.component.trap_backend import (
    CREDIT,
    H_ADD,
    H_FAIL,
    H_HELD,
    H_LOG,
    H_LOG_HELD,
    H_READ,
    H_WRITE,
    MAX_SIZE,
    ThreadBackend,
)
from tests.component.trap_client import DEADLINE_S, MASK, RAM_BYTES, Client, wait_until


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
            wait_until(partial(client.post, vcpu, size=MAX_SIZE, vcpu=vcpu, token=token), "credit is back")
        client.call(H_ADD, 1)


# Memory.


@pytest.fixture(params=["stream", "mapped"])
def memory_client(request: pytest.FixtureRequest, backend: ThreadBackend, directory: Path) -> Iterator[Client]:
    if request.param == "stream":
        client = Client(backend.address).attached()
        assert not client.link.offer.ram_mapped
    else:
        file = RamFile.create(directory / f"{secrets.token_hex(16)}.ram", RAM_BYTES)
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
    file = RamFile.create(directory / "guest.ram", RAM_BYTES // 2)
    client = Client(backend.address, ram_path=str(file.path)).attached()
    assert not client.link.offer.ram_mapped
    client.close()
