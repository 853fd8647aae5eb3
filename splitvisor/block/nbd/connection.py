# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to an NBD server, after its handshake: requests out, answers in, many at a time.

The event loop says when there is something to receive or room to send; each system call moves between the socket and the
transfer's own memory. As none of them runs on another thread, memory is left alone from the moment that a request is abandoned.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress

from splitvisor.block.buffers import Buffers
from splitvisor.block.nbd.wire import (
    CHUNK_DONE,
    ERROR_BIT,
    SHUTDOWN,
    SIMPLE,
    SIMPLE_MAGIC,
    STRUCTURED,
    STRUCTURED_MAGIC,
    Chunk,
    Command,
    Export,
    ProtocolError,
    Request,
    error_of,
)

VECTORS = 512
"""Pieces of memory in one system call; the kernel takes 1024."""
TURN_BYTES = 4 << 20
"""That are received before others have their turn."""
_SCRATCH = 64 << 10
_REPLY_MESSAGE = 4096
"""Of an error for people."""

_Receiver = Generator[int, memoryview, None]


class Connection:
    """A connection.

    Args:
        sock: its socket, after the handshake. It is closed with the connection.
        export: what the server says of it.
        name: of the disk, for errors.
        answered: is called with the cookie of a request that has been answered; it sets the request's future.
        lost: is called once, with the reason, when no more answers can be expected. Not after close().
    """

    def __init__(
        self,
        sock: socket.socket,
        export: Export,
        name: str,
        answered: Callable[[int, Request, Exception | None], None],
        lost: Callable[[OSError], None],
    ) -> None:
        self.export = export
        self._socket, self._name, self._answered, self._lost = sock, name, answered, lost
        self._loop = asyncio.get_running_loop()
        self._requests: dict[int, Request] = {}
        self._out: deque[memoryview] = deque()
        self._writing = False
        self._open = True
        self._scratch = memoryview(bytearray(_SCRATCH))
        self._head = memoryview(bytearray(32))
        self._payload: Request | None = None
        """Whose data is being received; None: something else is."""
        self._place = 0
        """Where in that request's memory."""
        self._wanted = 0
        """Bytes until the receiver goes on."""
        self._have = 0
        self._receiver = self._receive()
        self._wanted = next(self._receiver)
        self._loop.add_reader(sock, self._readable)

    def submit(self, cookie: int, request: Request) -> None:
        """Send a request; cookie: of no other one that is under way."""
        if not self._open:
            return
        request.filled, request.failure = 0, 0
        request.sent_at = self._loop.time()
        self._requests[cookie] = request
        self._out.append(memoryview(request.head(cookie)))
        if request.data is not None:
            self._out.extend(request.data.pieces)
        if not self._writing:
            self._writable()

    @property
    def oldest(self) -> float | None:
        """When the request was sent that waits longest; None: none waits."""
        return next(iter(self._requests.values())).sent_at if self._requests else None

    def close(self) -> None:
        """Say good-bye, and close. Requests without an answer stay so."""
        if self._open:
            if not self._out:
                with suppress(OSError):
                    self._socket.send(Request(Command.DISCONNECT, 0, 0, 0).head(0))
            self._end()

    def fail(self, error: OSError) -> None:
        """Close for a reason, which `lost` gets."""
        if self._open:
            self._end()
            self._lost(error)

    def _end(self) -> None:
        self._open = False
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._out.clear()
        self._requests.clear()
        self._payload = None

    def _writable(self) -> None:
        out = self._out
        try:
            while out:
                pieces = [out[index] for index in range(min(len(out), VECTORS))]
                sent = self._socket.sendmsg(pieces)
                while out and sent >= len(out[0]):
                    sent -= len(out.popleft())
                if sent:
                    out[0] = out[0][sent:]
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._writable)
            return
        except OSError as error:
            self._loop.call_soon(self.fail, error)  # Not while somebody submits.
            out.clear()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        budget = TURN_BYTES
        try:
            while self._open and budget > 0:
                count = self._socket.recvmsg_into(self._targets())[0]
                if not count:
                    raise ConnectionResetError("the NBD server closed the connection")
                budget -= count
                self._have += count
                if self._have == self._wanted:
                    self._have = 0
                    self._wanted = self._receiver.send(self._head)
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(error)

    def _targets(self) -> list[memoryview]:
        """Where the next bytes belong."""
        rest = self._wanted - self._have
        request = self._payload
        if request is None:
            return [self._head[self._have : self._wanted]]
        if request.into is None:
            return [self._scratch[:rest]]
        return list(request.into.part(self._place + self._have, rest).pieces[:VECTORS])

    # What follows yields how many bytes it needs next, and is given a view that begins with them.

    def _receive(self) -> _Receiver:
        while True:
            head = yield 4
            magic = int.from_bytes(head[:4], "big")
            if magic == SIMPLE_MAGIC:
                yield from self._simple()
            elif magic == STRUCTURED_MAGIC and self.export.structured:
                yield from self._chunk()
            else:
                raise ProtocolError(f"a reply begins with {magic:#010x}")

    def _simple(self) -> _Receiver:
        head = yield SIMPLE.size - 4
        code, cookie = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:12], "big")
        request = self._request(cookie)
        if request.command is Command.READ:
            if self.export.structured:
                raise ProtocolError("a read is answered without chunks")
            if not code:
                yield from self._data(request, 0, request.length)
        request.failure = code
        self._done(cookie, request)

    def _chunk(self) -> _Receiver:
        head = yield STRUCTURED.size - 4
        flags, kind = int.from_bytes(head[:2], "big"), int.from_bytes(head[2:4], "big")
        cookie, length = int.from_bytes(head[4:12], "big"), int.from_bytes(head[12:16], "big")
        request = self._request(cookie)
        if kind & ERROR_BIT:
            yield from self._error(request, length)
        elif kind == Chunk.NONE:
            if length or not flags & CHUNK_DONE:
                raise ProtocolError("a chunk of nothing has something")
        elif request.command is not Command.READ:
            raise ProtocolError("something else than a read is answered with data")
        elif kind == Chunk.DATA and length > 8:
            head = yield 8
            offset = int.from_bytes(head[:8], "big")
            yield from self._data(request, self._within(request, offset, length - 8), length - 8)
        elif kind == Chunk.HOLE and length == 12:
            head = yield 12
            offset, zeroes = int.from_bytes(head[:8], "big"), int.from_bytes(head[8:12], "big")
            place = self._within(request, offset, zeroes)
            if request.into is not None:
                clear(request.into.part(place, zeroes))
        else:
            raise ProtocolError(f"a chunk of kind {kind:#x} has {length} bytes")
        if flags & CHUNK_DONE:
            if request.command is Command.READ and not request.failure and request.filled != request.length:
                raise ProtocolError(f"a read of {request.length} bytes is answered with {request.filled}")
            self._done(cookie, request)

    def _error(self, request: Request, length: int) -> _Receiver:
        if not 6 <= length <= 14 + _REPLY_MESSAGE:
            raise ProtocolError(f"an error has {length} bytes")
        head = yield 6
        code = int.from_bytes(head[:4], "big")
        if not code:
            raise ProtocolError("an error has no number")
        request.failure = request.failure or code
        rest = length - 6
        while rest:
            part = min(rest, len(self._head))
            yield part
            rest -= part

    def _within(self, request: Request, offset: int, length: int) -> int:
        """Return where in a request's memory a chunk belongs."""
        place = offset - request.offset
        if not length or place < 0 or place + length > request.length or request.filled + length > request.length:
            raise ProtocolError(f"a chunk is at {offset} with {length} bytes, not in its read")
        request.filled += length
        return place

    def _data(self, request: Request, place: int, length: int) -> _Receiver:
        self._payload, self._place = request, place
        yield length
        self._payload = None

    def _request(self, cookie: int) -> Request:
        request = self._requests.get(cookie)
        if request is None:
            raise ProtocolError("it answers what was not asked")
        return request

    def _done(self, cookie: int, request: Request) -> None:
        if request.failure == SHUTDOWN:
            raise ConnectionResetError("the NBD server shuts down")
        del self._requests[cookie]
        self._answered(cookie, request, error_of(request.failure, self._name) if request.failure else None)


def clear(buffers: Buffers) -> None:
    """Make memory zero."""
    for piece in buffers.pieces:
        piece[:] = bytes(len(piece))
