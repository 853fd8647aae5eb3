# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD's numbers and layouts, all big endian, and a request under way."""

from __future__ import annotations

import asyncio
import errno
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockError

GREETING = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003_E889_0455_65A9
REQUEST_MAGIC = 0x2560_9513
SIMPLE_MAGIC = 0x6744_6698
STRUCTURED_MAGIC = 0x668E_33EF

OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE = struct.Struct(">IIQ")
STRUCTURED = struct.Struct(">IHHQI")
CHUNK_DONE = 1
"""Flag of a structured reply's last chunk."""
DEFAULT_PAYLOAD = 32 << 20
"""The largest transfer where the server says nothing."""


class ProtocolError(OSError):
    """A server sends what NBD does not have."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EPROTO, f"the NBD server is wrong: {what}")


class Handshake(IntFlag):
    """Flags of the greeting, and of its answer."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(IntEnum):
    """What a client asks before there are transfers."""

    GO = 7
    STRUCTURED_REPLY = 8


class OptionReply(IntEnum):
    """What a server answers to an option; failures have bit 31."""

    ACK = 1
    INFO = 3
    UNSUPPORTED = 0x8000_0001
    POLICY = 0x8000_0002
    TLS_REQUIRED = 0x8000_0005
    UNKNOWN_EXPORT = 0x8000_0006


class Info(IntEnum):
    """What an answer to GO is about."""

    EXPORT = 0
    BLOCK_SIZE = 3


class Can(IntFlag):
    """Flags of an export."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    FLUSH = 4
    FUA = 8
    TRIM = 32
    WRITE_ZEROES = 64


class Command(IntEnum):
    """What a client asks of an export."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6


class CommandFlag(IntFlag):
    """How."""

    FUA = 1
    NO_HOLE = 2


class Chunk(IntEnum):
    """Kinds of structured replies; failures have bit 15."""

    NONE = 0
    DATA = 1
    HOLE = 2
    ERROR = 0x8001
    ERROR_AT = 0x8002


ERROR_BIT = 0x8000
SHUTDOWN = 108
"""NBD_ESHUTDOWN: the server is about to end; the request was not done."""
_ERRORS = {1: errno.EROFS, 12: errno.ENOMEM, 22: errno.EINVAL, 28: errno.ENOSPC, 95: errno.EOPNOTSUPP}


def error_of(code: int, name: str) -> BlockError:
    """Return a server's error as one of a transfer; what is not in NBD's table is EIO."""
    error = BlockError.number(_ERRORS.get(code, errno.EIO))
    error.filename = name
    return error


@dataclass(frozen=True)
class Export:
    """What a server says of an export."""

    size: int
    """Bytes."""
    can: Can
    structured: bool
    """Reads are answered in chunks."""
    block_bytes: int = 1
    """Of which offsets and lengths are multiples."""
    payload: int = DEFAULT_PAYLOAD
    """Bytes of a read or write, at most."""


class Request:
    """A request, until it is answered.

    Args:
        command: what is asked.
        flags: how.
        offset: in bytes.
        length: in bytes.
        data: what is written; None: the command has no data.
        into: what is filled with the answer; None: the answer has no data.
    """

    __slots__ = ("answer", "command", "data", "failure", "filled", "flags", "into", "length", "made_at", "offset", "sent_at")

    def __init__(
        self, command: Command, flags: int, offset: int, length: int, data: Buffers | None = None, into: Buffers | None = None
    ) -> None:
        self.command, self.flags, self.offset, self.length, self.data, self.into = command, flags, offset, length, data, into
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[None] = loop.create_future()
        self.made_at = loop.time()
        self.filled = 0
        """Bytes of the answer that are there."""
        self.failure = 0
        """The first error of the answer's chunks."""
        self.sent_at = 0.0

    def abandon(self) -> None:
        """Leave its memory alone from now on: what still arrives is thrown away."""
        self.into = None

    def head(self, cookie: int) -> bytes:
        """Return what is sent before the data."""
        return REQUEST.pack(REQUEST_MAGIC, self.flags, self.command, cookie, self.offset, self.length)
