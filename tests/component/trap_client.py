# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's end of a trap stream, for tests: a link with RAM of its own, and a record of what it was told."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cpu_service.engine.ram import GuestRam
from cpu_service.link.backend_link import BackendLink
from cpu_service.link.connection import MessageTap
from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.events import LinkStatus
from cpu_service.routing.registry import Registry, RegistryError
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2 as pb
from tests.component.trap_backend import (
    H_LOG,
    ROUTES,
    UNIT,
)
from tests.without_transports import WithoutTransports

DEADLINE_S = 20.0
RAM_BYTES = 4 << 20
MASK = (1 << 64) - 1


class Events(WithoutTransports):
    """What a link told the machine."""

    def __init__(self) -> None:
        self.interrupts: list[int] = []
        self.actions: list[str] = []
        self.written: list[tuple[int, int]] = []
        self.connections: list[bool] = []
        self.registry = Registry()

    def interrupt(self, source: int) -> None:
        self.interrupts.append(source)

    def action(self, action: pb.MachineAction) -> None:
        self.actions.append(action.reason)

    def memory_written(self, address: int, length: int) -> None:
        self.written.append((address, length))

    def connection_changed(self, link: LinkStatus) -> None:
        self.connections.append(link.attached)

    def offer_changed(self, link: LinkStatus, *, attached_anew: bool) -> None:
        try:
            self.registry.take_keys(link)
        except RegistryError as error:
            raise BackendUnavailableError(str(error)) from error


class Client:
    """A link, with what a machine would have around it."""

    def __init__(
        self,
        address: str,
        *,
        incarnation: int = 1,
        ram: GuestRam | None = None,
        ram_path: str = "",
        claimed: int = 0,
        state: bytes | None = None,
        tap: MessageTap | None = None,
    ) -> None:
        self.events = Events()
        self.ram = ram or GuestRam(mmap.mmap(-1, RAM_BYTES))
        hello = pb.Hello(vm="vm", incarnation=incarnation, vcpus=2, ram_bytes=claimed or self.ram.size, ram_path=ram_path)
        self.link = BackendLink("backend", address, hello, self.ram, self.events, state, tap)
        self.link.begin()
        self.invoked: list[pb.Invoke] = []
        self._pool = ThreadPoolExecutor(1)

    def attached(self) -> Client:
        self.link.wait_attached(DEADLINE_S)
        return self

    @property
    def moved(self) -> bool:
        """Whether the present connection has moved to a socket."""
        connection = self.link._outbox.connection
        return connection is not None and connection._wire._direct is not None

    def invoke(self, invoke: pb.Invoke) -> pb.InvokeResult:
        self.invoked.append(invoke)
        return pb.InvokeResult(id=invoke.id, result=H.SUCCESS, outputs=[7])

    def ask(self, token: int, *arguments: int, vcpu: int = 0, timeout: float = DEADLINE_S) -> pb.Reply | None:
        return self.link.trap(ROUTES[token], vcpu, arguments, 0, (), timeout, self.invoke)

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
