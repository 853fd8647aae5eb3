# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's link to one back end, over all its connections: traps that wait, posted traps, resets, and what the back end sends."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from cpu_service.engine.ram import GuestRam
from cpu_service.link.answers import Answers
from cpu_service.link.attachment import Attachment
from cpu_service.link.connection import MessageTap
from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.events import HeldEvents, LinkEvents
from cpu_service.link.introduction import Introduction
from cpu_service.link.ledger import TrapLedger
from cpu_service.link.memory_answers import MemoryAnswers
from cpu_service.link.offer import BackendOffer
from cpu_service.link.outbox import Outbox, PostedCounts
from cpu_service.link.state_transfer import StateTransfer
from splitvisor.rpc import trap_pb2 as pb

log = structlog.get_logger()


class BackendLink:
    """The traps of one VM to one back end.

    Args:
        name: the back end's name in the configuration.
        address: its gRPC target.
        hello: the introduction, without positions.
        ram: guest RAM, for the back end's memory requests.
        events: told of what the back end does on its own.
        state: what the back end's session starts with; None: as at power-on.
        tap: shown every message, for recording.

    Raises AddressError when the address must not be spoken to, or not without a certificate.
    """

    def __init__(
        self,
        name: str,
        address: str,
        hello: pb.Hello,
        ram: GuestRam,
        events: LinkEvents,
        state: bytes | None = None,
        tap: MessageTap | None = None,
    ) -> None:
        self.name, self.address = name, address
        self.offer = BackendOffer(hello.devices, lambda attached_anew: events.offer_changed(self, attached_anew=attached_anew))
        self._ledger = TrapLedger()
        self._outbox = Outbox(Introduction(hello, state, lambda: events.open_queues(self)), self.offer, self._ledger)
        self._attachment = Attachment(
            name, address, self._outbox, self.offer, self._take, lambda: events.connection_changed(self), tap,
            Path(hello.ram_path).parent if hello.ram_path else None,
        )  # fmt: skip
        self._answers = Answers()
        self._memory = MemoryAnswers(name, ram, events.memory_written, lambda liobn: events.window(self, liobn))
        self._events = HeldEvents(self, events)
        self.interrupted_at = -math.inf
        """When it last interrupted the guest, by time.monotonic()."""
        self.state = StateTransfer(name, address, self._outbox, self._answers, self._attachment, self._events)
        """Saves the back end's session."""

    @property
    def attached(self) -> bool:
        """Whether there is a connection."""
        return self._outbox.attached

    @property
    def reconnects(self) -> int:
        """Connections after the first."""
        return self._attachment.reconnects

    @property
    def posted(self) -> PostedCounts:
        """Traps that no vCPU waited for."""
        return self._outbox.posted

    @property
    def failure(self) -> str:
        """Why there is no connection, or the last one ended."""
        return self._attachment.failure

    def begin(self) -> None:
        """Start to connect."""
        self._attachment.begin()

    def wait_attached(self, timeout: float) -> BackendOffer:
        """Wait for the first connection and return what the back end offers.

        Raises BackendUnavailableError after timeout seconds, or at once when the back end refuses, and BackendRefusedError when
        it does not take the state that it is to restore.
        """
        self._attachment.wait(timeout)
        return self.offer

    def close(self, reason: str) -> None:
        """Detach, let what was sent arrive, and end the link's thread; waits at most two seconds."""
        self._attachment.close(reason)

    def abandon(self) -> None:
        """Let a trap that waits, and all that follow, return None at once: the machine stops. From any thread."""
        self._answers.abandon()
        if (connection := self._outbox.connection) is not None:
            connection.interrupt()

    def pause(self) -> None:
        """The machine is paused. From any thread."""
        self._outbox.pause()

    def go_on(self) -> None:
        """The machine goes on after a pause. From any thread."""
        self._outbox.go_on()

    # The vCPU's thread.

    def trap(
        self,
        route: int,
        vcpu: int,
        arguments: Sequence[int],
        returns: int,
        operands: Sequence[pb.MemoryBlock],
        timeout: float,
        invoke: Callable[[pb.Invoke], pb.InvokeResult],
        traceparent: str = "",
    ) -> pb.Reply | None:
        """Send a trap and wait for its reply; None after timeout seconds.

        Args:
            route: index into the offer.
            vcpu: whose trap it is.
            arguments: registers from r4, or RTAS argument words.
            returns: RTAS: room for return words.
            operands: the memory that the route asks for.
            timeout: seconds; reconnects take place within it.
            invoke: carries out hypercalls that the back end makes on behalf of this vCPU.
            traceparent: the span that the trap is in; empty: none.
        """
        request = pb.AttachRequest()
        trap = request.trap  # In its place: half the time of making a trap and then a request with it.
        sequence = self._ledger.next(vcpu)
        trap.vcpu, trap.sequence, trap.route = vcpu, sequence, route
        trap.arguments.extend(arguments)
        if returns:
            trap.returns = returns
        if operands:
            trap.operands.extend(operands)
        if traceparent:
            trap.traceparent = traceparent
        if skipped := self._ledger.skipped(vcpu):
            trap.skipped = skipped
        self._outbox.ask(request)
        deadline = time.monotonic() + timeout
        invoked = pb.InvokeResult()
        try:
            while not self._answers.abandoned:
                response = self._answer(deadline)
                if response.HasField("invoke"):
                    if response.invoke.id != invoked.id:  # The same again: its answer was lost with a connection.
                        invoked = invoke(response.invoke)
                    self._outbox.send(pb.AttachRequest(invoke_result=invoked))
                    continue
                reply = response.reply
                if reply.vcpu == vcpu and reply.sequence == sequence:
                    self._ledger.answered(trap)
                    return reply
            return None
        except queue.Empty:
            name = self.offer.routes[route].name
            log.warning("back end did not answer in time", backend=self.name, call=name, vcpu=vcpu, seq=sequence)
            self._ledger.give_up(trap)
            return None
        finally:
            self._outbox.answered()

    def post(
        self,
        route: int,
        vcpu: int,
        arguments: Sequence[int],
        operands: Sequence[pb.MemoryBlock],
        size: int,
        traceparent: str = "",
        *,
        buffers: bytes | None = None,
        at_once: bool = False,
    ) -> bool:
        """Send a posted trap of so many bytes; False when the route's credit does not allow it.

        buffers: what its buffers hold; None: the route has none.
        at_once: without waiting for more of its kind.
        """
        if not self._outbox.take_credit(route, size):
            return False
        trap = pb.Trap(
            vcpu=vcpu, sequence=self._ledger.next(vcpu), route=route, arguments=arguments, operands=operands,
            traceparent=traceparent, skipped=self._ledger.skipped(vcpu), buffers=buffers,
        )  # fmt: skip
        self._outbox.post(trap, size, at_once=at_once)
        return True

    def read_idle(self, done: Callable[[], bool], deadline: float, nudge: int) -> bool:
        """Take what comes until done, or until the deadline; see Connection."""
        connection = self._outbox.connection
        return connection is not None and self._outbox.attached and connection.read_idle(done, deadline, nudge)

    def wait_for_credit(self, timeout: float) -> None:
        """Wait until the back end acknowledges posted traps, timeout seconds at most."""
        if not self._answers.abandoned:
            self._outbox.wait_for_credit(timeout)

    def reset(self, count: int, timeout: float) -> None:
        """Reset the back end's devices and wait for it. Raises BackendUnavailableError after timeout seconds."""
        self._outbox.ask(pb.AttachRequest(reset=pb.Reset(count=count)))
        deadline = time.monotonic() + timeout
        try:
            while not self._answers.abandoned:
                response = self._answer(deadline)
                if response.HasField("reset_done") and response.reset_done.count == count:
                    return
        except queue.Empty:
            raise BackendUnavailableError(
                f"back end {self.name} at {self.address} did not reset its devices within {timeout:.0f} s"
            ) from None
        finally:
            self._outbox.answered()

    def _answer(self, deadline: float) -> pb.AttachResponse:
        """Return the next answer; the caller reads it itself where it can. Raises queue.Empty at the deadline."""
        answers, outbox = self._answers, self._outbox
        if not answers.is_there() and outbox.attached and (connection := outbox.connection) is not None:
            connection.read_until(answers.is_there, deadline)
        return answers.get(timeout=max(0.0, deadline - time.monotonic()))

    # The thread that reads.

    def _take(self, response: pb.AttachResponse) -> None:
        """Take one response. Raises BackendUnavailableError when the connection shall end."""
        match response.WhichOneof("message"):
            case "reply" | "invoke" | "reset_done":
                self._answers.put(response)
            case "saved_state":
                if response.saved_state.last:
                    self._events.hold()  # What was pulsed before belongs to the saved machine, what comes now does not.
                self._answers.put(response)
            case "acknowledge":
                self._outbox.acknowledge(response.acknowledge)
            case "interrupt" | "crq_entries":
                self.interrupted_at = time.monotonic()
                self._events.put(response)
            case "dirty" | "action":
                self._events.put(response)
            case "memory_read":
                self._outbox.send_memory(self._memory.read(response.memory_read))
            case "memory_write":
                self._outbox.send_memory(self._memory.write(response.memory_write))
            case "inventory":
                self.offer.take_inventory(response.inventory)
            case other:
                raise BackendUnavailableError(f"it sent an unexpected message: {other}")
