# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine is paused and goes on: what a back end is told whose devices may have asked for that, also by a new connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from splitvisor.rpc import trap_pb2 as pb
from tests.component.test_trap_features import Hellos
from tests.component.trap_backend import H_ADD, RecordingSession, ThreadBackend
from tests.component.trap_client import Client, wait_until


class PausingSession(RecordingSession):
    """Devices of its may pause the machine."""

    pauses = True
    continuations = 0

    def continued(self) -> None:
        self.continuations += 1


@pytest.fixture
def backend(short_path: Path) -> Iterator[ThreadBackend]:
    backend = ThreadBackend(short_path, kind=PausingSession)
    yield backend
    backend.close()


def session(backend: ThreadBackend) -> PausingSession:
    found = backend.servicer.session("vm")
    assert isinstance(found, PausingSession)
    return found


def test_a_back_end_is_told_at_each_end_of_a_pause(backend: ThreadBackend) -> None:
    client = Client(backend.address).attached()
    client.call(H_ADD, 1)
    assert session(backend).continuations == 1, "the machine was running when it attached"
    for number in (2, 3):
        client.link.pause()
        client.link.go_on()
        wait_until(lambda number=number: session(backend).continuations == number, "it is told")  # type: ignore[misc]
    client.close()


def test_a_new_connection_to_a_paused_machine_ends_no_pause(backend: ThreadBackend) -> None:
    client = Client(backend.address).attached()
    client.call(H_ADD, 1)
    client.link.pause()
    backend.drop()
    wait_until(lambda: session(backend).attachments == 2, "it is attached again")
    client.call(H_ADD, 1)
    assert session(backend).continuations == 1
    client.link.go_on()
    wait_until(lambda: session(backend).continuations == 2, "it is told")
    client.close()


def test_the_end_of_a_pause_that_a_back_end_missed_is_in_the_introduction(backend: ThreadBackend) -> None:
    client = Client(backend.address).attached()
    client.call(H_ADD, 1)
    client.link.pause()
    backend.drop(refuse=True)
    wait_until(lambda: not client.link.attached, "the connection is lost")
    client.link.go_on()
    assert session(backend).continuations == 1
    backend.allow()
    wait_until(lambda: session(backend).continuations == 2, "it is told with the new connection")
    client.close()


def test_a_back_end_that_never_pauses_is_not_told(short_path: Path) -> None:
    backend, tap = ThreadBackend(short_path), Hellos()
    try:
        client = Client(backend.address, tap=tap).attached()
        client.call(H_ADD, 1)
        client.link.pause()
        client.link.go_on()
        client.call(H_ADD, 1)
        client.close()
        kinds = [message.WhichOneof("message") for message in tap.sent_messages]
        assert "continued" not in kinds
        assert kinds.count("trap") == 2
    finally:
        backend.close()


def test_an_offer_names_what_cpu_service_must_know_to_be_paused(backend: ThreadBackend) -> None:
    client = Client(backend.address).attached()
    assert client.link.offer.pauses

    async def fail() -> None:
        session(backend).vm.machine_action(pb.MACHINE_ACTION_KIND_PAUSE, "full")

    backend.run(fail())
    wait_until(lambda: bool(client.events.actions), "the machine is asked to pause")
    assert client.events.actions == ["full"]
    client.close()
