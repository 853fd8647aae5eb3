# SPDX-License-Identifier: GPL-2.0-or-later
"""The start of a connection: fixed newstyle negotiation, structured replies where there are some, and NBD_OPT_GO."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct

from splitvisor.block.device import SECTOR_BYTES
from splitvisor.block.nbd.wire import (
    DEFAULT_PAYLOAD,
    GREETING,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    Can,
    Export,
    Handshake,
    Info,
    Option,
    OptionReply,
    ProtocolError,
)

REPLY_BYTES = 64 << 10
"""The longest answer to an option: a message for people may be 4096 bytes."""
REPLIES = 64
"""To one option, at most."""
SIZE_MAX = 1 << 62
"""Of an export."""
_TEXT_BYTES = 200
"""Of a server's message that is shown."""


async def negotiate(connection: socket.socket, name: str) -> Export:
    """Return the export of a name, ready for requests. Raises OSError: ProtocolError, or what the server has against it.

    connection: as it was connected, which does not block. The caller sets a deadline.
    """
    talk = _Talk(connection)
    magic, option_magic, flags = struct.unpack(">8s8sH", await talk.receive(18))
    if magic != GREETING:
        raise ProtocolError("it is no NBD server")
    if option_magic != OPTION_MAGIC or not flags & Handshake.FIXED_NEWSTYLE:
        raise ProtocolError("it has no fixed newstyle negotiation")
    no_zeroes = flags & Handshake.NO_ZEROES
    await talk.send(struct.pack(">I", Handshake.FIXED_NEWSTYLE | no_zeroes))
    structured = await talk.structured()
    return await talk.go(name, structured)


class _Talk:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = await self._loop.sock_recv_into(self._socket, view)
            if not count:
                raise ConnectionResetError(errno.ECONNRESET, "the NBD server closed the connection")
            view = view[count:]
        return bytes(data)

    async def ask(self, option: Option, data: bytes = b"") -> None:
        await self.send(OPTION.pack(OPTION_MAGIC, option, len(data)) + data)

    async def answer(self, option: Option) -> tuple[int, bytes]:
        magic, about, kind, length = OPTION_REPLY.unpack(await self.receive(OPTION_REPLY.size))
        if magic != OPTION_REPLY_MAGIC or about != option:
            raise ProtocolError("it answers an option that was not asked")
        if length > REPLY_BYTES:
            raise ProtocolError(f"an answer to an option has {length} bytes")
        return kind, await self.receive(length)

    async def structured(self) -> bool:
        """Return whether reads are answered in chunks."""
        await self.ask(Option.STRUCTURED_REPLY)
        kind, _ = await self.answer(Option.STRUCTURED_REPLY)
        return kind == OptionReply.ACK

    async def go(self, name: str, structured: bool) -> Export:
        encoded = name.encode()
        await self.ask(Option.GO, struct.pack(f">I{len(encoded)}sHH", len(encoded), encoded, 1, Info.BLOCK_SIZE))
        size, can = -1, Can(0)
        block_bytes, payload = 1, DEFAULT_PAYLOAD
        for _ in range(REPLIES):
            kind, data = await self.answer(Option.GO)
            if kind == OptionReply.ACK:
                return _checked(Export(size, can, structured, block_bytes, payload))
            if kind != OptionReply.INFO:
                raise _refusal(kind, data, name)
            about = int.from_bytes(data[:2], "big") if len(data) >= 2 else -1
            if about == Info.EXPORT and len(data) == 12:
                size, flags = struct.unpack(">QH", data[2:])
                can = Can(flags)
            elif about == Info.BLOCK_SIZE and len(data) == 14:
                block_bytes, _, payload = struct.unpack(">III", data[2:])
            elif about in (-1, Info.EXPORT, Info.BLOCK_SIZE):
                raise ProtocolError("it says nothing that can be read of its export")
        raise ProtocolError(f"it has more than {REPLIES} answers to one option")


def _checked(export: Export) -> Export:
    if not 0 <= export.size <= SIZE_MAX:
        raise ProtocolError("it does not say how large its export is")
    if not export.block_bytes or export.block_bytes & (export.block_bytes - 1) or export.block_bytes > 64 << 10:
        raise ProtocolError(f"its smallest block has {export.block_bytes} bytes")
    unit = max(export.block_bytes, SECTOR_BYTES)
    payload = min(export.payload, DEFAULT_PAYLOAD) // unit * unit
    if not payload:
        raise ProtocolError(f"it takes at most {export.payload} bytes at once")
    return Export(export.size, export.can, export.structured, export.block_bytes, payload)


def _refusal(kind: int, data: bytes, name: str) -> OSError:
    said = "".join(each if each.isprintable() else "?" for each in data[:_TEXT_BYTES].decode(errors="replace"))
    what = {
        OptionReply.UNSUPPORTED: "the NBD server is too old: it has no NBD_OPT_GO",
        OptionReply.POLICY: "the NBD server does not allow it",
        OptionReply.TLS_REQUIRED: "the NBD server requires TLS, which Splitvisor has not for disks",
        OptionReply.UNKNOWN_EXPORT: f"the NBD server has no export {name!r}",
    }.get(OptionReply(kind) if kind in list(OptionReply) else OptionReply.ACK, f"the NBD server refuses (error {kind:#x})")
    return OSError(errno.ENOENT if kind == OptionReply.UNKNOWN_EXPORT else errno.EACCES, f"{what}{f' ({said})' if said else ''}")
