# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU with nothing to do reads a connection itself: what ends its wait, and what it leaves to the link's thread."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cpu_service.engine.ram import GuestRam
from splitvisor.trap.ram_file import RAM_SUFFIX, RamFile
from tests.component.trap_backend import H_ADD, ChildBackend, ThreadBackend
from tests.component.trap_client import DEADLINE_S, RAM_BYTES, Client, wait_until

SOURCE = 0x1001


@pytest.fixture
def ram(directory: Path) -> Iterator[RamFile]:
    ram = RamFile.create(directory / f"vm{RAM_SUFFIX}", RAM_BYTES)
    yield ram
    ram.close()


@pytest.fixture
def nudge() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    yield descriptor
    os.close(descriptor)


class Idle:
    """A thread that does what a vCPU's does when no vCPU can run."""

    def __init__(self, client: Client, nudge: int, done: Callable[[], bool], seconds: float = DEADLINE_S) -> None:
        self.began = threading.Event()
        self.took_part = False
        self._client, self._nudge, self._done = client, nudge, done
        self._deadline = time.monotonic() + seconds
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.began.wait(DEADLINE_S)

    def _asked(self) -> bool:
        self.began.set()
        return self._done()

    def _run(self) -> None:
        while not self.began.is_set() and time.monotonic() < self._deadline:  # The link's thread may be reading.
            self.took_part = self._client.link.read_idle(self._asked, self._deadline, self._nudge)

    def ended(self) -> bool:
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive(), "it waits for ever"
        return self.took_part


@pytest.mark.parametrize("carrier", ["grpc", "socket"])
def test_interrupts_come_on_the_thread_that_is_idle(directory: Path, ram: RamFile, nudge: int, carrier: str) -> None:
    backend = ThreadBackend(directory)
    path = str(ram.path) if carrier == "socket" else ""
    client = Client(backend.target, ram=GuestRam(ram.map), ram_path=path).attached()
    try:
        assert client.moved == (carrier == "socket")
        threads: list[threading.Thread] = []
        client.events.interrupt = lambda source: threads.append(threading.current_thread())  # type: ignore[method-assign]
        for number in range(1, 4):
            idle = Idle(client, nudge, lambda number=number: len(threads) == number)  # type: ignore[misc]
            backend.loop.call_soon_threadsafe(backend.session().vm.interrupt, SOURCE)
            assert idle.ended()
            assert threads[-1] is idle.thread
            assert client.link.interrupted_at <= time.monotonic()
        backend.loop.call_soon_threadsafe(backend.session().vm.interrupt, SOURCE)
        wait_until(lambda: len(threads) == 4, "the link's thread reads again")
        assert client.call(H_ADD, 5).outputs == [5]
    finally:
        client.close()
        backend.close()


def test_a_nudge_and_the_deadline_end_the_wait(directory: Path, ram: RamFile, nudge: int) -> None:
    backend = ThreadBackend(directory)
    client = Client(backend.target, ram=GuestRam(ram.map), ram_path=str(ram.path)).attached()
    try:
        raised = threading.Event()
        idle = Idle(client, nudge, raised.is_set)
        raised.set()
        os.eventfd_write(nudge, 1)
        assert idle.ended()
        os.eventfd_read(nudge)
        began = time.monotonic()
        assert Idle(client, nudge, lambda: False, 0.05).ended()
        assert time.monotonic() - began >= 0.05
    finally:
        client.close()
        backend.close()


def test_who_waits_for_an_answer_meanwhile_gets_it(directory: Path, ram: RamFile, nudge: int) -> None:
    backend = ThreadBackend(directory)
    client = Client(backend.target, ram=GuestRam(ram.map), ram_path=str(ram.path)).attached()
    try:
        answered = threading.Event()
        idle = Idle(client, nudge, answered.is_set)
        assert client.begin(H_ADD, 7).result(DEADLINE_S).outputs == [7]
        answered.set()
        os.eventfd_write(nudge, 1)
        assert idle.ended()
    finally:
        client.close()
        backend.close()


def test_a_back_end_that_dies_is_left_to_the_links_thread(directory: Path, ram: RamFile, nudge: int) -> None:
    backend = ChildBackend(directory)
    client = Client(backend.address, ram=GuestRam(ram.map), ram_path=str(ram.path)).attached()
    try:
        assert client.moved
        idle = Idle(client, nudge, lambda: False)
        backend.kill()
        assert idle.ended(), "it was under way"
        wait_until(lambda: client.events.connections[-1:] == [False], "the link's thread has seen the end")
        assert not client.link.read_idle(lambda: False, time.monotonic() + DEADLINE_S, nudge), "there is nothing to read"
    finally:
        client.close()
        backend.kill()


def test_an_end_of_the_link_ends_the_wait(directory: Path, ram: RamFile, nudge: int) -> None:
    backend = ThreadBackend(directory)
    client = Client(backend.target, ram=GuestRam(ram.map), ram_path=str(ram.path)).attached()
    try:
        idle = Idle(client, nudge, lambda: False)
        began = time.monotonic()
        client.close()
        idle.ended()
        assert time.monotonic() - began < DEADLINE_S / 2, "close() waits for nobody who is idle"
    finally:
        backend.close()
