# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames into a stream whose reader must never find a part of one: passt of Debian 12.

When a read of passt's ends within the four bytes before a frame, passt forgets these bytes and takes what follows for a length:
the network is dead from then on (tap_handler_passt() in tap.c of 2023-03-09). A busy host makes that happen. Linux puts what one
send() has into one buffer of a unix socket, if it is not too large, takes all of it or nothing, and reads end between buffers.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

BUFFER_BYTES = 32 << 10
"""At most in one send(): Linux takes up to 32 KiB and the rest of a page (net/unix/af_unix.c, unix_stream_sendmsg()).

A larger frame is sent by itself and becomes two buffers: passt waits for the second."""


class WholeFrames:
    """Sends to a unix stream socket.

    Args:
        connected: the socket, which is closed with this.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        """What the socket has not taken yet."""

    def write(self, messages: Iterable[bytes]) -> None:
        """Send soon. messages: each is a frame after its length."""
        idle = not self._waiting
        batch = bytearray()
        for message in messages:
            if batch and len(batch) + len(message) > BUFFER_BYTES:
                self._add(bytes(batch))
                batch.clear()
            batch += message
        if batch:
            self._add(bytes(batch))
        if idle and self._waiting and not self._send():
            asyncio.get_running_loop().add_writer(self._socket, self._writable)

    def close(self) -> None:
        """Send no more."""
        self._forget()
        if self._socket.fileno() >= 0:
            with suppress(RuntimeError):  # There is no event loop any more.
                asyncio.get_running_loop().remove_writer(self._socket)
            self._socket.close()

    def _add(self, buffer: bytes) -> None:
        self._waiting.append(buffer)
        self.waiting_bytes += len(buffer)

    def _forget(self) -> None:
        self._waiting.clear()
        self.waiting_bytes = 0

    def _writable(self) -> None:
        if self._send():
            asyncio.get_running_loop().remove_writer(self._socket)

    def _send(self) -> bool:
        """Send until the socket takes no more. Returns whether all is sent, or the other end is gone."""
        while self._waiting:
            buffer = self._waiting[0]
            try:
                sent = self._socket.send(buffer)
            except BlockingIOError:
                return False
            except OSError:  # Whoever reads from this socket learns why.
                self._forget()
                return True
            self.waiting_bytes -= sent
            if sent == len(buffer):
                self._waiting.popleft()
            else:
                self._waiting[0] = buffer[sent:]
        return True
