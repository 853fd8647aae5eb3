# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps a back end attached: the link's thread, which connects, reads to the end of the connection, and connects again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import structlog

from cpu_service.link.connection import Connection, MessageTap
from cpu_service.link.errors import BackendRefusedError, BackendUnavailableError
from cpu_service.link.offer import BackendOffer
from cpu_service.link.outbox import Outbox
from cpu_service.link.wire import TrapWire, WireEndedError
from splitvisor.net.addresses import parse_address
from splitvisor.net.tls_client import ClientContext
from splitvisor.net.tls_files import tls_files
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.features import UnknownFeatureError
from splitvisor.trap.trap_socket import TrapListener

FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.01, 0.25
CLOSE_S, CUT_OFF_S = 1.5, 0.5
"""How long what was sent may take to arrive at the end, and then the link's thread to end."""
REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
"""What a back end says that will say so again."""
_OWN_WORDS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)

log = structlog.get_logger()


class Attachment:
    """The connections to one back end, one after the other.

    Args:
        name: the back end's name in the configuration.
        address: its gRPC target.
        outbox: speaks on each connection.
        offer: takes what each connection offers.
        take: takes each response; see Connection.
        changed: told when a connection came or went.
        tap: shown every message.
        socket_directory: where a back end on this host finds a unix socket to move to; None: connections stay on gRPC.

    Raises AddressError when the address must not be spoken to, or not without a certificate.
    """

    def __init__(
        self,
        name: str,
        address: str,
        outbox: Outbox,
        offer: BackendOffer,
        take: Callable[[pb.AttachResponse], None],
        changed: Callable[[], None],
        tap: MessageTap | None = None,
        socket_directory: Path | None = None,
    ) -> None:
        self._name, self._target = name, address
        self._outbox, self._offer, self._take, self._changed, self._tap = outbox, offer, take, changed, tap
        self._socket_directory = socket_directory
        self.reconnects = 0
        self.failure = ""
        """Why there is no connection, or the last one ended."""
        self._address = parse_address(address)
        self.tls = ClientContext(tls_files(address)) if self._address.tls else None
        self._was_attached = self._refused = False
        self._settled = threading.Event()
        """It was attached, or refused."""
        self._closing = threading.Event()
        """No connection follows."""
        self._may_connect = threading.Event()
        self._may_connect.set()
        self._cut_off = threading.Event()
        """The link's thread ends now, whatever is under way."""
        self._thread = threading.Thread(target=self._run, name=f"link-{name}", daemon=True)

    def begin(self) -> None:
        """Start to connect."""
        self._thread.start()

    def wait(self, timeout: float) -> None:
        """Wait for the first connection.

        Raises BackendUnavailableError after timeout seconds, or at once when the back end is not for this machine, and
        BackendRefusedError when it does not take the devices or the state that it is to have, or one side does not know a feature
        of the other. Nothing follows then.
        """
        if self._settled.wait(timeout) and self._was_attached:
            return
        failure = self.failure or "no answer"  # What close() cancels is no reason.
        self.close("not attached")
        if self._refused:
            raise BackendRefusedError(f"back end {self._name} at {self._target}: {failure}")
        raise BackendUnavailableError(f"back end {self._name} at {self._target}: {failure}", "start it or correct its address")

    def hold(self) -> None:
        """Do not connect again until release(), should the connection be lost."""
        self._may_connect.clear()

    def release(self) -> None:
        """End hold()."""
        self._may_connect.set()

    def close(self, reason: str) -> None:
        """Detach, let what was sent arrive, and end the link's thread; waits at most two seconds."""
        self._closing.set()
        self._may_connect.set()
        self._outbox.finish(reason)
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S if self._outbox.attached else 0.0)
            self._cut_off.set()
            if (connection := self._outbox.connection) is not None:
                connection.wake()
            self._thread.join(CUT_OFF_S)

    # The link's thread.

    def _run(self) -> None:
        backoff = FIRST_BACKOFF_S
        for attempt in itertools.count():
            try:
                connection = self._connect()
                backoff = FIRST_BACKOFF_S
                if attempt:
                    self.reconnects += 1
                    log.info("back end attached again", backend=self._name)
                self._settled.set()
                self._changed()
                connection.read_to_end(self._outbox.send_due)
            except WireEndedError as error:
                self.failure = _explained(error)
                if error.code in REFUSALS:
                    self._refused = error.code in _OWN_WORDS
                    self._settled.set()
            except UnknownFeatureError as error:
                self.failure, self._refused = str(error), True
                self._settled.set()
            except BackendUnavailableError as error:
                if self._was_attached and not self._outbox.attached and self.failure != str(error):
                    log.warning("back end is there again and not taken", backend=self._name, reason=str(error))
                self.failure = str(error)
            was_attached = self._outbox.attached
            if (lost := self._outbox.lost()) is not None:
                lost.close()
            if self._closing.is_set():
                return
            if was_attached:
                log.warning("back end lost, reconnecting", backend=self._name, reason=self.failure)
                self._changed()
            self._may_connect.wait()
            if self._closing.wait(backoff):
                return
            backoff = min(2 * backoff, LAST_BACKOFF_S)

    def _connect(self) -> Connection:
        """Open a connection, introduce the VM, and take the offer.

        Raises WireEndedError, BackendUnavailableError and UnknownFeatureError.
        """
        wire = TrapWire(self._address, None if self.tls is None else self.tls.newest())
        connection = Connection(wire, self._take, self._tap, self._cut_off)
        listener = self._listen()
        try:
            self._outbox.open(connection, "" if listener is None else str(listener.path))
            offer = connection.offer()
            if offer.socket_connected:
                self._move(listener)
        finally:
            if listener is not None:
                listener.close()
        self._offer.take(offer)
        connection.take_early()
        self._outbox.introduced()
        self._was_attached = True
        return connection

    def _listen(self) -> TrapListener | None:
        """Listen for a back end on this host; None: there is no directory that it would see, or no socket can be there."""
        if self._socket_directory is None:
            return None
        try:
            return TrapListener(self._socket_directory)
        except OSError as error:
            log.warning("trap streams stay on gRPC", backend=self._name, reason=str(error))
            return None

    def _move(self, listener: TrapListener | None) -> None:
        """Move the connection to the socket. Raises BackendUnavailableError."""
        try:
            if listener is None:
                raise OSError("there is no socket")
            self._outbox.move(listener.accept())
        except OSError as error:
            raise BackendUnavailableError(f"it says that it is connected to the socket of its trap stream: {error}") from error


def _explained(error: WireEndedError) -> str:
    """Return in one line why a connection ended: a back end's own words, or what kind of end it was."""
    return error.details if error.code in _OWN_WORDS else f"{error.code.name.lower().replace('_', ' ')}: {error.details}"
