# SPDX-License-Identifier: GPL-2.0-or-later
"""Saving and restoring over a trap stream: posted calls are in the state, nothing happens meanwhile, a loss is noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpu_service.engine.ram import GuestRam
from cpu_service.link.errors import BackendRefusedError, BackendUnavailableError
from splitvisor.papr.codes import H
from splitvisor.trap.ram_file import RamFile
from tests.component.trap_backend import DEADLINE_S, H_ADD, H_LOG_HELD, ThreadBackend
from tests.component.trap_client import RAM_BYTES, Client, wait_until

STATE = json.dumps({"value": 40, "log": [1, 2], "array": "restored"}).encode()


@pytest.fixture
def restored(backend: ThreadBackend) -> Iterator[Client]:
    client = Client(backend.address, state=STATE).attached()
    yield client
    client.close()


def save(client: Client) -> dict[str, object]:
    client.link.state.hold()
    state: dict[str, object] = json.loads(client.link.state.save(DEADLINE_S))
    return state


def test_posted_calls_are_in_the_state(backend: ThreadBackend, client: Client) -> None:
    client.call(H_ADD, 7)
    for tag in range(20):
        client.post_in_time(tag)
    assert save(client) == {"value": 7, "log": list(range(20)), "array": "mirrored", "filler": ""}
    client.link.state.release()
    assert client.call(H_ADD, 1).outputs == [8]
    assert (backend.session().saves, backend.session().resumes) == (1, 1)


def test_a_large_state_comes_whole_and_one_that_is_too_large_is_refused(backend: ThreadBackend, client: Client) -> None:
    backend.session().filler = "x" * (5 << 20)
    assert save(client)["filler"] == backend.session().filler
    backend.session().filler = "x" * (64 << 20)
    with pytest.raises(BackendUnavailableError, match="more than 67108864 bytes"):
        client.link.state.save(DEADLINE_S)
    client.link.state.release()
    assert client.call(H_ADD, 1).outputs == [1]


def test_a_save_waits_for_posted_calls_no_longer_than_it_may(backend: ThreadBackend, client: Client) -> None:
    assert client.post(1, token=H_LOG_HELD)
    client.link.state.hold()
    with pytest.raises(BackendUnavailableError, match="does not answer; try again later"):
        client.link.state.save(0.2)
    backend.open_gate()
    client.link.state.release()
    assert client.call(H_ADD, 1).outputs == [1]
    assert backend.session().log == [1]


def test_what_a_back_end_does_on_its_own_waits_for_the_end_of_a_save(backend: ThreadBackend, client: Client) -> None:
    session = backend.session()
    backend.loop.call_soon_threadsafe(session.vm.interrupt, 0x1100)
    wait_until(lambda: client.events.interrupts == [0x1100], "a pulse before the save arrives")
    save(client)
    backend.loop.call_soon_threadsafe(session.vm.interrupt, 0x1101)
    writing = asyncio.run_coroutine_threadsafe(session.vm.memory.write(0x1000, b"late"), backend.loop)
    # A second answer is behind the pulse in the stream.
    client.link.state.save(DEADLINE_S)
    assert client.events.interrupts == [0x1100]
    assert not writing.done()
    assert client.ram.read(0x1000, 4) == bytes(4)
    client.link.state.release()
    writing.result(DEADLINE_S)
    wait_until(lambda: client.events.interrupts == [0x1100, 0x1101], "the pulse is delivered")
    assert client.ram.read(0x1000, 4) == b"late"


def test_shared_memory_stands_still_too(backend: ThreadBackend, directory: Path) -> None:
    file = RamFile.create(directory / "vm.ram", RAM_BYTES)
    client = Client(backend.address, ram=GuestRam(file.map), ram_path=str(file.path)).attached()
    assert client.link.offer.ram_mapped
    save(client)
    writing = asyncio.run_coroutine_threadsafe(backend.session().vm.memory.write(0x1000, b"late"), backend.loop)
    client.link.state.save(DEADLINE_S)
    assert not writing.done()
    client.link.state.release()
    writing.result(DEADLINE_S)
    assert client.ram.read(0x1000, 4) == b"late"
    client.close()
    file.close()


def test_a_back_end_that_is_lost_while_it_is_saved_comes_back_afterwards(backend: ThreadBackend, client: Client) -> None:
    client.call(H_ADD, 7)
    save(client)
    backend.drop()
    wait_until(lambda: not client.link.attached, "the loss is noticed")
    with pytest.raises(BackendUnavailableError, match="it was lost"):
        client.link.state.save(DEADLINE_S)
    assert backend.connections == 1
    client.link.state.release()
    assert client.call(H_ADD, 1).outputs == [8]


def test_a_session_starts_with_the_state_and_its_offer_shows_it(backend: ThreadBackend, restored: Client) -> None:
    assert restored.link.offer.mirrors["test,fetch"] == b"restored"
    assert restored.call(H_ADD, 2).outputs == [42]
    assert backend.session().log == [1, 2]
    # Later connections of the same life do not start anew.
    backend.drop()
    assert restored.call(H_ADD, 1).outputs == [43]


def test_a_restored_session_stands_still_over_a_lost_connection_until_the_machine_runs(
    backend: ThreadBackend, restored: Client
) -> None:
    writing = asyncio.run_coroutine_threadsafe(backend.session().vm.memory.write(0x1000, b"late"), backend.loop)
    backend.drop()
    wait_until(lambda: restored.link.reconnects == 1, "it attaches again")
    wait_until(lambda: restored.link.attached, "it is attached")
    assert backend.session().attachments == 0
    assert not writing.done()
    assert restored.ram.read(0x1000, 4) == bytes(4)
    restored.link.state.resume()
    writing.result(DEADLINE_S)
    assert restored.ram.read(0x1000, 4) == b"late"
    backend.drop()
    wait_until(lambda: backend.session().attachments == 1, "the next connection is one like any other")


def test_a_machine_that_begins_to_run_without_a_connection_says_so_with_the_next(
    backend: ThreadBackend, restored: Client
) -> None:
    writing = asyncio.run_coroutine_threadsafe(backend.session().vm.memory.write(0x1000, b"late"), backend.loop)
    backend.drop(refuse=True)
    wait_until(lambda: not restored.link.attached, "the loss is noticed")
    restored.link.state.resume()
    assert not writing.done()
    backend.allow()
    writing.result(DEADLINE_S)
    wait_until(lambda: backend.session().attachments == 1, "it is a connection like any other")


def test_a_state_that_does_not_fit_is_refused_and_the_next_one_taken(backend: ThreadBackend) -> None:
    with pytest.raises(BackendRefusedError, match=r"^back end backend at unix:\S+: the recording is broken$"):
        Client(backend.address, state=b"rubbish").attached()
    with pytest.raises(BackendRefusedError, match="cannot be restored"):
        Client(backend.address, state=b"{}").attached()
    assert backend.servicer.sessions() == {}
    client = Client(backend.address, state=STATE).attached()
    assert client.call(H_ADD, 2).outputs == [42]
    client.close()


def test_a_session_that_another_cpu_service_took_over_is_taken_back(backend: ThreadBackend, client: Client) -> None:
    client.call(H_ADD, 7)
    client.link.state.hold()
    state = client.link.state.save(DEADLINE_S)
    first = backend.session()
    other = Client(backend.address, incarnation=5, state=state).attached()
    assert first.was_replaced
    other.call(H_ADD, 100)
    other.close()
    client.link.state.take_back(state, 9)
    assert client.call(H_ADD, 1).outputs == [8]
    client.post_in_time(3)
    assert client.call(H_ADD, 1).result == H.SUCCESS
    assert backend.session().log == [3]
