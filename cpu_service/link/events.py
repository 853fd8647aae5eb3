# SPDX-License-Identifier: GPL-2.0-or-later
"""What a link tells the machine, and what a back end did on its own while the machine was being saved."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.offer import BackendOffer
from cpu_service.link.outbox import PostedCounts
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.tce_file import TceWindow

MAX_HELD = 4096
"""Events of a back end that wait for the end of a save."""


class LinkStatus(Protocol):
    """A link, as others look at it."""

    @property
    def name(self) -> str:
        """The back end's name in the configuration."""

    @property
    def address(self) -> str:
        """The back end's gRPC target."""

    @property
    def attached(self) -> bool:
        """Whether there is a connection."""

    @property
    def reconnects(self) -> int:
        """Connections after the first."""

    @property
    def offer(self) -> BackendOffer:
        """What the back end offers."""

    @property
    def posted(self) -> PostedCounts:
        """Traps that no vCPU waited for."""


class LinkEvents(Protocol):
    """What a link tells the machine; called from the thread that reads the connection."""

    def interrupt(self, source: int) -> None:
        """Pulse an interrupt source."""

    def action(self, action: pb.MachineAction) -> None:
        """Change the machine's state."""

    def memory_written(self, address: int, length: int) -> None:
        """RAM was written by the back end: code translated from there is stale."""

    def connection_changed(self, link: LinkStatus) -> None:
        """The connection went down or came back."""

    def offer_changed(self, link: LinkStatus, *, attached_anew: bool) -> None:
        """Its routes have other keys, its devices other transports; attached_anew: with a new connection.

        Raises BackendUnavailableError when one is another back end's.
        """

    def put_entries(self, link: LinkStatus, entries: pb.CrqEntries) -> None:
        """A device has entries for its queue. Raises BackendUnavailableError when it may not."""

    def open_queues(self, link: LinkStatus) -> Iterable[pb.OpenQueue]:
        """Return the queues of its devices that the guest has registered."""

    def window(self, link: LinkStatus, liobn: int) -> TceWindow | None:
        """Return the DMA window of one of its devices."""


class HeldEvents:
    """Interrupts, queue entries, dirty ranges and actions of one back end on their way to the machine. Safe for threads."""

    def __init__(self, link: LinkStatus, events: LinkEvents) -> None:
        self._link, self._events = link, events
        self._lock = threading.Lock()
        self._held: list[pb.AttachResponse] | None = None

    def put(self, response: pb.AttachResponse) -> None:
        """Let an event happen, or keep it. Raises BackendUnavailableError with one too many."""
        if self._held is not None:
            with self._lock:
                if self._held is not None:
                    if len(self._held) >= MAX_HELD:
                        raise BackendUnavailableError(
                            f"it did more than {MAX_HELD} things on its own while the machine stood still"
                        )
                    self._held.append(response)
                    return
        self._happen(response)

    def hold(self) -> None:
        """Keep events from now on: they do not belong to the machine that is being saved."""
        with self._lock:
            if self._held is None:
                self._held = []

    def release(self) -> None:
        """Let what was kept happen, and what follows."""
        with self._lock:
            held, self._held = self._held or [], None
        for response in held:
            self._happen(response)

    def _happen(self, response: pb.AttachResponse) -> None:
        match response.WhichOneof("message"):
            case "interrupt":
                self._written(response.interrupt.dirty)
                self._events.interrupt(response.interrupt.source)
            case "crq_entries":
                self._written(response.crq_entries.dirty)
                self._events.put_entries(self._link, response.crq_entries)
            case "dirty":
                self._events.memory_written(response.dirty.address, response.dirty.length)
            case "action":
                self._events.action(response.action)

    def _written(self, ranges: Iterable[pb.MemoryRange]) -> None:
        for dirty in ranges:
            self._events.memory_written(dirty.address, dirty.length)
