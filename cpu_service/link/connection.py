# SPDX-License-Identifier: GPL-2.0-or-later
"""The connection to one back end: introduces the VM, repeats what a lost one may not have delivered, reads what comes.

Two threads meet here. The link's thread connects, reads responses, sends what was gathered, and connects anew when the stream
ends. The vCPU thread sends its calls itself, and reads for as long as it waits for an answer: see _answer().
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from collections.abc import Sequence

import grpc
import structlog

from cpu_service.engine.ram import GuestRam
from cpu_service.link.backend_requests import BackendActs
from cpu_service.link.contract import (
    REFUSALS,
    BackendRefusedError,
    BackendUnavailableError,
    LinkEvents,
    MessageTap,
    explain_end,
    offered_calls,
    with_keys,
)
from cpu_service.link.ledger import CallLedger
from cpu_service.link.wire import TrapWire, WireEndedError
from splitvisor.declarations.state import parts
from splitvisor.net.addresses import parse_address
from splitvisor.net.tls_client import ClientContext
from splitvisor.net.tls_files import tls_files
from splitvisor.rpc import trap_pb2 as pb

GATHER_S = 0.002
"""How long posted calls wait for more of their kind."""
BATCH_CALLS = 128
"""Posted calls after which a batch goes at once."""
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.01, 0.25
MAX_UNASKED = 128
"""Answers that no vCPU has taken; with more, the stream ends."""
MAX_UNREAD = 64
"""Requests that the back end has not taken from the stream when it asks for memory again; with more, the stream ends."""
TAKE_OVER_S = 0.001
"""How long a vCPU that waits for an answer lets the link's thread finish what it reads."""
CLOSE_S, CUT_OFF_S = 1.5, 0.5
"""How long what was sent may take to arrive at the end, and then the link's thread to end."""
MIRROR_BYTES = 1 << 20
"""The largest array that is kept a copy of."""

log = structlog.get_logger()


class LinkConnection:
    """One VM's stream to one back end, over all its connections.

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
        self._tap = tap
        self.offer = pb.Offer()
        """As it was when the back end attached last."""
        self.routes: Sequence[pb.Route] = ()
        """Of the offer, with the keys that the back end owns now; replaced as a whole when they change."""
        self.nodes: Sequence[pb.TreeNode] = ()
        """What the back end describes for the device tree; replaced as a whole when it changes."""
        self.devices: Sequence[pb.DeviceSpec] = tuple(hello.devices)
        """What the back end has for the configured devices."""
        self.mirrors: dict[str, bytearray] = {}
        """Copies of the back end's arrays, by the name of the call that reads them."""
        self.attached = False
        self.reconnects = 0
        self.posted_calls = self.posted_bytes = self.credit_stalls = 0
        """What was sent without a vCPU's waiting, and calls that were not posted for want of credit."""
        self.acts = BackendActs(name, ram, events)
        """What the back end does on its own."""
        self._hello, self._events = hello, events
        self._address = parse_address(address)
        self._tls = ClientContext(tls_files(address)) if self._address.tls else None
        self._wire: TrapWire | None = None
        """The connection, from its introduction to its end."""
        self._reading = threading.Lock()
        """Who has it reads the wire. It is taken before _lock, never after."""
        self._answers: queue.SimpleQueue[pb.AttachResponse] = queue.SimpleQueue()
        self._lock = threading.Lock()
        """Of everything that is said or remembered for the next connection."""
        self._acknowledged = threading.Condition(self._lock)
        self._ledger = CallLedger()
        self._batch: list[pb.Trap] = []
        self._flush_at = math.inf
        """When the batch goes, by time.monotonic()."""
        self._outstanding: pb.AttachRequest | None = None
        self._first_attach, self._closing = threading.Event(), threading.Event()
        self._abandoned = False
        self._was_attached, self._refused, self._failure = False, False, ""
        self._restore = state
        """Sent with the introduction until the back end has it."""
        self._stands_still, self._takes_back = state is not None, False
        """The machine does not run yet; it runs already, and a restored session goes on at once."""
        self._saves = 0
        self._may_connect = threading.Event()
        self._may_connect.set()
        self._broken: BackendUnavailableError | None = None
        """Why the stream shall end."""
        self._cut_off = threading.Event()
        """The link's thread ends now, whatever is under way."""
        self._thread = threading.Thread(target=self._run, name=f"link-{name}", daemon=True)

    def begin(self) -> None:
        """Start to connect."""
        self._thread.start()

    def wait_attached(self, timeout: float) -> pb.Offer:
        """Wait for the first connection and return what the back end offers.

        Raises BackendUnavailableError after timeout seconds, or at once when the back end refuses.
        """
        if not self._first_attach.wait(timeout) or not self._was_attached:
            failure = self._failure or "no answer"  # What close() cancels is no reason.
            self.close("not attached")
            if self._refused:
                raise BackendRefusedError(f"back end {self.name} at {self.address}: {failure}")
            raise BackendUnavailableError(f"back end {self.name} at {self.address}: {failure}; start it or correct its address")
        return self.offer

    def close(self, reason: str) -> None:
        """Detach, let what was sent arrive, and end the link's thread; waits at most two seconds."""
        self._closing.set()
        self._may_connect.set()
        with self._lock:
            self._queue_batch()
            self._send(pb.AttachRequest(detach=pb.Detach(reason=reason)))
            if self._wire is not None:
                self._wire.finish()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S if self.attached else 0.0)
            self._cut_off.set()
            if (wire := self._wire) is not None:
                wire.wake()
            self._thread.join(CUT_OFF_S)

    def abandon(self) -> None:
        """Let a call that waits, and all that come, return None at once: the machine stops. From any thread."""
        self._abandoned = True
        self._answers.put(pb.AttachResponse())
        if (wire := self._wire) is not None:
            wire.interrupt()

    # Sending; with the lock held.

    def _send(self, request: pb.AttachRequest) -> None:
        """Send a request. Without a connection it has no effect: the next one's introduction says what has to be said again."""
        if (wire := self._wire) is not None:
            if self._tap is not None:
                self._tap.sent(request)
            wire.send(request)

    def _queue_batch(self) -> TrapWire | None:
        """Put what was gathered before whatever is sent next. Returns the connection, which may be told to flush()."""
        self._flush_at = math.inf
        batch, self._batch = self._batch, []
        wire = self._wire
        if batch and wire is not None:
            request = pb.AttachRequest(posted=pb.PostedBatch(traps=batch))
            if self._tap is not None:
                self._tap.sent(request)
            wire.queue(request)
        return wire

    def _gather(self) -> None:
        """Have what was gathered sent before long, by the link's thread: the vCPU has better things to do."""
        if len(self._batch) >= BATCH_CALLS:
            if (wire := self._queue_batch()) is not None:
                wire.wake()
        elif self._flush_at == math.inf:
            self._flush_at = time.monotonic() + GATHER_S
            if self._wire is not None:
                self._wire.wake()

    # Waiting for answers; the vCPU's thread.

    def _answer(self, deadline: float) -> pb.AttachResponse:
        """Return the next answer; the caller reads it itself where it can. Raises queue.Empty at the deadline."""
        if self._answers.empty():
            self._read_here(deadline)
        return self._answers.get(timeout=max(0.0, deadline - time.monotonic()))

    def _read_here(self, deadline: float) -> None:
        """Read until there is an answer; return without one when the link's thread reads, or has to see to the connection."""
        if not self.attached or not self._reading.acquire(timeout=TAKE_OVER_S):
            return
        try:
            wire = self._wire
            if wire is None or not self._may_read(wire):
                return
            wire.take_over()
            while self._answers.empty() and self._may_read(wire) and (left := deadline - time.monotonic()) > 0:
                self._handle_all(wire.read_within(left))
            wire.listen()
            if not self._may_read(wire):
                wire.wake()
        finally:
            self._reading.release()

    def _may_read(self, wire: TrapWire) -> bool:
        return wire.ended is None and self._broken is None and not self._abandoned

    # The link's thread.

    def _run(self) -> None:
        backoff = FIRST_BACKOFF_S
        for attempt in itertools.count():
            try:
                self._connect()
                backoff = FIRST_BACKOFF_S
                if attempt:
                    self.reconnects += 1
                    log.info("back end attached again", backend=self.name)
                self._first_attach.set()
                self._events.connection_changed(self)
                self._read()
            except WireEndedError as error:
                self._failure = explain_end(error)
                if error.code in REFUSALS:
                    self._refused = error.code is grpc.StatusCode.FAILED_PRECONDITION
                    self._first_attach.set()
            except BackendUnavailableError as error:
                if self._was_attached and not self.attached and self._failure != str(error):
                    log.warning("back end is there again and not taken", backend=self.name, reason=str(error))
                self._failure = str(error)
            lost, self.attached = self.attached, False
            self._drop_wire()
            if self._closing.is_set():
                return
            if lost:
                log.warning("back end lost, reconnecting", backend=self.name, reason=self._failure)
                self._events.connection_changed(self)
            self._may_connect.wait()
            if self._closing.wait(backoff):
                return
            backoff = min(2 * backoff, LAST_BACKOFF_S)

    def _drop_wire(self) -> None:
        if (wire := self._wire) is not None:
            with self._reading, self._lock:
                self._wire = self._broken = None
                wire.close()

    def _connect(self) -> None:
        """Open a connection, say what the last one may have lost, and take the offer."""
        wire = TrapWire(self._address, None if self._tls is None else self._tls.newest())
        with self._lock:
            for request in self._introduction():
                if self._tap is not None:
                    self._tap.sent(request)
                wire.queue(request)
            self._wire = wire
            wire.flush()
        offer, *early = self._first_responses(wire)
        if self._tap is not None:
            shown = pb.AttachResponse()
            shown.CopyFrom(offer)  # Its mirrors are taken out of it below.
            self._tap.received(shown)
        if not offer.HasField("offer"):
            raise BackendUnavailableError("it did not send an offer first")
        if self._first_attach.is_set() and offered_calls(offer.offer) != offered_calls(self.offer):
            raise BackendUnavailableError("it came back with other routes; restart the machine to use them")
        if any(len(mirror.contents) > MIRROR_BYTES for mirror in offer.offer.mirrors):
            raise BackendUnavailableError(f"it offered a mirror of more than {MIRROR_BYTES} bytes")
        self._take_routes(tuple(offer.offer.routes))
        self.mirrors = {mirror.name: bytearray(mirror.contents) for mirror in offer.offer.mirrors}
        offer.offer.ClearField("mirrors")
        self.offer, self.nodes = offer.offer, tuple(offer.offer.nodes)
        self._handle_all(early)
        with self._lock:
            self._restore = None
            self._hello.moved = self._takes_back = False
            self.attached = self._was_attached = True

    def _introduction(self) -> Sequence[pb.AttachRequest]:
        """What a connection begins with: who this is, and what the last one may have lost. With the lock held."""
        self._batch, self._flush_at = [], math.inf
        hello = pb.Hello()
        hello.CopyFrom(self._hello)
        hello.ClearField("devices")
        hello.devices.extend(self.devices)
        outstanding = self._outstanding  # Before the positions: it may be answered at this moment, and then they have it.
        hello.positions.extend(self._ledger.positions)
        hello.restore = self._restore is not None
        hello.stands_still = self._stands_still
        first = [pb.AttachRequest(hello=hello)]
        if self._restore is not None:
            states = [pb.RestoreState(data=data, last=last) for data, last in parts(self._restore)]
            first += [pb.AttachRequest(restore_state=state) for state in states]
        if self._takes_back:
            first.append(pb.AttachRequest(resumed=pb.Resumed()))
        unacknowledged = self._ledger.unacknowledged
        first += [
            pb.AttachRequest(posted=pb.PostedBatch(traps=unacknowledged[start : start + BATCH_CALLS]))
            for start in range(0, len(unacknowledged), BATCH_CALLS)
        ]
        if outstanding is not None:
            first.append(outstanding)
        return first

    def _first_responses(self, wire: TrapWire) -> Sequence[pb.AttachResponse]:
        """Wait for the first response; some behind it may come with it."""
        while not (responses := wire.read()):
            if wire.ended is not None:
                raise wire.ended
            wire.listen()
            wire.wait(math.inf)
            if self._cut_off.is_set():
                raise BackendUnavailableError("closed")
        return responses

    def _read(self) -> None:
        """Read, and send what was gathered, until the stream ends."""
        wire = self._wire
        assert wire is not None
        while not self._cut_off.is_set():
            if self._reading.acquire(blocking=False):  # Else the vCPU reads.
                try:
                    self._handle_all(wire.read())
                    if self._broken is not None:
                        raise self._broken
                    if wire.ended is not None:
                        raise wire.ended
                    wire.listen()
                finally:
                    self._reading.release()
            with self._lock:
                if self._flush_at <= time.monotonic():
                    self._queue_batch()
            wire.flush()
            wire.wait(self._flush_at - time.monotonic())

    def _handle_all(self, responses: Sequence[pb.AttachResponse]) -> None:
        """Take responses, in the thread that reads."""
        tap = self._tap
        try:
            for response in responses:
                if tap is not None:
                    tap.received(response)
                self._handle(response)
        except BackendUnavailableError as error:
            self._broken = error

    def _handle(self, response: pb.AttachResponse) -> None:
        """Take one response. Raises BackendUnavailableError when the stream shall end."""
        match response.WhichOneof("message"):
            case "reply" | "invoke" | "reset_done" | "saved_state":
                if response.saved_state.last:
                    self.acts.hold()  # What was pulsed before belongs to the saved machine, what comes now does not.
                if self._answers.qsize() >= MAX_UNASKED:
                    raise BackendUnavailableError(f"it sent more than {MAX_UNASKED} answers that nobody waits for")
                self._answers.put(response)
            case "acknowledge":
                self._acknowledge(response.acknowledge)
            case "interrupt" | "dirty" | "action":
                self.acts.take(response)
            case "memory_read":
                self._answer_memory(self.acts.read_memory(response.memory_read))
            case "memory_write":
                self._answer_memory(self.acts.write_memory(response.memory_write))
            case "inventory":
                self._take_inventory(response.inventory)
            case other:
                raise BackendUnavailableError(f"it sent an unexpected message: {other}")

    def _take_inventory(self, inventory: pb.Inventory) -> None:
        """What the back end has now. Raises BackendUnavailableError when keys are not its to take; then nothing has changed."""
        if inventory.keys:
            self._take_routes(with_keys(self.routes, inventory.keys))
        self.nodes, self.devices = tuple(inventory.nodes), tuple(inventory.devices)

    def _take_routes(self, routes: Sequence[pb.Route]) -> None:
        """The same for routes with other keys."""
        before, self.routes = self.routes, routes
        try:
            self._events.keys_changed(self)
        except BackendUnavailableError:
            self.routes = before
            raise

    def _answer_memory(self, result: pb.AttachRequest) -> None:
        with self._lock:
            if self._wire is not None and self._wire.unsent >= MAX_UNREAD:
                raise BackendUnavailableError(f"it asks for memory and does not read: {MAX_UNREAD} requests wait for it")
            self._send(result)

    def _acknowledge(self, done: pb.Acknowledge) -> None:
        with self._lock:
            sequence, waiting = done.sequence, self._outstanding
            if waiting is not None and waiting.HasField("trap") and waiting.trap.vcpu == done.vcpu:
                # Its reply is what tells that it is done: before, a back end must not be told that it may forget the reply.
                sequence = min(sequence, waiting.trap.sequence - 1)
            self._ledger.acknowledged(done.vcpu, sequence)
            self._acknowledged.notify_all()
