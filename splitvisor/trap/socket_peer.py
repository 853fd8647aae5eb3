# SPDX-License-Identifier: GPL-2.0-or-later
"""A back end's end of the unix socket that a trap stream moves to on one host (trap.proto, "On one host")."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from google.protobuf.message import DecodeError

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.connection import ContractError
from splitvisor.trap.lingering import Lingering
from splitvisor.trap.trap_socket import MessageReader, SocketFramingError, framed
from splitvisor.trap.turn import Turn

READ_BYTES = 64 << 10
"""What one look takes from the socket."""
FULL_BYTES = 1 << 20
"""With so much unsent, writers that can wait do."""
MAX_UNSENT_BYTES = 16 << 20
"""Of responses to a cpu_service that does not read; with more, its connection ends."""


class SocketPeer(asyncio.BufferedProtocol):
    """The connection to one cpu_service; made by open()."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._reader = MessageReader()
        self._early = bytearray()
        """What came before serve(): uvloop begins to read although it is told to pause before."""
        self._take: Callable[[pb.AttachRequest], bool] | None = None
        self._turn: Turn | None = None
        self._lingering = Lingering()
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room = asyncio.Event()
        self._room.set()
        self._gathered: list[bytes] | None = None
        """Responses to what one look has taken; they go together."""

    @classmethod
    async def open(cls, connection: socket.socket) -> SocketPeer:
        """Return the peer on a connected socket; it reads nothing before serve()."""
        try:
            _, peer = await asyncio.get_running_loop().create_connection(lambda: cls(connection), sock=connection)
        except BaseException:
            connection.close()
            raise
        return peer

    async def serve(self, take: Callable[[pb.AttachRequest], bool], turn: Turn) -> None:
        """Have every request taken, in order, until the other side closes, or take() returns False.

        What turn has for its end goes together with the answers of a look.

        Raises what take() raises, and ContractError for what is no request.
        """
        self._take, self._turn = take, turn
        if self._early:
            self._take_all(take, turn, memoryview(bytes(self._early)))
        if self._transport is not None and not self._ended.done():
            self._transport.resume_reading()
        await self._ended

    def send(self, response: pb.AttachResponse) -> bool:
        """Send a response; False when so many wait that the other side does not read."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return True
        data = framed(response.SerializeToString())
        if self._gathered is not None:
            self._gathered.append(data)
            return True
        self._write(transport, data)
        return transport.get_write_buffer_size() <= MAX_UNSENT_BYTES

    def _write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write at once what the socket takes: the transport would do it a turn of the event loop later."""
        if not transport.get_write_buffer_size():
            try:
                sent = self._socket.send(data)
            except OSError:  # It is full, or has ended, which the transport notices, too.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    async def room(self) -> None:
        """Wait until what was sent is taken, but for FULL_BYTES."""
        await self._room.wait()

    async def sent(self) -> None:
        """Wait until everything is taken."""
        if (transport := self._transport) is not None:
            transport.set_write_buffer_limits(0)
            await self._room.wait()

    def close(self) -> None:
        """Close the socket, after what was sent."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See BaseProtocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(FULL_BYTES)
        self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See BufferedProtocol."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """See BufferedProtocol."""
        if self._take is not None and self._turn is not None:
            self._lingering.began()
            self._take_all(self._take, self._turn, self._view[:nbytes])
            self._lingering.ended()
            return
        self._early += self._view[:nbytes]
        if self._transport is not None:
            self._transport.pause_reading()

    def _take_all(self, take: Callable[[pb.AttachRequest], bool], turn: Turn, data: memoryview) -> None:
        self._gathered = []
        turn.begin()
        try:
            for message in self._reader.take(data):
                if not take(pb.AttachRequest.FromString(message)):
                    self._end(None)
                    break
        except DecodeError:
            self._end(ContractError("a message that is none"))
        except SocketFramingError as error:
            self._end(ContractError(str(error)))
        except Exception as error:
            self._end(error)
        turn.end()
        gathered, self._gathered = self._gathered, None
        if gathered and self._transport is not None:
            self._write(self._transport, b"".join(gathered))

    def pause_writing(self) -> None:
        """See BaseProtocol: a cpu_service that does not read is not read either."""
        self._room.clear()
        if self._transport is not None and self._take is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See BaseProtocol."""
        self._room.set()
        if self._transport is not None and self._take is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See BaseProtocol."""
        self._transport = None
        self._room.set()
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        self._take = lambda _: False  # What comes yet is nobody's.
        if self._transport is not None:
            self._transport.pause_reading()
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)
