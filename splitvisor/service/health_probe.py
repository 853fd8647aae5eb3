# SPDX-License-Identifier: GPL-2.0-or-later
"""The health check as a container engine makes it, every few seconds in each container: one call over a unix socket, by hand.

Loading gRPC takes most of the time of a check. What is sent here are the four frames (RFC 9113) of one unary call; of the answer
nothing is understood but that it serves, which is a message of two bytes. Whoever hears anything else asks again, with gRPC.
"""

from __future__ import annotations

import socket
import time

SERVING_MESSAGE = b"\x08\x01"
"""HealthCheckResponse with status (field 1) SERVING (1)."""
CHECK = "/grpc.health.v1.Health/Check"
_ANSWER_BYTES = 1 << 16
"""More than a server sends before it answers."""

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_STREAM = 1
_HEADER_BYTES = 9
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _field(name: str, value: str) -> bytes:
    """A header field, literal and not indexed (RFC 7541, section 6.2.2); both texts are shorter than 127 bytes."""
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def _message(message: bytes) -> bytes:
    """As gRPC has it in DATA: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


_REQUEST_FIELDS = (
    (":method", "POST"), (":scheme", "http"), (":path", CHECK), (":authority", "localhost"), ("content-type", "application/grpc"),
    ("te", "trailers"),
)  # fmt: skip
_REQUEST = b"".join(
    (
        _PREFACE,
        _frame(_SETTINGS, 0, 0, b""),
        _frame(_HEADERS, _END_HEADERS, _STREAM, b"".join(_field(*field) for field in _REQUEST_FIELDS)),
        # An empty HealthCheckRequest asks about the server as a whole.
        _frame(_DATA, _END_STREAM, _STREAM, _message(b"")),
    )
)


def serves(path: str, timeout: float) -> bool:
    """Return whether the server at a unix socket says that it serves; False as soon as it is anything but that.

    Args:
        timeout: seconds until the answer. Raises TimeoutError.
    """
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(path)
            connection.sendall(_REQUEST)
            received = b""
            while len(received) < _ANSWER_BYTES:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(4096)
                if not data:
                    break
                received += data
                if answer := _data_of(received):
                    return answer == _message(SERVING_MESSAGE)
        except TimeoutError:
            raise
        except OSError:
            return False
    return False


def _data_of(received: bytes) -> bytes:
    """The first DATA of the stream among complete frames; empty while there is none."""
    position = 0
    while len(received) - position >= _HEADER_BYTES:
        length = int.from_bytes(received[position : position + 3], "big")
        kind, stream = received[position + 3], int.from_bytes(received[position + 5 : position + _HEADER_BYTES], "big")
        position += _HEADER_BYTES
        if kind == _DATA and stream == _STREAM and length and len(received) - position >= length:
            return received[position : position + length]
        position += length
    return b""
