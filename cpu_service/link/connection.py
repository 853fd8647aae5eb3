# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to a back end, from the offer to its end.

Two threads read it, one at a time: the link's, and that of the vCPUs for as long as it waits for an answer or has nothing to do,
so that nobody has to wake it (docs/decisions/007).
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.wire import TrapWire
from splitvisor.rpc import trap_pb2 as pb

TAKE_OVER_S = 0.001
"""How long a vCPU that waits for an answer lets the link's thread finish what it reads."""


class MessageTap(Protocol):
    """Shown every message of a link, from the link's threads; messages do not change afterwards."""

    def sent(self, message: pb.AttachRequest) -> None:
        """A message is about to be sent."""

    def received(self, message: pb.AttachResponse) -> None:
        """A message has come, and nothing was done about it yet."""


class Connection:
    """A connection over a wire.

    Args:
        wire: open.
        take: takes each response, in the thread that reads; raises BackendUnavailableError when the connection shall end.
        tap: shown every message.
        cut_off: set when the link's thread shall end, whatever is under way.
    """

    def __init__(
        self, wire: TrapWire, take: Callable[[pb.AttachResponse], None], tap: MessageTap | None, cut_off: threading.Event
    ) -> None:
        self._wire, self._take, self._tap, self._cut_off = wire, take, tap, cut_off
        self._reading = threading.Lock()
        """Who has it reads the wire. Take it before any lock that is held for sending, never after."""
        self._early: Sequence[pb.AttachResponse] = ()
        """What came together with the offer."""
        self._broken: BackendUnavailableError | None = None
        """Why the connection shall end."""
        self._interrupted = self._closed = False

    # Any thread.

    def send(self, request: pb.AttachRequest) -> None:
        """Send a request, behind those that wait. An error shows when the connection is read."""
        if self._tap is not None:
            self._tap.sent(request)
        self._wire.send(request)

    def queue(self, request: pb.AttachRequest) -> None:
        """The same, but it waits for the next flush()."""
        if self._tap is not None:
            self._tap.sent(request)
        self._wire.queue(request)

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it."""
        self._wire.flush()

    @property
    def unsent(self) -> int:
        """Requests that the peer has given no room for yet."""
        return self._wire.unsent

    def move(self, connection: socket.socket) -> None:
        """Have the messages that follow go over a unix socket; nobody else sends meanwhile."""
        self._wire.move(connection)

    def finish(self) -> None:
        """Say that nothing follows what was sent."""
        self._wire.finish()

    def wake(self) -> None:
        """Have the link's thread look for what there is to do."""
        self._wire.wake()

    def interrupt(self) -> None:
        """Let read_until() return at once, now and ever after."""
        self._interrupted = True
        self._wire.interrupt()

    # The vCPU's thread.

    def read_until(self, done: Callable[[], bool], deadline: float) -> None:
        """Read until done; return early when the link's thread reads or has to see to the end, and at the deadline."""
        if not self._reading.acquire(timeout=TAKE_OVER_S):
            return
        try:
            if not self._is_good:
                return
            wire = self._wire
            wire.take_over()
            while not done() and self._is_good and (left := deadline - time.monotonic()) > 0:
                self._take_all(wire.read_within(left))
            wire.listen()
            if not self._is_good:
                wire.wake()
        finally:
            self._reading.release()

    def read_idle(self, done: Callable[[], bool], deadline: float, nudge: int) -> bool:
        """Read while no vCPU can run.

        Args:
            done: whether there is something else to do; asked after everything that came.
            deadline: of time.monotonic(), in seconds.
            nudge: a descriptor that can be read when done may have changed.

        Returns False at once when another thread reads, or there is nothing more to read.
        """
        if not self._reading.acquire(blocking=False):
            return False
        try:
            wire = self._wire
            if not self._is_good or wire.is_ending:
                return False
            wire.take_over()
            while not done() and (left := deadline - time.monotonic()) > 0:
                self._take_all(wire.read_idle(left, nudge))
                if not self._is_good or wire.is_ending:
                    wire.wake()
                    break
            wire.listen()
            return True
        finally:
            self._reading.release()

    @property
    def _is_good(self) -> bool:
        """Whether there can be more to read."""
        return self._wire.ended is None and self._broken is None and not (self._interrupted or self._closed)

    # The link's thread.

    def offer(self) -> pb.Offer:
        """Wait for the first response and return it. Raises WireEndedError and BackendUnavailableError."""
        wire = self._wire
        while not (responses := wire.read()):
            if wire.ended is not None:
                raise wire.ended
            wire.listen()
            wire.wait(math.inf)
            if self._cut_off.is_set():
                raise BackendUnavailableError("closed")
        first, *self._early = responses
        if self._tap is not None:
            self._tap.received(first)
        if not first.HasField("offer"):
            raise BackendUnavailableError("it did not send an offer first")
        return first.offer

    def take_early(self) -> None:
        """Take what came together with the offer."""
        self._take_all(self._early)

    def read_to_end(self, send_due: Callable[[], float]) -> None:
        """Read, and send what is due, until the connection ends.

        Args:
            send_due: sends what is due now and returns the seconds until more will be.

        Raises WireEndedError and BackendUnavailableError; returns when cut off.
        """
        wire = self._wire
        while not self._cut_off.is_set():
            if self._reading.acquire(blocking=False):  # Else the vCPU reads.
                try:
                    self._take_all(wire.read())
                    if self._broken is not None:
                        raise self._broken
                    if wire.ended is not None:
                        raise wire.ended
                    wire.listen()
                finally:
                    self._reading.release()
            wire.wait(send_due())

    def _take_all(self, responses: Sequence[pb.AttachResponse]) -> None:
        tap = self._tap
        try:
            for response in responses:
                if tap is not None:
                    tap.received(response)
                self._take(response)
        except BackendUnavailableError as error:
            self._broken = error

    def close(self) -> None:
        """Let go of the wire; nobody sends any more."""
        self._closed = True
        self._wire.interrupt()
        with self._reading:
            self._wire.close()
