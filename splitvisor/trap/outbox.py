# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM's session says to cpu_service: on the connection that there is, or kept for the next if nobody asks for it again."""

from __future__ import annotations

import math
import time
from collections import deque

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.connection import Connection
from splitvisor.trap.turn import Turn

MAX_PENDING_EVENTS = 1024
"""Interrupt sources and actions that wait for cpu_service to come back."""
REPEATED_PULSE_S = 5.0
"""Interrupts this young are pulsed again at the next attach: the lost connection may have been dead when they were sent."""


class Outbox:
    """The way out of one VM's link."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        """None while cpu_service is away."""
        self._events: deque[pb.AttachResponse] = deque(maxlen=MAX_PENDING_EVENTS)
        self._dirty: list[tuple[int, int]] = []
        """Memory that was written, to be told with what tells the guest of it."""
        self.turn = Turn(self._send_dirty)
        self._pulses: dict[int, float] = {}
        """When each source was pulsed last; infinity: while cpu_service was away, so it does not know."""

    def send(self, message: pb.AttachResponse) -> None:
        """Send a message. While cpu_service is away it has no effect: an attach says or asks for it again."""
        if self.connection is not None:
            self.connection.send(message)

    def send_event(self, message: pb.AttachResponse) -> None:
        """Send what nobody asks for again: while cpu_service is away, keep it."""
        if self.connection is None:
            self._events.append(message)
        else:
            self.connection.send(message)

    def wrote(self, address: int, length: int) -> None:
        """Tell of memory that a device wrote: with the next entry or pulse, and soon if there is none."""
        if not self._dirty:
            self.turn.due()
        self._dirty.append((address, length))

    def _send_dirty(self) -> None:
        for dirty in self.take_dirty():
            self.send_event(pb.AttachResponse(dirty=dirty))

    def take_dirty(self) -> list[pb.MemoryRange]:
        """Return what wrote() was told of and nobody was told since."""
        dirty, self._dirty = self._dirty, []
        return [pb.MemoryRange(address=address, length=length) for address, length in dirty]

    def put_entries(self, unit_address: int, position: int, entries: bytes) -> None:
        """Put entries into a device's queue."""
        if self.connection is not None:
            response = pb.AttachResponse()
            put = response.crq_entries
            put.unit_address, put.entries, put.position = unit_address, entries, position
            dirty, self._dirty = self._dirty, []
            add = put.dirty.add  # In their place: half the time of making them and then a message with them.
            for address, length in dirty:
                add(address=address, length=length)
            self.connection.send(response)

    def pulse(self, source: int) -> None:
        """Pulse an interrupt source. Pulses of one source that find cpu_service away are one at its return."""
        if self.connection is None:
            self._pulses[source] = math.inf
            return
        self._pulses[source] = time.monotonic()
        self.connection.send(_pulse(source, self.take_dirty()))

    def send_effects(self, effects: list[pb.Effect]) -> None:
        """Send the interrupts and machine actions of a posted trap; an invoked call has nobody to wait for its credit."""
        for effect in effects:
            if effect.HasField("interrupt"):
                self.pulse(effect.interrupt.source)
            elif effect.HasField("action"):
                self.send_event(pb.AttachResponse(action=effect.action))

    def send_kept(self) -> None:
        """Send events that were kept, and pulses that the last connection may have lost."""
        while self._events:
            self.send(self._events.popleft())
        now = time.monotonic()
        for source, pulsed in self._pulses.items():
            if pulsed > now - REPEATED_PULSE_S:
                self._pulses[source] = now
                self.send(_pulse(source, []))


def _pulse(source: int, dirty: list[pb.MemoryRange]) -> pb.AttachResponse:
    return pb.AttachResponse(interrupt=pb.Interrupt(source=source, dirty=dirty))
