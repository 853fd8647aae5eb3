# SPDX-License-Identifier: GPL-2.0-or-later
"""What a link says to its back end, and what of it has to be said again when a connection was lost."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cpu_service.link.connection import Connection
from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.introduction import Introduction
from cpu_service.link.ledger import TrapLedger
from cpu_service.link.offer import BackendOffer
from splitvisor.rpc import trap_pb2 as pb

GATHER_S = 0.002
"""How long posted traps wait for more of their kind."""
BATCH_CALLS = 128
"""Posted traps after which a batch goes at once."""
MAX_UNREAD = 64
"""Requests that the back end has not taken when it asks for memory again; with more, the connection ends."""


@dataclass
class PostedCounts:
    """Traps that no vCPU waited for, so far."""

    traps: int = 0
    bytes: int = 0
    stalls: int = 0
    """Traps that were not posted for want of credit."""


class Outbox:
    """The way out of one link, over all its connections. Safe for threads.

    Args:
        introduction: what each connection begins with.
        offer: has the devices that the introduction names.
        ledger: of the traps.
    """

    def __init__(self, introduction: Introduction, offer: BackendOffer, ledger: TrapLedger) -> None:
        self.connection: Connection | None = None
        """From its introduction to its end."""
        self.attached = False
        """The back end has taken the introduction."""
        self.posted = PostedCounts()
        self._introduction, self._offer, self._ledger = introduction, offer, ledger
        self._lock = threading.Lock()
        """Of everything that is said or remembered for the next connection."""
        self._acknowledged = threading.Condition(self._lock)
        self._batch: list[pb.Trap] = []
        self._batch_due = math.inf
        """When the batch goes, by time.monotonic()."""
        self._outstanding: pb.AttachRequest | None = None

    # Traps and resets.

    def ask(self, request: pb.AttachRequest) -> None:
        """Send a request behind what was posted, and at the beginning of every connection until answered()."""
        with self._lock:
            self._queue_batch()
            self._outstanding = request
            if self.connection is not None:
                self.connection.send(request)

    def answered(self) -> None:
        """The request has its answer, or nobody waits for it any more."""
        self._outstanding = None

    def take_credit(self, route: int, size: int) -> bool:
        """Take so many bytes of the route's credit; False when it has no more."""
        with self._lock:
            if self._ledger.take_credit(route, size, self._offer.credit_bytes[route]):
                return True
            self.posted.stalls += 1
            return False

    def post(self, trap: pb.Trap, size: int, *, at_once: bool) -> None:
        """Send a posted trap, which has taken so much credit; if not at once, the link's thread does it before long."""
        with self._lock:
            self.posted.traps += 1
            self.posted.bytes += size
            self._ledger.posted(trap, size)
            self._batch.append(trap)
            if at_once:
                self._queue_batch()
                if self.connection is not None:
                    self.connection.flush()
            elif len(self._batch) >= BATCH_CALLS:
                self._queue_batch()
                if self.connection is not None:
                    self.connection.wake()
            elif self._batch_due == math.inf:
                self._batch_due = time.monotonic() + GATHER_S
                if self.connection is not None:
                    self.connection.wake()

    def wait_for_credit(self, timeout: float) -> None:
        """Wait until the back end acknowledges posted traps, timeout seconds at most."""
        with self._lock:
            self._acknowledged.wait(timeout)

    def acknowledge(self, done: pb.Acknowledge) -> None:
        """Posted traps of a vCPU took effect."""
        with self._lock:
            sequence, waiting = done.sequence, self._outstanding
            if waiting is not None and waiting.HasField("trap") and waiting.trap.vcpu == done.vcpu:
                # Its reply is what tells that it is done: before, a back end must not be told that it may forget the reply.
                sequence = min(sequence, waiting.trap.sequence - 1)
            self._ledger.acknowledged(done.vcpu, sequence)
            self._acknowledged.notify_all()

    def wait_acknowledged(self, go_on: Callable[[], bool], look_s: float) -> None:
        """Send what was posted and wait until all of it took effect; looks every look_s seconds whether to go on."""
        with self._lock:
            self._queue_batch()
            if self.connection is not None:
                self.connection.flush()
            while self._ledger.unacknowledged and go_on():
                self._acknowledged.wait(look_s)

    # What is said once. Without a connection it has no effect: an introduction says what has to be said again.

    def send(self, request: pb.AttachRequest) -> None:
        """Send a request."""
        with self._lock:
            if self.connection is not None:
                self.connection.send(request)

    def send_memory(self, result: pb.AttachRequest) -> None:
        """Send the answer to a memory request. Raises BackendUnavailableError when the back end does not read them."""
        with self._lock:
            if (connection := self.connection) is None:
                return
            if connection.unsent >= MAX_UNREAD:
                raise BackendUnavailableError(f"it asks for memory and does not read: {MAX_UNREAD} requests wait for it")
            connection.send(result)

    def send_due(self) -> float:
        """Send the batch if it is time. Returns the seconds until it will be."""
        with self._lock:
            if self._batch_due <= time.monotonic():
                self._queue_batch()
        if self.connection is not None:
            self.connection.flush()
        return self._batch_due - time.monotonic()

    def finish(self, reason: str) -> None:
        """Detach: nothing follows."""
        with self._lock:
            self._queue_batch()
            if self.connection is not None:
                self.connection.send(pb.AttachRequest(detach=pb.Detach(reason=reason)))
                self.connection.finish()

    def _queue_batch(self) -> None:
        """Put what was gathered before whatever is sent next. With the lock held."""
        self._batch_due = math.inf
        batch, self._batch = self._batch, []
        if batch and self.connection is not None:
            self.connection.queue(pb.AttachRequest(posted=pb.PostedBatch(traps=batch)))

    # Standing still and going on.

    def resume(self) -> None:
        """Say that a restored machine runs."""
        with self._lock:
            self._introduction.stands_still = False
            if self.connection is not None:
                self.connection.send(pb.AttachRequest(resumed=pb.Resumed()))

    def resume_saved(self) -> None:
        """Say that a saved machine goes on; a back end that is away hears it from the introduction."""
        with self._lock:
            if self.attached and self.connection is not None:
                self.connection.send(pb.AttachRequest(resumed=pb.Resumed()))

    def pause(self) -> None:
        """The machine is paused: the next introduction says so."""
        with self._lock:
            self._introduction.paused = True

    def go_on(self) -> None:
        """The machine goes on after a pause; a back end that is away hears it from the introduction."""
        with self._lock:
            self._introduction.paused = False
            if self._offer.pauses and self.connection is not None:
                self.connection.send(pb.AttachRequest(continued=pb.Continued()))

    def take_back(self, state: bytes, incarnation: int) -> None:
        """Have a back end that is away start its session with a state; see Introduction."""
        with self._lock:
            if not self.attached:
                self._introduction.take_back(state, incarnation)

    # Connections; the link's thread.

    def open(self, connection: Connection, socket_path: str) -> None:
        """Begin with a connection: introduce the VM, and say what the last one may have lost.

        socket_path: of a unix socket that the connection may move to; empty: there is none.
        """
        with self._lock:
            self._batch, self._batch_due = [], math.inf
            outstanding = self._outstanding  # Before the positions: it may be answered at this moment, and then they have it.
            requests = self._introduction.requests(self._offer.devices, self._ledger.positions, socket_path)
            unacknowledged = self._ledger.unacknowledged
            requests += [
                pb.AttachRequest(posted=pb.PostedBatch(traps=unacknowledged[start : start + BATCH_CALLS]))
                for start in range(0, len(unacknowledged), BATCH_CALLS)
            ]
            if outstanding is not None:
                requests.append(outstanding)
            for request in requests:
                connection.queue(request)
            self.connection = connection
            connection.flush()

    def move(self, connection: socket.socket) -> None:
        """The back end has connected to the socket: say there what follows."""
        with self._lock:
            if self.connection is not None:
                self.connection.move(connection)

    def introduced(self) -> None:
        """The back end has taken the introduction."""
        with self._lock:
            self._introduction.taken()
            self.attached = True

    def lost(self) -> Connection | None:
        """The connection has ended. Returns it; nothing is sent on it any more."""
        with self._lock:
            self.attached = False
            connection, self.connection = self.connection, None
            return connection
