# SPDX-License-Identifier: GPL-2.0-or-later
"""A SCSI target on a TCP port, as iSCSI has it (RFC 7143): what libiscsi's tests need of it, for tests on loopback only.

One connection is a session; there are no digests, no authentication and no error recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from splitvisor.block.buffers import Buffers
from splitvisor.scsi.codes import TaskAttribute, TaskFunction, TaskResponse
from splitvisor.scsi.command import NOTHING, Command, Completion, Initiator
from splitvisor.scsi.target import Target

TARGET_NAME = "iqn.2011-01.org.splitvisor:test"
_HEADER_BYTES = 48
_BURST = 256 << 10
_WINDOW = 64
_MOST = 64 << 20
_NO_TAG = b"\xff\xff\xff\xff"
_FINAL = 0x80
_IMMEDIATE = 0x40
_READ = 0x40
_WRITE = 0x20
_OVERFLOW = 0x04
_UNDERFLOW = 0x02
_OURS = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "MaxConnections": "1",
    "InitialR2T": "Yes",
    "ImmediateData": "Yes",
    "MaxBurstLength": str(_BURST),
    "FirstBurstLength": str(_BURST),
    "DefaultTime2Wait": "0",
    "DefaultTime2Retain": "0",
    "MaxOutstandingR2T": "1",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "ErrorRecoveryLevel": "0",
    "AuthMethod": "None",
}
_ATTRIBUTES = {2: TaskAttribute.ORDERED, 3: TaskAttribute.HEAD_OF_QUEUE}
_FUNCTIONS = {
    1: TaskFunction.ABORT_TASK,
    2: TaskFunction.ABORT_TASK_SET,
    4: TaskFunction.CLEAR_TASK_SET,
    5: TaskFunction.LOGICAL_UNIT_RESET,
    6: TaskFunction.TARGET_RESET,
    7: TaskFunction.TARGET_RESET,
}
_RESPONSES = {TaskResponse.COMPLETE: 0, TaskResponse.NO_SUCH_TASK: 1, TaskResponse.INCORRECT_LUN: 2, TaskResponse.FAILED: 255}


@dataclass
class Pdu:
    """A message."""

    header: bytes
    data: bytes

    @property
    def opcode(self) -> int:
        return self.header[0] & 0x3F

    @property
    def tag(self) -> bytes:
        return self.header[16:20]

    def number(self, offset: int) -> int:
        return int.from_bytes(self.header[offset : offset + 4], "big")


@dataclass
class Write:
    """A command that waits for its data."""

    pdu: Pdu
    data: bytearray
    received: int = 0
    requested: int = 0
    requests: int = 0
    data_number: int = 0


@dataclass
class Session:
    """A connection of an initiator.

    Attributes:
        target: what it speaks to.
        reader: receives.
        writer: sends.
    """

    target: Target
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    initiator: Initiator = field(default_factory=lambda: Initiator("nobody"))
    status_number: int = 1
    expected: int = 0
    segment: int = 8192
    writes: dict[bytes, Write] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self) -> None:
        """Serve a connection until its end."""
        try:
            while True:
                header = await self.reader.readexactly(_HEADER_BYTES)
                await self.reader.readexactly(4 * header[4])
                length = int.from_bytes(header[5:8], "big")
                data = await self.reader.readexactly(-(-length // 4) * 4)
                if not await self._handle(Pdu(header, data[:length])):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            await self.target.nexus_lost(self.initiator)
            for each in self.tasks:
                each.cancel()
            self.writer.close()

    async def _handle(self, pdu: Pdu) -> bool:
        """Handle a message. Returns false at the end of the session."""
        if pdu.opcode != 0x05:
            number, immediate = pdu.number(24), bool(pdu.header[0] & _IMMEDIATE)
            if pdu.opcode == 0x03:
                self.expected = number
            elif not immediate:
                if number != self.expected:
                    return True  # Outside the window, or a gap: it is ignored (RFC 7143 4.2.2.1).
                self.expected = self.expected + 1 & 0xFFFFFFFF
        handler = {
            0x00: self._nop,
            0x01: self._command,
            0x02: self._manage,
            0x03: self._login,
            0x04: self._text,
            0x05: self._data,
        }
        if pdu.opcode in handler:
            await handler[pdu.opcode](pdu)
            return True
        self._send(0x26, _FINAL, pdu.tag)
        await self.writer.drain()
        return False

    def _send(self, opcode: int, flags: int, tag: bytes, data: bytes = b"", *, status: bool = True, **parts: bytes | int) -> None:
        """Send a message: parts are bytes of the header by their offset, as `at20`."""
        header = bytearray(_HEADER_BYTES)
        header[0], header[1] = opcode, flags
        header[5:8] = len(data).to_bytes(3, "big")
        header[16:20] = tag
        header[24:28] = self.status_number.to_bytes(4, "big")
        self.status_number += status
        header[28:32] = self.expected.to_bytes(4, "big")
        header[32:36] = (self.expected + _WINDOW & 0xFFFFFFFF).to_bytes(4, "big")
        for name, value in parts.items():
            content = value.to_bytes(4, "big") if isinstance(value, int) else value
            header[int(name[2:]) : int(name[2:]) + len(content)] = content
        self.writer.write(bytes(header) + data + bytes(-len(data) % 4))

    async def _nop(self, pdu: Pdu) -> None:
        if pdu.tag != _NO_TAG:
            self._send(0x20, _FINAL, pdu.tag, pdu.data, at8=pdu.header[8:16], at20=_NO_TAG)

    async def _login(self, pdu: Pdu) -> None:
        keys = dict(each.partition("=")[::2] for each in pdu.data.decode().split("\0") if each)
        if "InitiatorName" in keys:
            self.initiator = Initiator(f"{keys['InitiatorName']} {pdu.header[8:14].hex()}")
        if "MaxRecvDataSegmentLength" in keys:
            self.segment = int(keys["MaxRecvDataSegmentLength"])
        answers = {key: _OURS[key] for key in keys if key in _OURS}
        answers["TargetPortalGroupTag"] = "1"
        if "MaxRecvDataSegmentLength" in keys:
            answers["MaxRecvDataSegmentLength"] = str(_BURST)
        flags = pdu.header[1]
        self._send(
            0x23, flags, pdu.tag, _keys(answers), at8=pdu.header[8:14], at14=b"\0\1" if flags & 3 == 3 else pdu.header[14:16]
        )

    async def _text(self, pdu: Pdu) -> None:
        host, port = self.writer.get_extra_info("sockname")[:2]
        answer = {"TargetName": TARGET_NAME, "TargetAddress": f"{host}:{port},1"} if b"SendTargets" in pdu.data else {}
        self._send(0x24, _FINAL, pdu.tag, _keys(answer), at20=_NO_TAG)

    async def _command(self, pdu: Pdu) -> None:
        if not pdu.header[1] & _WRITE:
            self._start(pdu, bytearray())
            return
        write = Write(pdu, bytearray(min(pdu.number(20), _MOST)))
        self._received(write, 0, pdu.data)
        write.requested = write.received
        self.writes[pdu.tag] = write
        self._ask(write)

    async def _data(self, pdu: Pdu) -> None:
        write = self.writes.get(pdu.tag)
        if write is None:
            return
        if pdu.number(36) != write.data_number:
            self._reject(write)
            return
        write.data_number += 1
        self._received(write, pdu.number(40), pdu.data)
        if pdu.header[1] & _FINAL:
            self._ask(write)

    def _received(self, write: Write, offset: int, data: bytes) -> None:
        data = data[: max(len(write.data) - offset, 0)]
        write.data[offset : offset + len(data)] = data
        write.received += len(data)

    def _reject(self, write: Write) -> None:
        """End a command whose data is not as announced, with ABORTED COMMAND, data phase error."""
        del self.writes[write.pdu.tag]
        sense = bytes((0x70, 0, 0x0B, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x4B, 0, 0, 0, 0, 0))
        self._send(0x21, _FINAL, write.pdu.tag, len(sense).to_bytes(2, "big") + sense, at3=b"\2")

    def _ask(self, write: Write) -> None:
        """Ask for the next data of a command, or start it when all is there."""
        rest = len(write.data) - write.requested
        if not rest:
            del self.writes[write.pdu.tag]
            self._start(write.pdu, write.data)
            return
        length = min(rest, _BURST)
        self._send(
            0x31,
            _FINAL,
            write.pdu.tag,
            status=False,
            at8=write.pdu.header[8:16],
            at20=write.requests,
            at36=write.requests,
            at40=write.requested,
            at44=length,
        )
        write.data_number = 0
        write.requests += 1
        write.requested += length

    def _start(self, pdu: Pdu, data_out: bytearray) -> None:
        task = asyncio.get_running_loop().create_task(self._run(pdu, data_out))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, pdu: Pdu, data_out: bytearray) -> None:
        reads = bool(pdu.header[1] & _READ)
        data_in = Buffers.of(bytearray(min(pdu.number(20), _MOST))) if reads else NOTHING
        command = Command(
            _lun(pdu),
            pdu.header[32:48],
            self.initiator,
            pdu.tag,
            Buffers.of(data_out) if data_out else NOTHING,
            data_in,
            _ATTRIBUTES.get(pdu.header[1] & 7, TaskAttribute.SIMPLE),
        )
        end = await self.target.execute(command)
        if end is not None:
            self._answer(pdu, end, data_in.load(0, end.moved_in), reads)
            with contextlib.suppress(ConnectionError):
                await self.writer.drain()

    def _answer(self, pdu: Pdu, end: Completion, data: bytes, reads: bool) -> None:
        for offset in range(0, len(data), self.segment):
            piece = data[offset : offset + self.segment]
            flags = _FINAL if offset + len(piece) == len(data) else 0
            self._send(
                0x25, flags, pdu.tag, piece, status=False, at8=bytes(8), at20=_NO_TAG, at36=offset // self.segment, at40=offset
            )
        moved, wanted = (end.moved_in, end.wanted_in) if reads else (end.moved_out, end.wanted_out)
        room = pdu.number(20)
        flags, residual = _FINAL, 0
        if wanted > room:
            flags, residual = flags | _OVERFLOW, wanted - room
        elif moved < room:
            flags, residual = flags | _UNDERFLOW, room - moved
        sense = len(end.sense).to_bytes(2, "big") + end.sense if end.sense else b""
        count = -(-len(data) // self.segment)
        self._send(0x21, flags, pdu.tag, sense, at3=bytes((end.status,)), at36=count, at44=residual)

    async def _manage(self, pdu: Pdu) -> None:
        function = _FUNCTIONS.get(pdu.header[1] & 0x7F)
        response = 5
        if function is not None:
            waiting = self.writes.pop(pdu.header[20:24], None) if function is TaskFunction.ABORT_TASK else None
            done = await self.target.manage(function, self.initiator, _lun(pdu), pdu.header[20:24])
            response = 0 if waiting is not None else _RESPONSES[done]
        self._send(0x22, _FINAL, pdu.tag, at2=bytes((response,)))


def _keys(pairs: dict[str, str]) -> bytes:
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs.items())


def _lun(pdu: Pdu) -> int:
    number = int.from_bytes(pdu.header[8:10], "big")
    return number & 0x3FFF if number >> 14 == 1 else number


@contextlib.asynccontextmanager
async def gateway(target: Target, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve a target. Gives the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(target, reader, writer)
        sessions.add(asyncio.current_task())
        await session.serve()

    sessions: set[asyncio.Task[object] | None] = set()
    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in sessions:
            if each is not None:
                each.cancel()
        await asyncio.gather(*(each for each in sessions if each is not None), return_exceptions=True)
