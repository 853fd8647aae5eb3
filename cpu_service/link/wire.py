# SPDX-License-Identifier: GPL-2.0-or-later
"""The socket of one connection to a back end, with TLS where the address says so, and the gRPC stream on it.

Any thread may send. One thread at a time reads: usually the link's, which waits in wait(); a vCPU that waits for an answer takes
the reading over for as long, so that nobody has to wake it (docs/decisions/007).

On one host the messages move to a unix socket of their own (docs/decisions/013). The gRPC stream then tells how it ends, and
whether the peer lives.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from contextlib import suppress

import grpc
from google.protobuf.message import DecodeError

from cpu_service.link.direct import DirectStream
from cpu_service.link.grpc_stream import GrpcStream
from cpu_service.link.readiness import wait_ready
from splitvisor.net.addresses import Address
from splitvisor.net.channels import explain_failure
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.trap_socket import SocketFramingError

PATH = "/splitvisor.trap.v1.TrapService/Attach"
CONNECT_S = 5.0
"""For a connection and its TLS handshake."""
QUIET_S, PONG_S = 0.75, 0.75
"""After so long without a byte the peer is asked for a sign of life, and after so long more it is taken for dead."""
READ_BYTES = 256 << 10
"""What one look takes from the socket."""
SPIN_S = 0.0004
"""So long a vCPU looks for its answer before it sleeps: to wake it costs more than most answers take. See docs/decisions/008."""
BRISK_S, LONG_S = 2 * SPIN_S, 8 * SPIN_S
"""It sleeps at once while answers take longer than the first on the average; none counts for more than the second."""
LAST_WORDS_S = 0.5
"""How long the gRPC stream may take to say why the socket has ended."""
TLS_OUTPUT_BYTES = 64 << 10
"""Nothing more is wrapped while so much waits for the socket."""


class WireEndedError(Exception):
    """The connection or the stream on it has ended, or there never was one."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class TrapWire:
    """A connection to a back end.

    Args:
        address: the back end's.
        context: for TLS, when the address wants it.

    Raises WireEndedError when there is nobody, within CONNECT_S.
    """

    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        self.ended: WireEndedError | None = None
        """Why no more can come. Set by read(), after what had come."""
        self._socket = _connect(address)
        try:
            self._tls = None if context is None else _Tls(context, address, self._socket)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        authority = "localhost" if address.socket_path is not None else address.target
        self._stream = GrpcStream(PATH, authority, secure=context is not None)
        self._lock = threading.Lock()
        """Of the stream, the TLS state and what is sent. Never held for long."""
        self._unsent: deque[pb.AttachRequest] = deque()
        self._failure: WireEndedError | None = None
        self._closed = self._finishing = False
        self._direct: DirectStream | None = None
        """Where the messages have moved to, or are about to."""
        self._stream_is_ready = True
        """The gRPC stream may have something."""
        self._usual_wait = 0.0
        """Seconds in read_within() on the average of the last few."""
        self._heard_at = self._asked_at = time.monotonic()
        self._wake, self._interrupt = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
        self._look = os.eventfd(0, os.EFD_NONBLOCK)
        """Lets read_idle() look once."""
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._epoll.register(self._socket, select.EPOLLIN | select.EPOLLONESHOT)
        self._poll = select.poll()
        self._poll.register(self._interrupt, select.POLLIN)
        self.flush()

    # Any thread.

    def send(self, request: pb.AttachRequest) -> None:
        """Send a request, behind those that wait. An error shows when the wire is read."""
        self.queue(request)
        self.flush()

    def queue(self, request: pb.AttachRequest) -> None:
        """The same, but it waits for the next flush()."""
        (self._unsent if self._direct is None else self._direct.unsent).append(request)

    @property
    def unsent(self) -> int:
        """Requests that the peer has given no room for yet."""
        return len(self._unsent if self._direct is None else self._direct.unsent)

    def move(self, connection: socket.socket) -> None:
        """Have the messages that follow go over a connected unix socket. Whoever sends must not do so at the same time."""
        with self._lock:
            self._unsent.append(pb.AttachRequest(move=pb.Move()))
            self._direct = DirectStream(connection)
            self._epoll.register(connection, select.EPOLLONESHOT)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it."""
        with self._lock:
            self._flush()
            if self._is_blocked or (self._direct is not None and self._direct.is_blocked):
                self._signal(self._wake)  # Whoever reads has to look for room too.
                self._signal(self._look)

    def finish(self) -> None:
        """Say that nothing follows what was sent."""
        self._finishing = True
        self.flush()

    def wake(self) -> None:
        """Let wait() return."""
        with self._lock:
            self._signal(self._wake)

    def interrupt(self) -> None:
        """Let read_within() and read_idle() return at once, now and ever after."""
        with self._lock:
            self._signal(self._interrupt)

    def _signal(self, descriptor: int) -> None:
        if not self._closed:
            os.eventfd_write(descriptor, 1)

    # The link's thread.

    def wait(self, timeout: float) -> None:
        """Wait until there is something to read or to do, timeout seconds at most. Looks after the peer meanwhile."""
        for descriptor, _ in self._epoll.poll(max(0.0, min(timeout, self._look_after()))):
            if descriptor == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif descriptor == self._socket.fileno():
                self._stream_is_ready = True

    def _look_after(self) -> float:
        """Ask a quiet peer for a sign of life; one that gives none has ended. Returns the seconds until the next look."""
        with self._lock:
            now = time.monotonic()
            if not self._stream.pong_awaited:
                if now < self._heard_at + QUIET_S:
                    return self._heard_at + QUIET_S - now
                self._stream.ping()
                self._flush()
                self._asked_at = now
                return PONG_S
            dead_at = max(self._asked_at, self._heard_at) + PONG_S
            if now < dead_at:
                return dead_at - now
            if select.select([self._socket], [], [], 0)[0]:  # It was this process that stood still.
                self._heard_at = now
            elif self._failure is None:
                self._failure = WireEndedError(grpc.StatusCode.UNAVAILABLE, f"it gave no sign of life for {PONG_S} s")
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # Whoever reads sees the end.
            return 0.0

    # Who reads.

    def listen(self) -> None:
        """The reader lets wait() tell of what comes; once, until it has read and listens again."""
        direct = self._direct
        if direct is not None and not direct.has_ended:
            incoming = select.EPOLLIN if direct.comes else 0
            blocked = select.EPOLLOUT if direct.is_blocked else 0
            self._epoll.modify(direct.socket, incoming | select.EPOLLONESHOT | blocked)
        blocked = select.EPOLLOUT if self._is_blocked else 0
        self._epoll.modify(self._socket, select.EPOLLIN | select.EPOLLONESHOT | blocked)

    def take_over(self) -> None:
        """The reader will look for itself: wait() does not tell of what comes."""
        direct = self._direct
        if direct is not None and not direct.has_ended:
            self._epoll.modify(direct.socket, select.EPOLLONESHOT)
        self._epoll.modify(self._socket, select.EPOLLONESHOT)

    def read_within(self, timeout: float) -> list[pb.AttachResponse]:
        """Wait for responses, timeout seconds at most, and return them; none after interrupt()."""
        direct = self._direct
        if direct is not None and direct.comes:
            self._poll.register(direct.socket, select.POLLIN | (select.POLLOUT if direct.is_blocked else 0))
        self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._is_blocked else 0))
        began = time.monotonic()
        ready = self._spin(began + SPIN_S) if self._usual_wait <= BRISK_S else []
        ready = ready or self._poll.poll(max(0.0, timeout) * 1000)
        waited = min(time.monotonic() - began, LONG_S)
        self._usual_wait += (waited - self._usual_wait) / 8
        stream = self._socket.fileno()
        self._stream_is_ready = self._stream_is_ready or any(descriptor == stream for descriptor, _ in ready)
        return self.read()

    def read_idle(self, timeout: float, nudge: int) -> list[pb.AttachResponse]:
        """The same while no vCPU can run: without looking first, and not rounded to milliseconds.

        Args:
            timeout: seconds.
            nudge: a descriptor that ends the wait when it can be read.
        """
        direct, stream = self._direct, self._socket.fileno()
        wanted = [(self._interrupt, select.POLLIN), (nudge, select.POLLIN), (self._look, select.POLLIN)]
        wanted.append((stream, select.POLLIN | (select.POLLOUT if self._is_blocked else 0)))
        if direct is not None and direct.comes:
            wanted.append((direct.socket.fileno(), select.POLLIN | (select.POLLOUT if direct.is_blocked else 0)))
        ready = wait_ready(wanted, timeout)
        self._stream_is_ready = self._stream_is_ready or stream in ready
        if self._look in ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._look)
        return self.read(to_the_end=False) if ready else []

    def _spin(self, until: float) -> list[tuple[int, int]]:
        """Look again and again, which lets other threads go on between. Returns what there was in time."""
        poll, now = self._poll.poll, time.monotonic
        while not (ready := poll(0)):
            if now() > until:
                return []
            os.sched_yield()  # The back end's thread may have been given this processor.
        return ready

    @property
    def is_ending(self) -> bool:
        """The socket of the messages has ended: the link's thread has to hear why."""
        return self._direct is not None and self._direct.has_ended

    def read(self, *, to_the_end: bool = True) -> list[pb.AttachResponse]:
        """Return the responses that have come.

        to_the_end: when the socket of the messages has ended, wait for what the gRPC stream says of it; see `is_ending`.
        """
        direct = self._direct
        responses: list[pb.AttachResponse] = []
        if direct is None or not direct.comes or self._stream_is_ready:
            responses = self._read_stream()
            self._stream_is_ready = False
        if direct is not None:
            if responses and responses[-1].HasField("move"):
                direct.comes = True
                responses.pop()
            if direct.comes and not direct.has_ended and self.ended is None:
                responses += self._read_direct(direct)
            if direct.has_ended and to_the_end and self.ended is None:
                self._hear_last_words(direct)
        return responses

    def _read_stream(self) -> list[pb.AttachResponse]:
        """Return what has come over the gRPC stream."""
        data: bytes | None = None
        error: OSError | None = None
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            pass
        except OSError as failed:
            error = failed
        messages: list[bytes] = []
        with self._lock:
            stream = self._stream
            if data:
                self._heard_at = time.monotonic()
                try:
                    messages = stream.receive(data if self._tls is None else self._tls.unwrap(data))
                except OSError as failed:
                    error = failed
            if error is not None or data == b"":
                self._fail(error)
            self._flush()
            if stream.end is not None:
                self.ended = WireEndedError(stream.end.code, stream.end.details)
            else:
                self.ended = self._failure
        return self._parsed(messages)

    def _read_direct(self, direct: DirectStream) -> list[pb.AttachResponse]:
        """Return what has come over the socket."""
        try:
            messages = direct.read()
        except SocketFramingError as error:
            self.ended = WireEndedError(grpc.StatusCode.INTERNAL, str(error))
            return []
        if direct.is_blocked:
            with self._lock:
                direct.flush()
        if messages:
            self._heard_at = time.monotonic()
        return self._parsed(messages)

    def _hear_last_words(self, direct: DirectStream) -> None:
        """The socket has ended: the gRPC stream does so, too, and knows why."""
        self._epoll.unregister(direct.socket)
        with suppress(KeyError):
            self._poll.unregister(direct.socket)
        until = time.monotonic() + LAST_WORDS_S
        while self.ended is None and (left := until - time.monotonic()) > 0:
            select.select([self._socket], [], [], left)
            self._read_stream()
        if self.ended is None:
            self.ended = WireEndedError(grpc.StatusCode.UNAVAILABLE, "it closed the socket of its trap stream")

    def _parsed(self, messages: list[bytes]) -> list[pb.AttachResponse]:
        try:
            return [pb.AttachResponse.FromString(message) for message in messages]
        except DecodeError:
            self.ended = WireEndedError(grpc.StatusCode.INTERNAL, "it sent a message that is none")
            return []

    def close(self) -> None:
        """End the stream if it goes on, and let go of everything; what is done to it afterwards has no effect."""
        with self._lock:
            self._stream.cancel()
            self._flush()
            self._closed = True
            self._fail(None)
            self._epoll.close()
            self._socket.close()
            if self._direct is not None:
                self._direct.socket.close()
            os.close(self._wake)
            os.close(self._interrupt)
            os.close(self._look)

    # With the lock held.

    @property
    def _is_blocked(self) -> bool:
        """True: the socket of the gRPC stream takes no more for now."""
        return self._failure is None and bool(self._stream.output if self._tls is None else self._tls.output)

    def _flush(self) -> None:
        direct = self._direct
        if direct is not None:
            direct.flush()
        if direct is None or self._unsent or self._stream.output or self._finishing:
            self._flush_stream(direct)

    def _flush_stream(self, direct: DirectStream | None) -> None:
        stream, tls = self._stream, self._tls
        while self._failure is None:
            while self._unsent and stream.has_room and stream.end is None:
                stream.send(self._unsent.popleft().SerializeToString())
            if self._finishing and not self._unsent and (direct is None or not (direct.unsent or direct.is_blocked)):
                self._finishing = False
                stream.finish()
            try:
                if tls is None:
                    if not stream.output:
                        return
                    stream.wrote(self._socket.send(stream.output))
                else:
                    if stream.output and len(tls.output) < TLS_OUTPUT_BYTES:
                        stream.wrote(tls.wrap(stream.output))
                    if not tls.output:
                        return
                    del tls.output[: self._socket.send(tls.output)]
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError | None) -> None:
        """The connection has ended; None: the peer has closed it."""
        if self._failure is None:
            reason = "Socket closed" if error is None else _reason(error)
            details = reason if self._stream.heard else explain_failure(reason)
            self._failure = WireEndedError(grpc.StatusCode.UNAVAILABLE, details)


class _Tls:
    """The client's side of TLS on a connection.

    Args:
        context: has this side's certificate, and whose others are trusted.
        address: of the peer; its certificate must be for this host.
        connection: blocks, for the handshake.

    Raises WireEndedError when they do not become peers.
    """

    def __init__(self, context: ssl.SSLContext, address: Address, connection: socket.socket) -> None:
        self.output = bytearray()
        """What the socket has not taken yet."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=address.host)
        try:
            self._shake_hands(connection)
        except OSError as error:
            raise WireEndedError(grpc.StatusCode.UNAVAILABLE, explain_failure(_reason(error))) from error

    def _shake_hands(self, connection: socket.socket) -> None:
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                connection.sendall(self._outgoing.read())
                data = connection.recv(READ_BYTES)
                if not data:
                    raise ConnectionResetError("Socket closed") from None
                self._incoming.write(data)
            else:
                connection.sendall(self._outgoing.read())
                return

    def wrap(self, data: bytes | bytearray) -> int:
        """Put what is to be sent for data into output; return how much of data that is."""
        count = self._object.write(data)
        self.output += self._outgoing.read()
        return count

    def unwrap(self, data: bytes) -> bytes:
        """Return what came with data. Raises OSError."""
        self._incoming.write(data)
        plain = bytearray()
        with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self._object.read(READ_BYTES):
                plain += part
        return bytes(plain)


def _connect(address: Address) -> socket.socket:
    try:
        if address.socket_path is not None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(CONNECT_S)
                connection.connect(address.socket_path)
            except BaseException:
                connection.close()
                raise
            return connection
        connection = socket.create_connection((address.host, address.port), CONNECT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    except OSError as error:
        raise WireEndedError(grpc.StatusCode.UNAVAILABLE, _reason(error)) from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error)
    return error.strerror or str(error) or type(error).__name__
