# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to machines, for WatchEvents: a machine's threads report it, the event loop hands it to whoever watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import structlog

from cpu_service.link.events import LinkStatus
from cpu_service.machine.machine import FINAL_STATES, Machine
from cpu_service.report.status import backend_status
from splitvisor.errors.problem import ProblemError
from splitvisor.rpc import machine_pb2 as pb

BACKLOG = 1000
"""Events that may wait for one watcher."""

log = structlog.get_logger()


class FarBehindError(ProblemError):
    """A watcher does not take its events; the message says what to do."""


@dataclass(frozen=True, eq=False)
class _Watcher:
    vm: str
    incarnation: int
    """0: whichever."""
    events: asyncio.Queue[pb.WatchEventsResponse | None] = field(default_factory=lambda: asyncio.Queue(BACKLOG))
    """None: it fell behind."""

    def watches(self, vm: str, incarnation: int) -> bool:
        return self.vm == vm and self.incarnation in (0, incarnation)


class MachineEvents:
    """The watchers of a cpu_service's machines. Everything but observers' methods belongs to the event loop.

    Args:
        on_end: called in the event loop when a machine has reached a final state.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._watchers: set[_Watcher] = set()

    async def watch(self, vm: str, incarnation: int, machine: Machine | None) -> AsyncGenerator[pb.WatchEventsResponse]:
        """Yield a VM's events, its state first, up to the change to a final state.

        Args:
            vm: its name.
            incarnation: the life that is watched; 0: whichever.
            machine: the VM's; None: it has none yet.

        Raises FarBehindError.
        """
        watcher = _Watcher(vm, incarnation)
        self._watchers.add(watcher)
        try:
            if machine is None:
                yield pb.WatchEventsResponse(state=pb.StateChanged(state=pb.MACHINE_STATE_NONE))
            else:
                state = pb.StateChanged(state=machine.state, detail=machine.detail)
                yield pb.WatchEventsResponse(incarnation=machine.incarnation, state=state)
            while (event := await watcher.events.get()) is not None:
                yield event
                if event.state.state in FINAL_STATES:
                    return
            raise FarBehindError(f"more than {BACKLOG} events behind", "watch again")
        finally:
            self._watchers.discard(watcher)

    def publish(self, vm: str, event: pb.WatchEventsResponse) -> None:
        """Hand an event of a VM to those who watch it. From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish, vm, event)

    def _publish(self, vm: str, event: pb.WatchEventsResponse) -> None:
        if event.state.state in FINAL_STATES:
            self._on_end()
        for watcher in [each for each in self._watchers if each.watches(vm, event.incarnation)]:
            if watcher.events.full():
                self._watchers.discard(watcher)
                while not watcher.events.empty():
                    watcher.events.get_nowait()
                watcher.events.put_nowait(None)
            else:
                watcher.events.put_nowait(event)


@dataclass(frozen=True)
class EventReporter:
    """Reports one life of a VM; a MachineObserver."""

    vm: str
    incarnation: int
    events: MachineEvents

    def state_changed(self, state: pb.MachineState, detail: str) -> None:
        """A new state."""
        log.info("machine", state=pb.MachineState.Name(state).removeprefix("MACHINE_STATE_").lower(), detail=detail)
        self._report(pb.WatchEventsResponse(state=pb.StateChanged(state=state, detail=detail)))

    def backend_changed(self, link: LinkStatus) -> None:
        """A back end went away or came back."""
        self._report(pb.WatchEventsResponse(backend=backend_status(link)))

    def progress(self, step: str) -> None:
        """A step of starting up."""
        self._report(pb.WatchEventsResponse(progress=pb.Progress(step=step)))

    def _report(self, event: pb.WatchEventsResponse) -> None:
        event.incarnation = self.incarnation
        self.events.publish(self.vm, event)
