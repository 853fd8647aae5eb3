# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM at a back end, over all its connections: its session, its last replies, and what waits to be sent."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from splitvisor.declarations.calls import Call, Hypercall, Result, RtasCall
from splitvisor.declarations.session import Session, Vm
from splitvisor.papr.vio import SLOTS
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.acknowledgements import AcknowledgementSchedule, VmAcknowledgements
from splitvisor.trap.connection import Connection, ContractError, check_gap
from splitvisor.trap.handler_times import HandlerObserver
from splitvisor.trap.handlers import ANSWER, Answer, finished, run_handler
from splitvisor.trap.memory import BackendMemory, MappedMemory, StreamMemory
from splitvisor.trap.messages import (
    declared_call,
    interrupt_message,
    mirror_messages,
    reply_message,
    route_keys,
    route_message,
    saved_states,
)
from splitvisor.trap.ram_file import RamFile

MAX_PENDING_EVENTS = 1024
"""Interrupt sources and actions that wait for cpu_service to come back."""
REPEATED_PULSE_S = 5.0
"""Interrupts this young are pulsed again at the next attach: the lost connection may have been dead when they were sent."""
BACKLOG_BYTES = 16 << 20
"""Requests that wait for the one in hand; cpu_service keeps far below: a trap a vCPU, and posted calls as far as credit goes."""
REQUEST_DEADLINE_S = 60.0
"""How long a handler waits for guest memory or an invoked call; cpu_service may be reconnecting."""

SessionFactory = Callable[[Vm], Session]

log = structlog.get_logger()


class VmLink(Vm):
    """One VM at this back end, over all its connections."""

    def __init__(self, hello: pb.Hello, factory: SessionFactory, schedule: AcknowledgementSchedule) -> None:
        self.name = hello.vm
        self.incarnation = hello.incarnation
        self.vcpus = hello.vcpus
        self.devices = list(hello.devices)
        self.slots = range(hello.slots.first, hello.slots.first + min(hello.slots.count, SLOTS))
        self.moved = hello.moved
        self.restoring = hello.restore
        """The session waits for the state that it starts with; nobody else sees it before."""
        self._restored = asyncio.Lock()
        self.connection: Connection | None = None
        self._memory = self._map(hello)
        self.memory = self._memory
        self._events: deque[pb.AttachResponse] = deque(maxlen=MAX_PENDING_EVENTS)
        self._requests: dict[int, tuple[pb.AttachResponse, asyncio.Future[Any]]] = {}
        self._pulses: dict[int, float] = {}
        """When each source was pulsed last; infinity: while cpu_service was away, so it does not know."""
        self._next_id = 1
        self._positions: dict[int, int] = {}
        self._replies: dict[int, tuple[int, pb.AttachResponse | None]] = {}
        self._work: asyncio.Task[None] | None = None
        self._backlog: deque[pb.AttachRequest] = deque()
        self._backlog_bytes = 0
        self.session = factory(self)
        self.calls = self.session.calls
        self._schedule = schedule
        self._acknowledgements = VmAcknowledgements(schedule, self.calls, self._acknowledge)
        self.observers: Sequence[HandlerObserver] = ()
        """See each call begin and end."""
        self._is_as_configured = True

    def _map(self, hello: pb.Hello) -> BackendMemory:
        if hello.ram_path:
            try:
                ram = RamFile.open(Path(hello.ram_path), hello.ram_bytes)
                return MappedMemory(ram, lambda dirty: self._event(pb.AttachResponse(dirty=dirty)))
            except OSError as error:
                log.info("guest RAM is not mapped, using the stream", vm=hello.vm, reason=str(error))
        return StreamMemory(hello.ram_bytes, self._request_memory)

    # What sessions use.

    def interrupt(self, source: int) -> None:
        """See Vm. Pulses of one source that find cpu_service away are one at its return."""
        if self.connection is None:
            self._pulses[source] = math.inf
            return
        self._pulses[source] = time.monotonic()
        self.connection.send(interrupt_message(source))

    def machine_action(self, kind: pb.MachineActionKind, reason: str) -> None:
        """See Vm."""
        self._event(pb.AttachResponse(action=pb.MachineAction(kind=kind, reason=reason)))

    def inventory_changed(self) -> None:
        """See Vm."""
        self._is_as_configured = False
        if self.connection is not None:
            self.connection.send(self._inventory())

    def _inventory(self) -> pb.AttachResponse:
        session = self.session
        inventory = pb.Inventory(nodes=session.nodes(), devices=session.inventory(), keys=route_keys(self.calls, session))
        return pb.AttachResponse(inventory=inventory)

    async def invoke(self, token: int, *arguments: int) -> tuple[int, Sequence[int]]:
        """See Vm."""
        number = self._new_id()
        message = pb.AttachResponse(invoke=pb.Invoke(id=number, token=token, arguments=arguments))
        result: pb.InvokeResult = await self._ask(number, message)
        return result.result, result.outputs

    def _event(self, message: pb.AttachResponse) -> None:
        if self.connection is None:
            self._events.append(message)
        else:
            self.connection.send(message)

    async def _request_memory(
        self, *, read: pb.MemoryRange | None = None, write: pb.MemoryBlock | None = None
    ) -> pb.MemoryResult:
        number = self._new_id()
        if read is not None:
            message = pb.AttachResponse(memory_read=pb.MemoryRead(id=number, range=read))
        else:
            message = pb.AttachResponse(memory_write=pb.MemoryWrite(id=number, block=write))
        result: pb.MemoryResult = await self._ask(number, message)
        return result

    def _new_id(self) -> int:
        self._next_id = self._next_id % 0xFFFF_FFFF + 1
        return self._next_id

    async def _ask(self, number: int, message: pb.AttachResponse) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._requests[number] = (message, future)
        try:
            if self.connection is not None:
                self._acknowledgements.send()  # What is asked for belongs to the first request that has no answer.
                self.connection.send(message)
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                return await future
        finally:
            self._requests.pop(number, None)

    # What the connection does.

    def offer(self, backend: str) -> pb.Offer:
        """Describe the routes and nodes of this VM."""
        return pb.Offer(
            backend=backend,
            routes=[route_message(call, self.session) for call in self.calls],
            nodes=self.session.nodes(),
            ram_mapped=isinstance(self._memory, MappedMemory),
            mirrors=mirror_messages(self.calls, self.session),
        )

    def attach(self, connection: Connection, hello: pb.Hello) -> None:
        """Take over a new connection: say again what the lost one may not have delivered."""
        old, self.connection = self.connection, connection
        self._stand_still(hello.restore or hello.stands_still)
        if old is not None:
            old.end("a newer connection took over")
        if not self._is_as_configured:
            connection.send(self._inventory())
        for position in hello.positions:
            sequence, _ = self._replies.get(position.vcpu, (0, None))
            if sequence <= position.sequence:
                self._replies.pop(position.vcpu, None)
            if position.vcpu < self.vcpus:  # What was answered in an earlier life of this back end will not come again.
                self._positions[position.vcpu] = max(position.sequence, self._positions.get(position.vcpu, 0))
        if self.session.uncommitted:
            self.session.commit()
        self._acknowledgements.clear()
        for vcpu, sequence in self._positions.items():
            # Not a call whose reply is still kept: cpu_service would take it for answered, and say so at the next attach.
            done = sequence - 1 if self._replies.get(vcpu, (-1, None))[0] == sequence else sequence
            connection.send(pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=vcpu, sequence=done)))
        for message, _ in self._requests.values():
            connection.send(message)
        while self._events:
            connection.send(self._events.popleft())
        now = time.monotonic()
        for source, pulsed in self._pulses.items():
            if pulsed > now - REPEATED_PULSE_S:
                self._pulses[source] = now
                connection.send(interrupt_message(source))

    def answer(self, number: int, result: pb.MemoryResult | pb.InvokeResult) -> None:
        """Deliver the answer to a request of a handler; a second one is ignored. Raises ContractError for one of another kind."""
        request, future = self._requests.get(number, (None, None))
        if request is None or future is None or future.done():
            return
        if request.HasField("invoke") != isinstance(result, pb.InvokeResult):
            asked, kind = request.WhichOneof("message"), type(result).DESCRIPTOR.name
            raise ContractError(f"{kind} {number} for a request that is {asked}")
        future.set_result(result)

    async def receive(self, request: pb.AttachRequest) -> None:
        """Handle a trap, a posted batch, a reset or a save, after those that came before it."""
        self._schedule.requests += 1
        if self._work is not None:
            size = request.ByteSize()
            if self._backlog_bytes + size > BACKLOG_BYTES:
                raise ContractError(f"more than {BACKLOG_BYTES} bytes of requests while one is in hand")
            self._backlog_bytes += size
            self._backlog.append(request)
            return
        work = self._begin(request)
        if isinstance(work, pb.AttachResponse):
            if self.connection is not None:
                await self.connection.write(work)
        elif work is not None:
            self._work = asyncio.get_running_loop().create_task(self._continue(work))

    async def _continue(self, work: Awaitable[pb.AttachResponse | None]) -> None:
        """Finish one request that waits for something, then what came in meanwhile."""
        try:
            response = await work
            if response is not None and self.connection is not None:
                await self.connection.write(response)
            while self._backlog:
                request = self._backlog.popleft()
                self._backlog_bytes -= request.ByteSize()
                begun = self._begin(request)
                response = begun if begun is None or isinstance(begun, pb.AttachResponse) else await begun
                if response is not None and self.connection is not None:
                    await self.connection.write(response)
        except ContractError as error:
            if self.connection is not None:
                self.connection.end(str(error))
        finally:
            self._work = None

    def _begin(self, request: pb.AttachRequest) -> pb.AttachResponse | Awaitable[pb.AttachResponse | None] | None:
        """Start one request. Returns the response, something to wait for, or None when there is nothing to say."""
        if request.HasField("trap"):
            return self._trap(request.trap)
        if request.HasField("posted"):
            batch = request.posted.traps
            return self._posted(len(batch), iter(batch), {})
        if request.HasField("save_state"):
            return self._save(request.save_state.id)
        if request.HasField("resumed"):
            return self._resumed()
        return self._reset(request.reset.count)

    def _trap(self, trap: pb.Trap) -> pb.AttachResponse | Awaitable[pb.AttachResponse] | None:
        last, reply = self._replies.get(trap.vcpu, (0, None))
        if trap.sequence == last:
            return reply  # None: still being handled; its reply will go to this connection.
        position = self._positions.get(trap.vcpu, 0)
        if trap.sequence <= position:
            return None
        if trap.sequence > position + 1:
            check_gap(trap, position)
        declared = declared_call(self.calls, self.vcpus, trap)
        self._positions[trap.vcpu] = trap.sequence
        self._replies[trap.vcpu] = (trap.sequence, None)
        outcome = self._call(trap, declared)
        if isinstance(outcome, pb.Reply):
            return self._finish(outcome)
        return self._finish_later(outcome)

    async def _finish_later(self, outcome: Awaitable[pb.Reply]) -> pb.AttachResponse:
        return self._finish(await outcome)

    def _finish(self, reply: pb.Reply) -> pb.AttachResponse:
        if self.session.uncommitted:
            self.session.commit()
        response = pb.AttachResponse(reply=reply)
        self._replies[reply.vcpu] = (reply.sequence, response)
        return response

    def _call(self, trap: pb.Trap, declared: Hypercall | RtasCall) -> pb.Reply | Awaitable[pb.Reply]:
        call = Call(vcpu=trap.vcpu, arguments=trap.arguments[:], returns=trap.returns, sequence=trap.sequence)
        answer = run_handler(self.session, trap, call, declared, self.observers)
        if isinstance(answer, ANSWER):
            return reply_message(trap, call, declared, answer)
        return self._await_reply(trap, call, declared, answer)

    async def _await_reply(
        self, trap: pb.Trap, call: Call, declared: Hypercall | RtasCall, answer: Awaitable[Result | int]
    ) -> pb.Reply:
        """Only such a handler can use guest memory; what it writes goes with the reply."""
        self._memory.begin_call(trap.operands)
        result = await finished(trap, declared, answer)
        reply = reply_message(trap, call, declared, result)
        self._memory.end_call(reply)
        return reply

    def _posted(self, count: int, traps: Iterator[pb.Trap], done: dict[int, int]) -> Awaitable[None] | None:
        """Carry out what is left of a batch of so many calls; done: by vCPU, the last one of it so far."""
        positions = self._positions
        for trap in traps:
            vcpu, sequence = trap.vcpu, trap.sequence
            done[vcpu] = sequence
            position = positions.get(vcpu, 0)
            if sequence <= position:
                continue
            if sequence > position + 1:
                check_gap(trap, position)
            declared = declared_call(self.calls, self.vcpus, trap)
            # A list of numbers is read several times as fast as the message's own.
            call = Call(vcpu, trap.arguments[:], sequence=sequence)
            answer = run_handler(self.session, trap, call, declared, self.observers)
            if not isinstance(answer, ANSWER):
                return self._posted_later(trap, call, answer, count, traps, done)
            positions[vcpu] = sequence
            if call.effects:
                self._say_effects(call)
        self._acknowledgements.add(done, count)
        return None

    async def _posted_later(
        self, trap: pb.Trap, call: Call, answer: Awaitable[Answer], count: int, traps: Iterator[pb.Trap], done: dict[int, int]
    ) -> None:
        """Go on with a batch after a handler that waits; there is no reply for its writes to go with."""
        await finished(trap, declared_call(self.calls, self.vcpus, trap), answer)
        self._positions[trap.vcpu] = trap.sequence
        self._say_effects(call)
        begun = self._posted(count, traps, done)
        if begun is not None:
            await begun

    def _say_effects(self, call: Call) -> None:
        """Interrupts and machine actions of a posted call; a call of another owner has nobody to wait for its credit."""
        for effect in call.effects:
            if effect.HasField("interrupt"):
                self.interrupt(effect.interrupt.source)
            elif effect.HasField("action"):
                self._event(pb.AttachResponse(action=effect.action))

    async def acknowledge_all(self) -> None:
        """Acknowledge every posted call before the connection ends: a recording of it is whole then."""
        self._acknowledgements.send()
        if self.connection is not None:
            await self.connection.sent()

    def _acknowledge(self, message: pb.AttachResponse) -> None:
        if self.session.uncommitted:
            self.session.commit()
        if self.connection is not None:
            self.connection.send(message)

    async def _reset(self, count: int) -> pb.AttachResponse:
        try:
            await self.session.reset()
        except Exception:
            log.exception("reset failed", vm=self.name)
        return pb.AttachResponse(reset_done=pb.ResetDone(count=count))

    async def _save(self, number: int) -> pb.AttachResponse:
        """Send the session's state; from here on devices leave guest memory alone."""
        self._stand_still()
        saved = pb.SavedState()
        async for saved in saved_states(number, self.session):
            if not saved.last and self.connection is not None:
                await self.connection.write(pb.AttachResponse(saved_state=saved))
        return pb.AttachResponse(saved_state=saved)

    async def _resumed(self) -> None:
        self._stand_still(False)
        await self.session.resumed()

    def _stand_still(self, still: bool = True) -> None:
        """Let devices leave guest memory alone, or use it again."""
        frozen = self._memory.frozen
        if still and frozen is None:
            self._memory.frozen = asyncio.Event()
        elif not still and frozen is not None:
            frozen.set()
            self._memory.frozen = None

    async def restore(self, state: bytes) -> None:
        """Let the session start with a state; the first of several connections counts. Raises StateError."""
        async with self._restored:
            if self.restoring:
                self._stand_still()
                await self.session.restore(state)
                self.restoring = False

    async def close(self, *, replaced: bool = False) -> None:
        """End the session, for good or because another one takes its place, and let go of RAM."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        self._acknowledgements.clear()
        self._stand_still(False)
        await (self.session.replaced() if replaced else self.session.close())
        if isinstance(self._memory, MappedMemory):
            self._memory.close()
