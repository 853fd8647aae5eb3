# SPDX-License-Identifier: GPL-2.0-or-later
"""cpu_service's end of the unix socket that a trap stream moves to on one host (trap.proto, "On one host")."""

from __future__ import annotations

import socket
from collections import deque

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.trap_socket import MessageReader, framed

READ_BYTES = 64 << 10
"""What one look takes from the socket."""
OUTPUT_BYTES = 256 << 10
"""No more requests are made bytes while so many wait for the socket."""


class DirectStream:
    """The socket of one connection. Not safe for threads.

    Args:
        connection: connected; does not block.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.unsent: deque[pb.AttachRequest] = deque()
        """Requests that the peer has given no room for yet."""
        self.comes = False
        """Responses come here by now."""
        self.has_ended = False
        """Nothing comes any more."""
        self._is_broken = False
        """Nothing goes any more; reading tells."""
        self._output = bytearray()
        self._reader = MessageReader()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)

    @property
    def is_blocked(self) -> bool:
        """True: the socket takes no more for now."""
        return bool(self._output) and not self._is_broken

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it. An error shows when the socket is read."""
        output = self._output
        while (self.unsent or output) and not self._is_broken:
            while self.unsent and len(output) < OUTPUT_BYTES:
                output += framed(self.unsent.popleft().SerializeToString())
            try:
                sent = self.socket.send(output)
            except BlockingIOError:
                return
            except OSError:
                self._is_broken = True
                return
            del output[:sent]

    def read(self) -> list[bytes]:
        """Return the messages that have come. Raises SocketFramingError for what is none."""
        try:
            count = self.socket.recv_into(self._buffer)
        except BlockingIOError:
            return []
        except OSError:
            count = 0
        if not count:
            self.has_ended = self._is_broken = True
            return []
        return self._reader.take(self._view[:count])
