# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's link to this back end: what outlives its connections, and what is said again on the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from splitvisor.declarations.dma import DmaWindow
from splitvisor.declarations.session import Session, Vm
from splitvisor.papr.vio import SLOTS
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.acknowledgements import AcknowledgementSchedule, VmAcknowledgements
from splitvisor.trap.bound_call import BoundCall
from splitvisor.trap.connection import Connection
from splitvisor.trap.dispatcher import TrapDispatcher
from splitvisor.trap.dma import MappedDma, StreamDma
from splitvisor.trap.features import STATE_FOLLOWS
from splitvisor.trap.handler_times import HandlerObserver
from splitvisor.trap.memory import BackendMemory, MappedMemory, StreamMemory
from splitvisor.trap.offer import inventory_message, offer_message
from splitvisor.trap.outbox import Outbox
from splitvisor.trap.progress import Progress
from splitvisor.trap.questions import Questions
from splitvisor.trap.ram_file import RamFile
from splitvisor.trap.request_queue import Outcome, RequestQueue
from splitvisor.trap.session_state import saved_states
from splitvisor.trap.tce_file import FILE_BYTES, TCE_SUFFIX, TceTables
from splitvisor.trap.turn import Turn

SessionFactory = Callable[[Vm], Session]

log = structlog.get_logger()


class VmLink(Vm):
    """One VM at this back end, over all its connections.

    Args:
        hello: the introduction of its first connection.
        factory: makes its session.
        schedule: when the VMs of this back end acknowledge.
        observers: see each call begin and end.
    """

    def __init__(
        self,
        hello: pb.Hello,
        factory: SessionFactory,
        schedule: AcknowledgementSchedule,
        observers: Sequence[HandlerObserver] = (),
    ) -> None:
        self.name = hello.vm
        self.incarnation = hello.incarnation
        self.vcpus = hello.vcpus
        self.devices = list(hello.devices)
        self.slots = range(hello.slots.first, hello.slots.first + min(hello.slots.count, SLOTS))
        self.moved = hello.beginning == pb.BEGINNING_MOVED
        self.restoring = hello.beginning in STATE_FOLLOWS
        """The session waits for the state that it starts with; nobody else sees it before."""
        self._restored = asyncio.Lock()
        self._is_as_configured = True
        self._outbox = Outbox()
        self._questions = Questions(self._ask)
        self._memory = self._map(hello)
        self.memory = self._memory
        self._tces = self._map_tces(hello)
        self.session = factory(self)
        self._schedule = schedule
        self._progress = Progress()
        self._acknowledgements = VmAcknowledgements(schedule, self.session.calls, self._acknowledge)
        self._traps = TrapDispatcher(
            self.session,
            [BoundCall(declared, self.session, self._memory, observers) for declared in self.session.calls],
            self.vcpus,
            self._progress,
            self._acknowledgements,
            self._outbox.send_effects,
        )
        self._requests = RequestQueue(self._begin, self._outbox)

    def _map(self, hello: pb.Hello) -> BackendMemory:
        if hello.ram_path:
            try:
                ram = RamFile.open(Path(hello.ram_path), hello.ram_bytes)
                outbox = self._outbox
                return MappedMemory(ram, lambda dirty: outbox.send_event(pb.AttachResponse(dirty=dirty)), outbox.take_dirty)
            except OSError as error:
                log.info("guest RAM is not mapped, using the stream", vm=hello.vm, reason=str(error))
        return StreamMemory(hello.ram_bytes, self._questions.memory)

    def _map_tces(self, hello: pb.Hello) -> RamFile | None:
        if hello.tce_path and isinstance(self._memory, MappedMemory):
            try:
                return RamFile.open(Path(hello.tce_path), FILE_BYTES, TCE_SUFFIX)
            except OSError as error:
                log.info("DMA windows are not mapped, using the stream", vm=hello.vm, reason=str(error))
        return None

    # What sessions use; see Vm.

    def interrupt(self, source: int) -> None:
        """See Vm."""
        self._outbox.pulse(source)

    def dma_window(self, unit_address: int) -> DmaWindow:
        """See Vm."""
        memory = self._memory
        if self._tces is not None and isinstance(memory, MappedMemory):
            return MappedDma(memory.map, TceTables(self._tces.map), unit_address, self._outbox.wrote, memory.may_write)
        return StreamDma(unit_address, self._questions.dma, memory.may_write)

    def soon(self, call: Callable[[], None]) -> None:
        """See Vm."""
        self._outbox.turn.soon(call)

    def put_entries(self, unit_address: int, position: int, entries: bytes) -> None:
        """See Vm."""
        self._outbox.put_entries(unit_address, position, entries)

    def machine_action(self, kind: pb.MachineActionKind, reason: str) -> None:
        """See Vm."""
        self._outbox.send_event(pb.AttachResponse(action=pb.MachineAction(kind=kind, reason=reason)))

    def inventory_changed(self) -> None:
        """See Vm."""
        self._is_as_configured = False
        if self._outbox.connection is not None:
            self._outbox.send(inventory_message(self.session))

    async def invoke(self, token: int, *arguments: int) -> tuple[int, Sequence[int]]:
        """See Vm."""
        await self._memory.before_invoke()
        result = await self._questions.invoke(token, arguments)
        return result.result, result.outputs

    # Connections.

    @property
    def connection(self) -> Connection | None:
        """The connection that there is; None while cpu_service is away."""
        return self._outbox.connection

    @property
    def turn(self) -> Turn:
        """The turns in which its requests are taken."""
        return self._outbox.turn

    @property
    def ram_mapped(self) -> bool:
        """Whether guest RAM is mapped here."""
        return isinstance(self._memory, MappedMemory)

    async def offer(self, backend: str, hello: pb.Hello) -> pb.Offer:
        """Describe the routes and nodes of this VM to a connection that begins with hello."""
        if hello.beginning not in STATE_FOLLOWS:  # Else the devices have the queues of the machine's state.
            self.open_queues = {queue.unit_address: queue.entries for queue in hello.open_queues}
            await self.session.attaching()
        return offer_message(backend, self.session, ram_mapped=self.ram_mapped)

    def attach(self, connection: Connection, hello: pb.Hello) -> None:
        """Take over a new connection: say again what the lost one may not have delivered."""
        old, self._outbox.connection = self._outbox.connection, connection
        self._memory.stand_still(hello.beginning != pb.BEGINNING_RUNNING)
        if old is not None:
            old.end("a newer connection took over")
        if not self._is_as_configured:
            connection.send(inventory_message(self.session))
        self._progress.attach(hello.positions, self.vcpus)
        self._traps.commit()
        self._acknowledgements.clear()
        for message in (*self._progress.acknowledgements(), *self._questions.all()):
            connection.send(message)
        self._outbox.send_kept()

    def detach(self, connection: Connection) -> None:
        """A connection has ended, though not always the one that there is."""
        if self._outbox.connection is connection:
            self._outbox.connection = None

    # Requests.

    def receive(self, request: pb.AttachRequest) -> pb.AttachResponse | None:
        """Handle a trap, a posted batch, a reset or a save, after those that came before it. Returns what to send at once.

        Raises ContractError.
        """
        self._schedule.requests += 1
        return self._requests.put(request)

    def answer(self, number: int, result: pb.MemoryResult | pb.InvokeResult) -> None:
        """Give a handler that waits its answer. Raises ContractError for one of another kind."""
        self._questions.answer(number, result)

    def _begin(self, request: pb.AttachRequest) -> Outcome:
        """Start one request. Returns the response, something to wait for, or None when there is nothing to say."""
        match request.WhichOneof("message"):
            case "posted":
                return self._traps.posted(request.posted.traps)
            case "trap":
                return self._traps.trap(request.trap)
            case "save_state":
                return self._save(request.save_state.id)
            case "resumed":
                return self._resumed()
            case _:
                return self._reset(request.reset.count)

    def _ask(self, question: pb.AttachResponse) -> None:
        self._acknowledgements.send()  # What is asked for belongs to the first request that has no answer.
        self._outbox.send(question)

    async def acknowledge_all(self) -> None:
        """Acknowledge every posted trap before the connection ends: a recording of it is whole then."""
        self._acknowledgements.send()
        if self._outbox.connection is not None:
            await self._outbox.connection.sent()

    def _acknowledge(self, message: pb.AttachResponse) -> None:
        self._traps.commit()
        self._outbox.send(message)

    async def _reset(self, count: int) -> pb.AttachResponse:
        try:
            await self.session.reset()
        except Exception:
            log.exception("reset failed", vm=self.name)
        return pb.AttachResponse(reset_done=pb.ResetDone(count=count))

    async def _save(self, number: int) -> pb.AttachResponse:
        """Send the session's state; from here on devices leave guest memory alone."""
        saved = pb.SavedState()
        async for saved in saved_states(number, self.session, lambda: self._memory.stand_still(True)):
            if not saved.last and self._outbox.connection is not None:
                await self._outbox.connection.write(pb.AttachResponse(saved_state=saved))
        return pb.AttachResponse(saved_state=saved)

    async def _resumed(self) -> None:
        self._memory.stand_still(False)
        await self.session.resumed()

    # Beginning and end.

    async def restore(self, state: bytes) -> None:
        """Let the session start with a state; the first of several connections counts. Raises StateError."""
        async with self._restored:
            if self.restoring:
                self._memory.stand_still(True)
                await self.session.restore(state)
                self.restoring = False

    async def close(self, *, replaced: bool = False) -> None:
        """End the session, for good or because another one takes its place, and let go of RAM."""
        await self._requests.cancel()
        self._acknowledgements.clear()
        self._memory.stand_still(False)
        await (self.session.replaced() if replaced else self.session.close())
        if isinstance(self._memory, MappedMemory):
            self._memory.close()
        if self._tces is not None:
            with suppress(BufferError):  # The last transfer of a device unmaps it.
                self._tces.close()
