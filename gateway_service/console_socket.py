# SPDX-License-Identifier: GPL-2.0-or-later
"""The WebSocket of a console: docs/web.md has its messages.

One socket is one attachment of vio_service. Output is taken from there only while the browser keeps up, so a slow browser is what
vio_service knows how to treat: a slow reader, which is skipped ahead. Input is taken from the browser only as far as vio_service
has room.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import grpc
import grpc.aio
from aiohttp import WSMsgType, web

from gateway_service.authorization import Action
from gateway_service.sockets import ProtocolError, open_socket, run_first, watch_access
from gateway_service.web_app import Call, error_response
from splitvisor.net.channels import explain
from splitvisor.net.pages import every_aio
from splitvisor.net.times import duration
from splitvisor.rpc import console_pb2 as pb
from splitvisor.rpc import console_pb2_grpc
from splitvisor.terminal.sequences import Boundary

OUTPUT_WINDOW = 256 << 10
"""Bytes of output that a browser may leave unacknowledged."""
WAIT_S = 2.0
"""How long the VM's way back to a vio_service that was restarted may take."""
LIST_SECONDS = 5.0
HELD_BYTES = 4096
"""Of an unfinished control sequence that wait for its end."""
MAX_SIZE = 1000
"""Rows or columns of a terminal."""

_CLIENT = re.compile(r"[0-9a-f]{8}")

_ENDS = {
    pb.CONSOLE_END_REASON_VM_ENDED: "vm-ended",
    pb.CONSOLE_END_REASON_TAKEN_OVER: "taken-over",
    pb.CONSOLE_END_REASON_SHUTDOWN: "shutdown",
}

_Stream = grpc.aio.StreamStreamCall[pb.AttachConsoleRequest, pb.AttachConsoleResponse]


class Mode(StrEnum):
    """How a browser attaches."""

    READ = "read"
    WRITE = "write"
    """Types, unless somebody else does; then it reads."""
    TAKE = "take"
    """Types, whoever does so now."""


@dataclass(frozen=True)
class Opening:
    """What the query of the URL says."""

    unit: int
    mode: Mode
    client: str
    """Eight hexadecimal digits that tell one page from another."""
    instance: int
    """Of the console that was attached before; 0: none."""
    position: int
    """Of the first byte of output that is not known from there."""
    discard: bool = False
    """Drop input that the guest has not read."""


async def console_socket(call: Call) -> web.StreamResponse:
    """Connect a browser to a console until one of them ends it."""
    try:
        opening = _opening(call.request)
    except ProtocolError as error:
        return error_response(400, str(error))
    refusal = ""
    if opening.mode is not Mode.READ and not call.principal.may(Action.WRITE_CONSOLE):
        refusal = f"the role {call.principal.role} may not {Action.WRITE_CONSOLE}"
        opening = replace(opening, mode=Mode.READ)
    async with open_socket(call) as socket:
        await _Attachment(call, socket, opening, refusal).run()
    return socket


def _opening(request: web.Request) -> Opening:
    query = request.query
    client = query.get("client", "")
    if not _CLIENT.fullmatch(client):
        raise ProtocolError("client must be 8 hexadecimal digits")
    if query.get("mode", "read") not in list(Mode):
        raise ProtocolError(f"mode must be one of {', '.join(Mode)}")
    return Opening(
        _number(query.get("unit", "0"), 32), Mode(query.get("mode", "read")), client,
        _number(query.get("instance", "0"), 64), _number(query.get("position", "0"), 64), query.get("discard", "0") == "1",
    )  # fmt: skip


def _number(text: str, bits: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 20 or int(text) >> bits:
        raise ProtocolError(f"unit, instance and position are decimal numbers of at most {bits} bits")
    return int(text)


class _WholeUnits:
    """Output in pieces that end between two characters or control sequences, as the page's notices stand between two pieces."""

    def __init__(self) -> None:
        self._boundary = Boundary()
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next output; return what can be shown. Of a sequence, HELD_BYTES at most wait for the rest."""
        after = self._boundary.feed(data)
        data = self._held + data
        waiting = min(len(data) if after is None else after, len(data))
        end = len(data) - waiting if waiting <= HELD_BYTES else len(data)
        self._held = data[end:]
        return data[:end]

    def flush(self) -> bytes:
        """Return what waits: the rest will not come."""
        self._boundary, data, self._held = Boundary(), self._held, b""
        return data


class _Attachment:
    """A browser at a console."""

    def __init__(self, call: Call, socket: web.WebSocketResponse, opening: Opening, refusal: str) -> None:
        self._stub = console_pb2_grpc.ConsoleServiceStub(call.gateway.channels.channel(call.the_vm, "vio"))
        self._call = call
        self._socket = socket
        self._opening = opening
        self._refusal = refusal
        """Why the browser may not type, for people."""
        self._units = _WholeUnits()
        self._sent = 0
        self._acknowledged = 0
        self._keeps_up = asyncio.Event()
        self._input = bytearray()
        """What waits for the stream; no more than the window."""
        self._size: pb.WindowSize | None = None
        self._typed = asyncio.Event()
        self._unaccepted = 0
        """Bytes of input that vio_service has not taken, those that wait for the stream included."""
        self._window = 0
        self._generation = 0
        """Counts streams: one that has ended must not take input any more."""

    async def run(self) -> None:
        """Serve it."""
        await run_first(self._from_browser(), self._from_console(), watch_access(self._call))

    # The console's side.

    async def _from_console(self) -> None:
        try:
            ended = await self._converse(writer=self._opening.mode is not Mode.READ)
        except grpc.aio.AioRpcError as error:
            # Whatever it is, the browser may try again; what does not pass, such as an unknown unit, it says again.
            ended = {"reason": "not-found" if error.code() is grpc.StatusCode.NOT_FOUND else "lost", "text": explain(error)}
        await self._send({"type": "ended", **ended})

    async def _converse(self, *, writer: bool) -> dict[str, Any]:
        """Use one attachment to its end; return why it ended."""
        self._generation += 1
        stream: _Stream = self._stub.AttachConsole(self._stream_requests(self._generation, writer=writer))
        opened = False
        try:
            async for response in stream:
                match response.WhichOneof("message"):
                    case "opened":
                        opened = True
                        await self._open(response.opened, writer=writer)
                    case "output":
                        await self._output(self._units.feed(response.output))
                    case "skipped":
                        await self._output(self._units.flush())
                        await self._send({"type": "skipped", "bytes": response.skipped})
                    case "input_accepted":
                        self._unaccepted -= response.input_accepted
                        await self._send({"type": "accepted", "bytes": response.input_accepted})
                    case "ended":
                        await self._output(self._units.flush())
                        return {"reason": _ENDS.get(response.ended.reason, "lost"), "text": response.ended.text}
        except grpc.aio.AioRpcError as error:
            if not writer or opened or error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            self._refusal = explain(error)
        finally:
            stream.cancel()
        if writer and not opened:
            return await self._converse(writer=False)
        return {"reason": "lost", "text": "vio_service ended the connection"}

    async def _stream_requests(self, generation: int, *, writer: bool) -> AsyncIterator[pb.AttachConsoleRequest]:
        opening = self._opening
        yield pb.AttachConsoleRequest(
            open=pb.ConsoleOpen(
                vm=self._call.the_vm.name,
                unit_address=opening.unit,
                writer=writer,
                force=writer and opening.mode is Mode.TAKE,
                client_name=f"{self._call.principal.name} (web {opening.client})",
                wait=duration(WAIT_S),
                replay=True,
                resume_instance=opening.instance,
                resume_position=opening.position,
                discard_input=writer and opening.discard,
            )
        )
        while generation == self._generation:
            if self._input:
                data = bytes(self._input)
                self._input.clear()
                yield pb.AttachConsoleRequest(input=data)
            elif self._size is not None:
                size, self._size = self._size, None
                yield pb.AttachConsoleRequest(window_size=size)
            else:
                self._typed.clear()
                await self._typed.wait()

    async def _open(self, opened: pb.ConsoleOpened, *, writer: bool) -> None:
        same = opened.instance == self._opening.instance
        self._window = opened.input_window if writer else 0
        await self._send(
            {
                "type": "opened",
                "unit": opened.unit_address,
                "writer": writer,
                "refusal": self._refusal,
                # As text: JavaScript's numbers are exact to 53 bits only.
                "instance": str(opened.instance),
                "position": opened.offset,
                "same": same,
                "skipped": max(opened.offset - self._opening.position, 0) if same else 0,
                "live": await self._live(opened),
                "input_window": self._window,
                "input_received": opened.input_received,
                "discarded": opened.input_discarded,
            }
        )

    async def _live(self, opened: pb.ConsoleOpened) -> int:
        """Return where old output ends: a terminal must not answer what was asked before it was there."""
        request = pb.ListConsolesRequest(vm=self._call.the_vm.name)
        consoles = await every_aio(self._stub.ListConsoles, request, LIST_SECONDS)
        return next((each.output_bytes for each in consoles if each.unit_address == opened.unit_address), opened.offset)

    async def _output(self, data: bytes) -> None:
        if not data:
            return
        await self._socket.send_bytes(data)
        self._sent += len(data)
        while self._sent - self._acknowledged > OUTPUT_WINDOW:
            self._keeps_up.clear()
            await self._keeps_up.wait()

    # The browser's side.

    async def _from_browser(self) -> None:
        async for message in self._socket:
            if message.type is WSMsgType.BINARY:
                self._type(message.data)
            elif message.type is WSMsgType.TEXT:
                self._control(message.data)

    def _type(self, data: bytes) -> None:
        self._unaccepted += len(data)
        if self._unaccepted > self._window:
            raise ProtocolError(f"more than {self._window} bytes of input are not accepted yet")
        self._input += data
        self._typed.set()

    def _control(self, text: str) -> None:
        try:
            message = json.loads(text)
            kind = message["type"]
            if kind == "ack":
                self._acknowledge(_count(message["bytes"], self._sent))
            elif kind == "size":
                rows, columns = _count(message["rows"], MAX_SIZE), _count(message["columns"], MAX_SIZE)
                self._size = pb.WindowSize(rows=rows, columns=columns)
                self._typed.set()
            else:
                raise ProtocolError(f"unknown message {str(kind)[:20]!r}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProtocolError("not a message of docs/web.md") from error

    def _acknowledge(self, total: int) -> None:
        if total < self._acknowledged:
            raise ProtocolError("acknowledged less than before")
        self._acknowledged = total
        self._keeps_up.set()

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send_json(message)


def _count(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ProtocolError(f"not a number from 0 to {limit}")
    return value
