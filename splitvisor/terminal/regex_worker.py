# SPDX-License-Identifier: GPL-2.0-or-later
"""Searches a regular expression, in a process of its own: a search may take for ever (^(a+)+c$), and Python does not stop in it.

It is run as a file, without the package: splitvisor/terminal/search.py starts and kills it. Messages are a length, then so many
bytes. The first one in is the expression; its answer is empty, or what is wrong. Each other one is a text; its answer is where
the first match begins and ends.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import struct
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedRWPair
    from typing import Any

LENGTH = struct.Struct("<I")
MATCH = struct.Struct("<qq")
NONE = (-1, -1)
MATCHES_NOTHING = b"it matches an empty text, so it would be found at once"

_PR_SET_PDEATHSIG = 1


def main(descriptor: int, parent: int) -> None:
    """Serve the process at the other end of a socket, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    warnings.simplefilter("ignore")  # A warning about an expression that may change its meaning one day.
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as stream:
        try:
            pattern = re.compile(_receive(stream), re.MULTILINE)
        except (re.error, OverflowError, RecursionError, MemoryError) as error:
            _send(stream, str(error).encode() or type(error).__name__.encode())
            return
        _send(stream, MATCHES_NOTHING if pattern.search(b"") else b"")
        while text := _receive(stream):
            match = pattern.search(text)
            _send(stream, MATCH.pack(*(NONE if match is None else match.span())))


def _receive(stream: BufferedRWPair[Any, Any]) -> bytes:
    head = stream.read(LENGTH.size)
    return stream.read(*LENGTH.unpack(head)) if len(head) == LENGTH.size else b""


def _send(stream: BufferedRWPair[Any, Any], message: bytes) -> None:
    stream.write(LENGTH.pack(len(message)) + message)
    stream.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
