# SPDX-License-Identifier: GPL-2.0-or-later
"""Events that wait for a guest (LoPAPR 10.2): an event source interrupts it, check-exception gives it the log entry.

Linux takes an interrupt of the hotplug source to mean that there is an entry and looks at nothing else. So there are exactly as
many pulses as entries: one when the first is queued, and one whenever check-exception leaves another behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from hcall_service.platform.event_log import Action, Resource, hotplug_entry
from hcall_service.trees.builder import HOTPLUG_SOURCE
from splitvisor.backend import Vm
from splitvisor.errors.problem import Problem
from splitvisor.errors.status import refuse
from splitvisor.rpc import platform_event_pb2 as pb
from splitvisor.rpc import platform_event_pb2_grpc
from splitvisor.trap.server import TrapServicer

HOTPLUG_EVENTS = 0x1000_0000
"""The event class in masks of check-exception."""
MAX_EVENTS = 64


@dataclass(frozen=True)
class PlatformEvent:
    """An event that the guest has not fetched."""

    event_class: int
    source: int
    entry: bytes


class PlatformEvents:
    """The events that wait for one VM.

    Args:
        vm: who is interrupted.
    """

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._waiting: deque[PlatformEvent] = deque()

    def add(self, event: PlatformEvent) -> bool:
        """Queue an event; False when there are too many."""
        if len(self._waiting) >= MAX_EVENTS:
            return False
        first = self.source(event.event_class) is None
        self._waiting.append(event)
        if first:
            self._vm.interrupt(event.source)
        return True

    def take(self, mask: int) -> PlatformEvent | None:
        """Take the oldest event of the classes in mask."""
        event = next((event for event in self._waiting if event.event_class & mask), None)
        if event is not None:
            self._waiting.remove(event)
        return event

    def source(self, event_class: int) -> int | None:
        """The interrupt source of the next event of a class; None when there is none."""
        return next((event.source for event in self._waiting if event.event_class == event_class), None)

    def signal(self) -> None:
        """Pulse again for what waits: the first pulse may have gone with a lost connection."""
        for source in {event.source for event in self._waiting}:
            self._vm.interrupt(source)

    def waiting(self) -> Sequence[PlatformEvent]:
        """Everything that waits, the oldest first."""
        return tuple(self._waiting)

    def restore(self, events: Sequence[PlatformEvent]) -> None:
        """Have these events wait; the guest was interrupted for them before."""
        self._waiting = deque(events)

    def clear(self) -> None:
        """Forget everything: the guest that it was for is gone."""
        self._waiting.clear()


class PlatformEventServicer(platform_event_pb2_grpc.PlatformEventServiceServicer):
    """Serves PlatformEventService for the VMs of a trap servicer.

    Args:
        traps: knows the VMs; its sessions have `events` and `clock`.
    """

    def __init__(self, traps: TrapServicer) -> None:
        self._traps = traps
        self._number = 0

    async def RaiseHotplug(self, request: pb.RaiseHotplugRequest, context: Any) -> pb.RaiseHotplugResponse:
        """See the contract."""
        session: Any = self._traps.session(request.vm)
        if session is None:
            await refuse(
                context, grpc.StatusCode.NOT_FOUND, f"no VM {request.vm!r} is attached to this hcall_service", "NO_SUCH_VM"
            )
        try:
            resource, action = Resource(request.resource), Action(request.action)
        except ValueError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        self._number += 1
        entry = hotplug_entry(resource, action, request.drc_index, self._number, session.clock())
        if not session.events.add(PlatformEvent(HOTPLUG_EVENTS, HOTPLUG_SOURCE, entry)):
            what = f"VM {request.vm!r} has not fetched {MAX_EVENTS} older events"
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, Problem(what, "is its kernel listening?", "EVENTS_FULL"))
        return pb.RaiseHotplugResponse()
