# SPDX-License-Identifier: GPL-2.0-or-later
"""What a back end does on its own, beside answering: interrupts, changes of the machine's state, use of guest memory."""

from __future__ import annotations

import threading

import structlog

from cpu_service.engine.ram import GuestRam
from cpu_service.link.contract import BackendUnavailableError, LinkEvents
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.rpc import trap_pb2 as pb

MAX_HELD = 4096
"""Acts of a back end that wait for the end of a save."""
REQUEST_BYTES = 1 << 20
"""The largest memory_read that is answered."""

log = structlog.get_logger()


class BackendActs:
    """One back end's acts. Safe for threads.

    Args:
        backend: its name.
        ram: guest RAM.
        events: told of each act.
    """

    def __init__(self, backend: str, ram: GuestRam, events: LinkEvents) -> None:
        self._backend, self._ram, self._events = backend, ram, events
        self._lock = threading.Lock()
        self._held: list[pb.AttachResponse] | None = None

    def take(self, response: pb.AttachResponse) -> None:
        """Take an interrupt, a dirty range or an action, or keep it. Raises BackendUnavailableError with one too many."""
        if self._held is not None:
            with self._lock:
                if self._held is not None:
                    if len(self._held) >= MAX_HELD:
                        raise BackendUnavailableError(
                            f"it did more than {MAX_HELD} things on its own while the machine stood still"
                        )
                    self._held.append(response)
                    return
        self._tell(response)

    def hold(self) -> None:
        """Keep what comes from now on: it does not belong to the machine that is being saved."""
        with self._lock:
            if self._held is None:
                self._held = []

    def release(self) -> None:
        """Let what was kept happen, and what comes."""
        with self._lock:
            held, self._held = self._held or [], None
        for response in held:
            self._tell(response)

    def _tell(self, response: pb.AttachResponse) -> None:
        match response.WhichOneof("message"):
            case "interrupt":
                self._events.interrupt(response.interrupt.source)
            case "dirty":
                self._events.memory_written(response.dirty.address, response.dirty.length)
            case "action":
                self._events.action(response.action)

    def read_memory(self, request: pb.MemoryRead) -> pb.AttachRequest:
        """Return the answer to a request for memory."""
        result = pb.MemoryResult(id=request.id)
        if request.range.length <= REQUEST_BYTES:
            try:
                result.data = self._ram.read(request.range.address, request.range.length)
                result.ok = True
            except GuestAddressError as error:
                log.info("back end asked for memory outside RAM", backend=self._backend, reason=str(error))
        return pb.AttachRequest(memory_result=result)

    def write_memory(self, request: pb.MemoryWrite) -> pb.AttachRequest:
        """Write memory; return the answer."""
        address, data = request.block.address, request.block.data
        ok = address + len(data) <= self._ram.size
        if ok:
            self._ram.map[address : address + len(data)] = data
            self._events.memory_written(address, len(data))
        return pb.AttachRequest(memory_result=pb.MemoryResult(id=request.id, ok=ok))
