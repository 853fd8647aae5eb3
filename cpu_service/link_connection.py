# SPDX-License-Identifier: GPL-2.0-or-later
"""The connection to one back end: introduces the VM, repeats what a lost connection may not have delivered, reads what comes.

Three threads meet here. The vCPU thread puts requests into a queue and waits for answers. gRPC's own thread takes requests from
_requests(). The link's thread reads responses, and reconnects when the stream ends.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grpc
import structlog

from cpu_service.link_contract import (
    CHANNEL_OPTIONS,
    REFUSALS,
    BackendRefusedError,
    BackendUnavailableError,
    LinkEvents,
    MessageTap,
    explain_end,
    offered_calls,
)
from cpu_service.ram import GuestRam
from splitvisor.channels import open_channel
from splitvisor.guest_memory import GuestAddressError
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.session_state import parts

MAX_HELD = 4096
"""Events of a back end that wait for the end of a save."""
GATHER_S = 0.002
"""How long posted calls wait for more of their kind."""
BATCH_CALLS = 128
"""Posted calls after which a batch goes at once."""
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.01, 0.25
REQUEST_BYTES = 1 << 20
"""The largest memory_read that is answered."""
MAX_UNASKED = 1024
"""Answers that no vCPU has taken, and answers to memory requests that were not sent yet; with more, the stream ends."""
MIRROR_BYTES = 1 << 20
"""The largest array that is kept a copy of."""

log = structlog.get_logger()


class Posted(NamedTuple):
    """A posted call that the back end has not acknowledged; a tuple, because a guest that prints makes 20,000 a second."""

    trap: pb.Trap
    size: int


FLUSH, END = object(), object()
"""In the queue of requests: more posted calls are being gathered; there is nothing more to send."""


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
        self.nodes: Sequence[pb.TreeNode] = ()
        """What the back end describes for the device tree; replaced as a whole when it changes."""
        self.devices: Sequence[pb.DeviceSpec] = tuple(hello.devices)
        """What the back end has for the configured devices."""
        self.mirrors: dict[str, bytearray] = {}
        """Copies of the back end's arrays, by the name of the call that reads them."""
        self.attached = False
        self.reconnects = 0
        self.posted_calls = self.posted_bytes = 0
        """What went out without a vCPU's waiting."""
        self.credit_stalls = 0
        """Calls that were not posted for want of credit."""
        self._hello, self._ram, self._events = hello, ram, events
        self._outgoing: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[pb.AttachResponse] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._acknowledged = threading.Condition(self._lock)
        self._sequences: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._given_up: dict[int, int] = {}
        """How many calls of a vCPU were given up since its last that was not."""
        self._batch: list[pb.Trap] = []
        self._flush_asked = False
        self._unacknowledged: dict[int, deque[Posted]] = {}
        self._outstanding: pb.AttachRequest | None = None
        self._credit_used: dict[int, int] = {}
        self._closing = threading.Event()
        self._abandoned = False
        self._first_attach = threading.Event()
        self._failure = ""
        self._refused = False
        self._restore = state
        """Goes with the introduction until the back end has it."""
        self._takes_back = False
        """The machine runs already: a restored session goes on at once."""
        self._held: list[pb.AttachResponse] | None = None
        """While the machine is being saved: what the back end does on its own, for later."""
        self._saves = 0
        self._may_connect = threading.Event()
        self._may_connect.set()
        self._channel = open_channel(address, CHANNEL_OPTIONS)
        self._call: grpc.CallIterator[pb.AttachResponse] | None = None
        self._thread = threading.Thread(target=self._run, name=f"link-{name}", daemon=True)

    def begin(self) -> None:
        """Start to connect."""
        self._thread.start()

    def wait_attached(self, timeout: float) -> pb.Offer:
        """Wait for the first connection and return what the back end offers.

        Raises BackendUnavailableError after timeout seconds, or at once when the back end refuses.
        """
        if not self._first_attach.wait(timeout) or not self.attached:
            failure = self._failure or "no answer"  # What close() cancels is no reason.
            self.close("not attached")
            if self._refused:
                raise BackendRefusedError(f"back end {self.name} at {self.address}: {failure}")
            raise BackendUnavailableError(
                f"back end {self.name} at {self.address}: {failure}; start it or correct its address"
            )
        return self.offer

    def close(self, reason: str) -> None:
        """Detach, let what was sent arrive, and end the link's threads; waits at most two seconds."""
        self._closing.set()
        self._may_connect.set()
        with self._lock:
            self._send_batch()
        self._outgoing.put(pb.AttachRequest(detach=pb.Detach(reason=reason)))
        self._outgoing.put(END)
        if self._thread.ident is not None:
            self._thread.join(1.5 if self.attached else 0.0)
        if self._call is not None:
            self._call.cancel()
        self._channel.close()
        if self._thread.ident is not None:
            self._thread.join(0.5)

    def abandon(self) -> None:
        """Let a call that waits, and all that come, return None at once: the machine stops. From any thread."""
        self._abandoned = True
        self._answers.put(pb.AttachResponse())

    def _send_batch(self) -> None:
        """Put what was gathered into the queue; with the lock held."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._outgoing.put(pb.AttachRequest(posted=pb.PostedBatch(traps=batch)))

    # gRPC's side.

    def _requests(self, outgoing: queue.SimpleQueue[object], first: Sequence[pb.AttachRequest]) -> Iterator[pb.AttachRequest]:
        """Everything that one connection sends: the introduction, what the last one may have lost, then what comes."""
        tap = self._tap
        for request in first:
            if tap is not None:
                tap.sent(request)
            yield request
        gathering = False
        while True:
            try:
                item = outgoing.get(timeout=GATHER_S if gathering else None)
            except queue.Empty:
                gathering = False
                with self._lock:  # Into the queue like everything else: something older may just have been put there.
                    self._flush_asked = False
                    self._send_batch()
                continue
            if isinstance(item, pb.AttachRequest):
                if tap is not None:
                    tap.sent(item)
                yield item  # Older than what is being gathered.
            elif item is END:
                return
            else:
                gathering = True

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
            except grpc.RpcError as error:
                self._failure = explain_end(error)
                if error.code() in REFUSALS:
                    self._refused = error.code() is grpc.StatusCode.FAILED_PRECONDITION
                    self._first_attach.set()
            except BackendUnavailableError as error:
                self._failure = str(error)
            except ValueError:  # The channel was closed while this thread was about to use it.
                if not self._closing.is_set():
                    raise
            lost, self.attached = self.attached, False
            if self._closing.is_set():
                return
            if lost:
                log.warning("back end lost, reconnecting", backend=self.name, reason=self._failure)
                self._events.connection_changed(self)
            self._may_connect.wait()
            if self._closing.wait(backoff):
                return
            backoff = min(2 * backoff, LAST_BACKOFF_S)

    def _connect(self) -> None:
        """Open a connection, say what the last one may have lost, and take the offer."""
        with self._lock:
            self._outgoing.put(END)  # Whatever still reads for the lost connection stops here.
            outgoing: queue.SimpleQueue[object] = queue.SimpleQueue()
            self._outgoing = outgoing
            self._batch, self._flush_asked = [], False
            hello = pb.Hello()
            hello.CopyFrom(self._hello)
            hello.ClearField("devices")
            hello.devices.extend(self.devices)
            outstanding = self._outstanding  # Before the positions: it may be answered at this moment, and then they have it.
            hello.positions.extend(pb.VcpuPosition(vcpu=v, sequence=s) for v, s in self._positions.copy().items())
            hello.restore = self._restore is not None
            first = [pb.AttachRequest(hello=hello)]
            if self._restore is not None:
                states = [pb.RestoreState(data=data, last=last) for data, last in parts(self._restore)]
                first += [pb.AttachRequest(restore_state=state) for state in states]
            if self._takes_back:
                first.append(pb.AttachRequest(resumed=pb.Resumed()))
            unacknowledged = [posted.trap for waiting in self._unacknowledged.values() for posted in waiting]
            first += [
                pb.AttachRequest(posted=pb.PostedBatch(traps=unacknowledged[start : start + BATCH_CALLS]))
                for start in range(0, len(unacknowledged), BATCH_CALLS)
            ]
            if outstanding is not None:
                first.append(outstanding)
        call = trap_pb2_grpc.TrapServiceStub(self._channel).Attach(self._requests(outgoing, first), wait_for_ready=False)
        self._call = call
        offer = next(iter(call), pb.AttachResponse())
        if self._tap is not None:
            shown = pb.AttachResponse()
            shown.CopyFrom(offer)  # Its mirrors are taken out of it below.
            self._tap.received(shown)
        if not offer.HasField("offer"):
            raise BackendUnavailableError("it did not send an offer first")
        if self._first_attach.is_set() and offered_calls(offer.offer) != offered_calls(self.offer):
            call.cancel()
            raise BackendUnavailableError("it came back with other routes; restart the machine to use them")
        if any(len(mirror.contents) > MIRROR_BYTES for mirror in offer.offer.mirrors):
            call.cancel()
            raise BackendUnavailableError(f"it offered a mirror of more than {MIRROR_BYTES} bytes")
        self.mirrors = {mirror.name: bytearray(mirror.contents) for mirror in offer.offer.mirrors}
        offer.offer.ClearField("mirrors")
        self.offer, self.nodes = offer.offer, tuple(offer.offer.nodes)
        with self._lock:
            self._restore = None
            self._hello.moved = self._takes_back = False
            self.attached = True

    def _read(self) -> None:
        assert self._call is not None
        tap = self._tap
        for response in self._call:
            if tap is not None:
                tap.received(response)
            match response.WhichOneof("message"):
                case "reply" | "invoke" | "reset_done":
                    self._check_backlog(self._answers.qsize() + 1)
                    self._answers.put(response)
                case "saved_state":
                    if response.saved_state.last and self._held is None:
                        self._held = []  # What was pulsed before belongs to the saved machine, what comes now does not.
                    self._answers.put(response)
                case "acknowledge":
                    self._acknowledge(response.acknowledge)
                case "interrupt" | "dirty" | "action":
                    if not self._is_held(response):
                        self._take(response)
                case "memory_read":
                    self._check_backlog(self._outgoing.qsize())
                    self._outgoing.put(self._memory_read(response.memory_read))
                case "memory_write":
                    self._check_backlog(self._outgoing.qsize())
                    self._outgoing.put(self._memory_write(response.memory_write))
                case "inventory":
                    self.nodes, self.devices = tuple(response.inventory.nodes), tuple(response.inventory.devices)
                case other:
                    raise BackendUnavailableError(f"it sent an unexpected message: {other}")

    def _check_backlog(self, waiting: int) -> None:
        """Bound what a back end can make this side keep; the stream ends and begins anew."""
        if waiting > MAX_UNASKED:
            assert self._call is not None
            self._call.cancel()
            raise BackendUnavailableError(f"it sent more than {MAX_UNASKED} messages that nobody waits for")

    def _is_held(self, response: pb.AttachResponse) -> bool:
        """Keep an event while the machine is being saved; False when it is not."""
        if self._held is None:
            return False
        with self._lock:
            if self._held is None:
                return False
            if len(self._held) >= MAX_HELD:
                raise BackendUnavailableError(f"it did more than {MAX_HELD} things on its own while the machine stood still")
            self._held.append(response)
            return True

    def _take(self, response: pb.AttachResponse) -> None:
        """What the back end does on its own."""
        match response.WhichOneof("message"):
            case "interrupt":
                self._events.interrupt(response.interrupt.source)
            case "dirty":
                self._events.memory_written(response.dirty.address, response.dirty.length)
            case "action":
                self._events.action(response.action)

    def _acknowledge(self, done: pb.Acknowledge) -> None:
        with self._lock:
            waiting = self._unacknowledged.setdefault(done.vcpu, deque())
            while waiting and waiting[0].trap.sequence <= done.sequence:
                posted = waiting.popleft()
                self._credit_used[posted.trap.route] -= posted.size
            self._acknowledged.notify_all()
            self._positions[done.vcpu] = max(done.sequence, self._positions.get(done.vcpu, 0))

    def _memory_read(self, request: pb.MemoryRead) -> pb.AttachRequest:
        result = pb.MemoryResult(id=request.id)
        if request.range.length <= REQUEST_BYTES:
            try:
                result.data = self._ram.read(request.range.address, request.range.length)
                result.ok = True
            except GuestAddressError as error:
                log.info("back end asked for memory outside RAM", backend=self.name, reason=str(error))
        return pb.AttachRequest(memory_result=result)

    def _memory_write(self, request: pb.MemoryWrite) -> pb.AttachRequest:
        address, data = request.block.address, request.block.data
        ok = address + len(data) <= self._ram.size
        if ok:
            self._ram.map[address : address + len(data)] = data
            self._events.memory_written(address, len(data))
        return pb.AttachRequest(memory_result=pb.MemoryResult(id=request.id, ok=ok))
