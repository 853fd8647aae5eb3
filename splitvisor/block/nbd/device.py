# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that an NBD server has, whatever becomes of the connection.

When the connection is lost, a new one is made, with growing pauses. On it comes first what was written and not flushed
(unflushed.py), then every request that has no answer yet, in the order in which they were made. To send those again is safe:
to read, write or flush the same twice is as once, and as long as a write is not answered, its caller has written nothing that
depends on it. What was answered is not sent again, but for unflushed writes, whose newer successors follow them.

A request that cannot be answered for some time fails with EIO, and all further ones do so at once until there is a connection.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import SECTOR_BYTES, BlockDevice, BlockError
from splitvisor.block.nbd.connection import Connection
from splitvisor.block.nbd.handshake import negotiate
from splitvisor.block.nbd.unflushed import Kept, Unflushed
from splitvisor.block.nbd.wire import Can, Command, CommandFlag, Export, Request
from splitvisor.block.outlast import outlast
from splitvisor.process.locks import InUseError
from splitvisor.process.logging import get_logger

log = get_logger(__name__)

REQUESTS = 64
"""That a server has at once, at most."""
PATIENCE_SECONDS = 30.0
"""How long requests wait for a new connection, and for an answer on one."""
DIAL_SECONDS = 10.0
"""For one connection and its handshake."""
PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds before the attempts to connect; the last counts for all further ones."""
RANGE_BYTES = 1 << 30
"""Of a request without data, at most: its length has 32 bits."""
ZERO_BYTES = 1 << 20
"""Written at once where a server cannot write zeroes by itself."""
_WRITES = (Command.WRITE, Command.WRITE_ZEROES)


class Dialer(Protocol):
    """Makes connections to one export."""

    name: str
    """Of the disk, for messages."""
    export: str

    async def connect(self) -> socket.socket:
        """Return a new connection. Raises OSError."""

    async def explain(self, error: OSError) -> OSError:
        """Return what is behind the failure of a connection or of its handshake."""

    async def hung_up(self) -> None:
        """Take notice that there is no connection any more. Returns when another one may be made."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds."""

    lost: float = PATIENCE_SECONDS
    """For a new connection."""
    answer: float = PATIENCE_SECONDS
    """For an answer, before the server counts as dead."""
    dial: float = DIAL_SECONDS


class NbdDevice(BlockDevice):
    """The disk. Made by open()."""

    def __init__(self, dialer: Dialer, patience: Patience) -> None:
        self.name = dialer.name
        self._dialer, self._patience = dialer, patience
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(REQUESTS)
        self._cookies = itertools.count(1)
        self._pending: dict[int, Request] = {}
        """All requests without an answer, in the order in which they were made."""
        self._unflushed = Unflushed()
        self._connection: Connection | None = None
        """Where requests are sent; None: they wait."""
        self._ended: asyncio.Future[OSError] = self._loop.create_future()
        self._gave_up: OSError | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self._handed_over = False
        self._answers = 0
        """On the newest connection."""

    @classmethod
    async def open(
        cls, dialer: Dialer, *, read_only: bool, patience: Patience | None = None, wait_for_lock: float = 0.0
    ) -> NbdDevice:
        """Return a disk once there is a connection. Raises OSError.

        Args:
            dialer: makes connections.
            read_only: refuse writes; without, an export that cannot be written is an error.
            patience: deadlines.
            wait_for_lock: seconds in which somebody else may still let go of the image.
        """
        device = cls(dialer, patience or Patience())
        device.read_only = read_only
        sock, export = await device._dial_for(wait_for_lock)
        if not read_only and export.can & Can.READ_ONLY:
            sock.close()
            await dialer.hung_up()
            raise OSError(errno.EROFS, "the NBD server lets nobody write there; give readonly", device.name)
        device._export = export
        device.size = export.size
        device.block_bytes = max(export.block_bytes, SECTOR_BYTES)
        device.can_discard = bool(export.can & Can.TRIM) and not read_only
        device.has_write_cache = bool(export.can & Can.FLUSH)
        device._adopt(sock, export)
        device._keeper = asyncio.create_task(device._keep())
        return device

    _export: Export

    # Transfers.

    async def read(self, offset: int, into: Buffers) -> None:
        """Fill the buffers. A read that is cancelled leaves the memory alone at once."""
        for place, length in parts(into.length, self._export.payload):
            request = Request(Command.READ, 0, offset + place, length, into=into.part(place, length))
            await self._answered(request)

    async def write(self, offset: int, data: Buffers, fua: bool = False) -> None:
        """Store the buffers. A write that is cancelled ends first; nothing else could say what it has done."""
        self._require_writable()
        flags = CommandFlag.FUA if fua and self._export.can & Can.FUA else 0
        for place, length in parts(data.length, self._export.payload):
            part = data.part(place, length)
            await self._answered(Request(Command.WRITE, flags, offset + place, length, data=part))
        if fua and not flags:
            await self.flush()

    async def flush(self) -> None:
        """Make all writes that have ended durable."""
        if not self._export.can & Can.FLUSH:
            return
        mark = self._unflushed.mark
        await self._answered(Request(Command.FLUSH, 0, 0, 0))
        self._unflushed.flushed(mark)

    async def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        """Make a range zero."""
        self._require_writable()
        if not self._export.can & Can.WRITE_ZEROES:
            zeroes = memoryview(bytes(min(length, ZERO_BYTES)))
            for place, part in parts(length, len(zeroes)):
                await self.write(offset + place, Buffers([zeroes[:part]]))
            return
        flags = 0 if unmap else CommandFlag.NO_HOLE
        for place, part in parts(length, RANGE_BYTES):
            await self._answered(Request(Command.WRITE_ZEROES, flags, offset + place, part))

    async def discard(self, offset: int, length: int) -> None:
        """Let the server forget a range."""
        self._require_writable()
        if self._export.can & Can.TRIM:
            for place, part in parts(length, RANGE_BYTES):
                await self._answered(Request(Command.TRIM, 0, offset + place, part))

    async def close(self) -> None:
        """End the connection, after a flush where there is one."""
        if self._connection is not None and not self.read_only:
            with suppress(BlockError):
                await self.flush()
        await self._stop()

    async def hand_over(self) -> None:
        """Flush and end the connection; what keeps the image from others ends with it."""
        if not self.read_only:
            await self.flush()
        self._handed_over = True
        await self._stop()

    async def take_back(self, seconds: float) -> None:
        """Connect again, within some time. Raises OSError."""
        sock, export = await self._dial_for(seconds)
        self._handed_over, self._gave_up = False, None
        self._adopt(sock, export)
        self._keeper = asyncio.create_task(self._keep())

    def _require_writable(self) -> None:
        if self.read_only:
            raise BlockError(errno.EROFS, "Read-only", self.name)

    async def _answered(self, request: Request) -> None:
        """Wait for the answer of a request. Raises BlockError.

        When this is cancelled, a read leaves its memory alone, and keeps its slot until it is answered. Everything else is waited
        for: a write that comes late would be over a newer one.
        """
        if self._unflushed.is_full and request.data is not None:
            async with self._flushing:
                if self._unflushed.is_full:
                    await self.flush()
        await self._slots.acquire()
        failure = self._why_not()
        if failure is not None:
            self._slots.release()
            raise failure
        cookie = next(self._cookies)
        self._pending[cookie] = request
        if self._connection is not None:
            self._connection.submit(cookie, request)
        if request.into is not None:
            try:
                await request.answer
            except asyncio.CancelledError:
                request.abandon()
                raise
            return
        try:
            await asyncio.shield(request.answer)
        except asyncio.CancelledError:
            await outlast(request.answer)
            raise

    def _why_not(self) -> BlockError | None:
        if self._handed_over:
            return BlockError(errno.EBUSY, "handed over to another host", self.name)
        if self._gave_up is not None:
            return BlockError(errno.EIO, f"no connection: {self._gave_up.strerror or self._gave_up}", self.name)
        return None

    def _on_answer(self, cookie: int, request: Request, failure: Exception | None) -> None:
        if cookie not in self._pending:
            _settle(request, failure)  # Of _resume().
            return
        self._answers += 1
        # Also one with FUA: an older one to the same place, which is not durable, must not come back over it.
        if failure is None and request.command in _WRITES and self._export.can & Can.FLUSH:
            data = request.data.load() if request.data is not None else None
            self._unflushed.add(Kept(request.offset, request.length, data))
        self._end(cookie, failure)

    def _end(self, cookie: int, failure: Exception | None) -> None:
        request = self._pending.pop(cookie)
        self._slots.release()
        _settle(request, failure)

    # The connection.

    async def _dial_for(self, seconds: float) -> tuple[socket.socket, Export]:
        """Dial, also again while somebody else has the image, for some time. Raises OSError."""
        deadline = self._loop.time() + seconds
        while True:
            try:
                return await self._dial()
            except InUseError:
                if self._loop.time() >= deadline:
                    raise
            await asyncio.sleep(PAUSES[3])

    async def _dial(self) -> tuple[socket.socket, Export]:
        """Return a new connection, after its handshake. Raises OSError."""
        try:
            async with asyncio.timeout(self._patience.dial):
                sock = await self._dialer.connect()
                try:
                    return sock, await negotiate(sock, self._dialer.export)
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError:
            failure = OSError(errno.ETIMEDOUT, f"no answer within {self._patience.dial:g} s")
        except OSError as error:
            failure = await self._dialer.explain(error)
        await self._dialer.hung_up()
        raise failure

    def _adopt(self, sock: socket.socket, export: Export) -> None:
        self._ended = self._loop.create_future()
        self._answers = 0
        self._connection = Connection(sock, export, self.name, self._on_answer, self._on_loss)

    def _on_loss(self, error: OSError) -> None:
        self._connection = None
        if not self._ended.done():
            self._ended.set_result(error)

    async def _keep(self) -> None:
        """Have a connection for as long as the disk is open."""
        attempt = 0
        while True:
            error = await self._watch()
            log.warning("the connection to a disk is lost", disk=self.name, why=error.strerror or str(error))
            timer = self._loop.call_later(self._patience.lost, self._give_up)
            self._why = error
            # A server that accepts, answers nothing and fails is not asked again at once, as often as it does so.
            attempt = 0 if self._answers else attempt + 1
            try:
                await self._dialer.hung_up()
                attempt = await self._reconnect(attempt)
            finally:
                timer.cancel()
            self._gave_up = None
            log.warning("connected to a disk again", disk=self.name)

    _why: OSError

    async def _watch(self) -> OSError:
        """Wait until the connection is lost; one whose server does not answer is."""
        while not self._ended.done():
            await asyncio.wait([self._ended], timeout=self._patience.answer / 4)
            oldest = self._connection.oldest if self._connection is not None else None
            if self._connection is not None and oldest is not None and self._loop.time() - oldest > self._patience.answer:
                what = f"no answer within {self._patience.answer:g} s"
                self._connection.fail(OSError(errno.ETIMEDOUT, what))
        return self._ended.result()

    async def _reconnect(self, first: int) -> int:
        """Return the number of the attempt that succeeded. first: that of the first."""
        for attempt in itertools.count(first):
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            try:
                sock, export = await self._dial()
                if (export.size, export.can, export.block_bytes) != (self.size, self._export.can, self._export.block_bytes):
                    sock.close()
                    raise OSError(errno.EMEDIUMTYPE, "the NBD server has another export by that name now")
                await self._resume(sock, export)
            except OSError as error:
                self._why = error
                await self._dialer.hung_up()
                continue
            break
        return attempt

    async def _resume(self, sock: socket.socket, export: Export) -> None:
        """Bring a new connection to where the old one was. Raises OSError when it is lost meanwhile."""
        self._adopt(sock, export)
        connection, self._connection = self._connection, None  # Other requests wait.
        assert connection is not None
        try:
            await self._write_again(connection)
            if self._ended.done():
                raise self._ended.result()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        oldest = self._loop.time() - self._patience.answer - self._patience.lost
        for cookie, request in list(self._pending.items()):
            if request.made_at < oldest or request.answer.done():
                self._end(cookie, BlockError(errno.EIO, "no answer", self.name))
            else:
                connection.submit(cookie, request)

    async def _write_again(self, connection: Connection) -> None:
        """Write what was not flushed, one after the other as they may overlap, and flush it. Raises OSError."""
        mark = self._unflushed.mark
        again = [_again(write) for write in self._unflushed.all()]
        for request in [*again, Request(Command.FLUSH, 0, 0, 0)] if again else []:
            connection.submit(next(self._cookies), request)
            either: list[asyncio.Future[Any]] = [request.answer, self._ended]
            await asyncio.wait(either, timeout=self._patience.answer, return_when=asyncio.FIRST_COMPLETED)
            if not request.answer.done():
                raise OSError(errno.ETIMEDOUT, "no answer to what is written again")
            request.answer.result()
        self._unflushed.flushed(mark)

    def _give_up(self) -> None:
        self._gave_up = self._why
        log.error("a disk has no connection, its transfers fail", disk=self.name, why=self._why.strerror or str(self._why))
        self._fail_pending()

    def _fail_pending(self) -> None:
        for cookie in list(self._pending):
            self._end(cookie, BlockError(errno.EIO, "no connection", self.name))

    async def _stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._fail_pending()
        await self._dialer.hung_up()


def _again(write: Kept) -> Request:
    if write.data is None:
        return Request(Command.WRITE_ZEROES, 0, write.offset, write.length)
    return Request(Command.WRITE, 0, write.offset, write.length, data=Buffers.of(write.data))


def parts(length: int, most: int) -> list[tuple[int, int]]:
    """Return a range as places and lengths of at most so many bytes."""
    return [(place, min(most, length - place)) for place in range(0, length, most)]


def _settle(request: Request, failure: Exception | None) -> None:
    if not request.answer.done():
        if failure is None:
            request.answer.set_result(None)
        else:
            request.answer.set_exception(failure)
