# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection that carries frames, whatever it is made of: a unix socket, TCP, TLS, a pair of sockets with a child."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from splitvisor.lan.framing import LENGTH, FrameBuffer, FramingError
from splitvisor.lan.whole_frames import WholeFrames
from splitvisor.lan.wire import Receive

UNSENT_BYTES = 4 << 20
"""What may wait for a slow peer, twice: here and in the transport."""
_LOW_BYTES = 3 << 20
_SOCKET_BYTES = 4 << 20
"""Asked of the kernel, which gives an ordinary user less: Linux counts a frame of 64 KiB as more than that."""
_USER_TIMEOUT_MS = 10_000
"""How long TCP waits for a peer that acknowledges nothing before the connection is lost."""
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))


class FrameLink(asyncio.BufferedProtocol):
    """A connection, as asyncio's protocol: what is sent in one turn of the event loop leaves in one piece.

    Args:
        receiver: returns what takes each frame that arrives; as long as that has no room, nothing is read: the peer has to wait.
        admit: looks at the connection when it is there, and raises ConnectionError for one that is not wanted.
        lost: is called once, when the connection is gone, with why; None: it was closed.
    """

    def __init__(
        self,
        receiver: Callable[[FrameLink], Receive],
        admit: Callable[[FrameLink, asyncio.Transport], None],
        lost: Callable[[FrameLink, Exception | None], None],
    ) -> None:
        self._receive, self._admit, self._lost = receiver(self), admit, lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._frames: FrameBuffer | None = None
        self._held: bytes | None = None
        """A frame that receive had no room for; nothing is read while there is one."""
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._choked = False
        self._failure: Exception | None = None
        self._whole: WholeFrames | None = None

    def send_whole(self, whole: WholeFrames) -> None:
        """Send by this from now on, which ends with the connection."""
        self._whole = whole

    @property
    def dropped(self) -> int:
        """Frames that arrived with an impossible length."""
        return self._frames.dropped if self._frames is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if the connection is wanted."""
        stream = cast(asyncio.Transport, transport)  # uvloop's is none by class.
        try:
            self._admit(self, stream)
        except ConnectionError as error:
            self._failure = error
            stream.abort()
            return
        stream.set_write_buffer_limits(UNSENT_BYTES, _LOW_BYTES)
        _tune(stream.get_extra_info("socket"))
        self._frames = FrameBuffer()
        self._transport = stream

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what waits; whoever has the connection is told."""
        self._transport = None
        self._held = None
        self._unsent.clear()
        if self._whole is not None:
            self._whole.close()
        self._lost(self, self._failure or exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes belong."""
        if self._frames is None:
            return memoryview(bytearray(1))  # It is not wanted, and ends.
        return self._frames.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on the frames that are whole."""
        if self._frames is not None:
            self._frames.written(nbytes)
            self._pass_on()

    def pause_writing(self) -> None:
        """Drop what is sent: the peer is slow."""
        self._choked = True

    def resume_writing(self) -> None:
        """Send again."""
        self._choked = False

    def send(self, frame: bytes) -> bool:
        """Send a frame soon; return False when it cannot be, since there is no connection or a slow one."""
        if self._choked or self._transport is None or self._unsent_bytes > UNSENT_BYTES:
            return False
        if self._whole is not None and self._whole.waiting_bytes > UNSENT_BYTES:
            return False
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(LENGTH.pack(len(frame)) + frame)
        self._unsent_bytes += len(frame)
        return True

    def resume(self) -> None:
        """There is room again for what arrives."""
        if self._held is not None and self._transport is not None:
            frame, self._held = self._held, None
            if not self._receive(frame):
                self._held = frame
                return
            self._pass_on()
            if self._held is None and self._transport is not None:
                self._transport.resume_reading()

    def close(self) -> None:
        """End the connection, without what was not sent yet."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        if self._transport is None:
            return
        if self._whole is not None:
            self._whole.write(unsent)
        else:
            self._transport.writelines(unsent)

    def _pass_on(self) -> None:
        assert self._frames is not None
        take, receive = self._frames.take, self._receive
        try:
            while self._transport is not None and (frame := take()) is not None:
                if not receive(frame):
                    self._held = frame
                    self._transport.pause_reading()
                    return
        except FramingError as error:
            self._failure = error
            self.close()


def _tune(connected: socket.socket | None) -> None:
    """Have a socket hold several frames, and notice a peer that is gone."""
    if connected is None:
        return
    with suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
    if connected.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                connected.setsockopt(socket.IPPROTO_TCP, option, value)
