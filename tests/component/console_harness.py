# SPDX-License-Identifier: GPL-2.0-or-later
"""For console tests: a real vio_service on a unix socket, cpu_service's end of the trap stream, and a link that can be cut."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import struct
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import grpc
import grpc.aio

from splitvisor.rpc import console_pb2, console_pb2_grpc, trap_pb2, trap_pb2_grpc
from splitvisor.service.serve import SERVER_OPTIONS
from splitvisor.terminal.io import read_some
from splitvisor.trap.server import TrapServicer
from vio_service import service
from vio_service.console.server import ConsoleServicer
from vio_service.session import vio_session

RAM_BYTES = 1 << 20
VTY = 0x71000000
DEADLINE = 60.0
"""Seconds after which a test fails instead of waiting on."""


class VioServer:
    """vio_service in this process, which can be stopped and started again at its address."""

    def __init__(self, directory: Path, *, transcripts: bool = False) -> None:
        self.address = f"unix:{directory}/vio.sock"
        self.socket_path = directory / "vio.sock"
        self._options = service.Options(transcripts=directory / "log" if transcripts else None)

    async def start(self) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._stop = await service.start(self._server, self._options)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self, grace: float | None = 0.1) -> None:
        await self._stop()
        await self._server.stop(grace)


@asynccontextmanager
async def vio_server(*, transcripts: bool = False) -> AsyncIterator[VioServer]:
    """Run vio_service for a test that has DEADLINE seconds."""
    directory = Path(tempfile.mkdtemp(prefix="sv", dir="/tmp"))
    server = VioServer(directory, transcripts=transcripts)
    await server.start()
    try:
        async with asyncio.timeout(DEADLINE):
            yield server
    finally:
        await server.stop()
        shutil.rmtree(directory)


class BareServer:
    """The servicers of vio_service on a unix socket, and the sessions behind them in the test's reach."""

    def __init__(self, directory: Path) -> None:
        self.address = f"unix:{directory}/vio.sock"
        self.traps = TrapServicer("vio_service", vio_session)
        self._server = grpc.aio.server()
        trap_pb2_grpc.add_TrapServiceServicer_to_server(self.traps, self._server)
        console_pb2_grpc.add_ConsoleServiceServicer_to_server(ConsoleServicer(self.traps), self._server)
        self._server.add_insecure_port(self.address)

    async def run(self, scenario: Callable[[BareServer], Awaitable[None]]) -> None:
        await self._server.start()
        try:
            async with asyncio.timeout(DEADLINE):
                await scenario(self)
        finally:
            await self.traps.close()
            await self._server.stop(0.1)


def run_bare(scenario: Callable[[BareServer], Awaitable[None]]) -> None:
    """Run a test at a BareServer of its own."""

    async def with_server(directory: Path) -> None:
        await BareServer(directory).run(scenario)

    with tempfile.TemporaryDirectory(prefix="sv", dir="/tmp") as directory:
        asyncio.run(with_server(Path(directory)))


class Guest:
    """A VM as vio_service sees it: makes traps and keeps what comes back."""

    def __init__(self, address: str, vm: str = "vm", vtys: int = 1, incarnation: int = 1, sequence: int = 0) -> None:
        self.hello = trap_pb2.Hello(
            vm=vm,
            beginning=trap_pb2.BEGINNING_RUNNING,
            incarnation=incarnation,
            vcpus=1,
            ram_bytes=RAM_BYTES,
            devices=[trap_pb2.DeviceSpec(kind="vty") for _ in range(vtys)] + [trap_pb2.DeviceSpec(kind="nvram")],
            positions=[trap_pb2.VcpuPosition(sequence=sequence)] if sequence else [],
            slots=trap_pb2.SlotRange(count=64),
        )
        self.interrupts: asyncio.Queue[int] = asyncio.Queue()
        self.ram = bytearray(RAM_BYTES)
        self.acknowledged = 0
        self._address = address
        self._sequence = sequence
        self._outgoing: asyncio.Queue[trap_pb2.AttachRequest | None] = asyncio.Queue()
        self._replies: asyncio.Queue[trap_pb2.Reply] = asyncio.Queue()
        self._resets: asyncio.Queue[int] = asyncio.Queue()
        self._offered = asyncio.Event()
        self._moved = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address)
        stub = trap_pb2_grpc.TrapServiceStub(self._channel)
        self._reader = asyncio.create_task(self._read(stub.Attach(self._requests())))
        offered = asyncio.create_task(self._offered.wait())
        await asyncio.wait({offered, self._reader}, return_when=asyncio.FIRST_COMPLETED)
        if self._reader.done():
            offered.cancel()
            await self._channel.close(None)
            self._reader.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._channel.close(None)

    async def _requests(self) -> AsyncIterator[trap_pb2.AttachRequest]:
        yield trap_pb2.AttachRequest(hello=self.hello)
        while (request := await self._outgoing.get()) is not None:
            yield request

    async def _read(self, responses: AsyncIterable[trap_pb2.AttachResponse]) -> None:
        async for response in responses:
            match response.WhichOneof("message"):
                case "offer":
                    self.offer = response.offer
                    self.routes = {route.name: index for index, route in enumerate(self.offer.routes)}
                    self._offered.set()
                case "reply":
                    self._replies.put_nowait(response.reply)
                case "acknowledge":
                    self.acknowledged = response.acknowledge.sequence
                    self._moved.set()
                case "interrupt":
                    self.interrupts.put_nowait(response.interrupt.source)
                case "reset_done":
                    self._resets.put_nowait(response.reset_done.count)
                case "memory_read":
                    wanted = response.memory_read.range
                    data = bytes(self.ram[wanted.address : wanted.address + wanted.length])
                    result = trap_pb2.MemoryResult(id=response.memory_read.id, ok=True, data=data)
                    self._outgoing.put_nowait(trap_pb2.AttachRequest(memory_result=result))

    def _trap(self, name: str, arguments: Sequence[int], returns: int = 0) -> trap_pb2.Trap:
        self._sequence += 1
        return trap_pb2.Trap(sequence=self._sequence, route=self.routes[name], arguments=arguments, returns=returns)

    async def call(self, name: str, *arguments: int, returns: int = 0) -> trap_pb2.Reply:
        """Make a synchronous call. Raises what ended the connection when there is no reply."""
        self._outgoing.put_nowait(trap_pb2.AttachRequest(trap=self._trap(name, arguments, returns)))
        reply = asyncio.create_task(self._replies.get())
        await asyncio.wait({reply, self._reader}, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            reply.cancel()
            self._reader.result()
        return await reply

    async def reset(self, count: int = 1) -> None:
        """Reset the machine."""
        self._outgoing.put_nowait(trap_pb2.AttachRequest(reset=trap_pb2.Reset(count=count)))
        assert await self._resets.get() == count

    def post(self, text: bytes, unit_address: int = VTY) -> None:
        """Print, as posted H_PUT_TERM_CHAR calls in batches."""
        blocks = [text[start : start + 16] for start in range(0, len(text), 16)]
        traps = [
            self._trap("H_PUT_TERM_CHAR", (unit_address, len(block), *struct.unpack(">2Q", block.ljust(16, b"\0"))))
            for block in blocks
        ]
        for start in range(0, len(traps), 1000):
            batch = trap_pb2.PostedBatch(traps=traps[start : start + 1000])
            self._outgoing.put_nowait(trap_pb2.AttachRequest(posted=batch))

    async def settle(self) -> None:
        """Wait until everything posted is acknowledged."""
        while self.acknowledged < self._sequence:
            self._moved.clear()
            await self._moved.wait()

    async def read(self, count: int, unit_address: int = VTY) -> bytes:
        """Read count bytes as a guest's driver does: after an interrupt, until there is nothing more."""
        got = bytearray()
        while len(got) < count:
            reply = await self.call("H_GET_TERM_CHAR", unit_address)
            length, *words = reply.outputs
            got += struct.pack(">2Q", *words)[:length]
            if not length:
                await self.interrupts.get()
        return bytes(got)

    async def end(self) -> None:
        """End the VM."""
        self._outgoing.put_nowait(trap_pb2.AttachRequest(detach=trap_pb2.Detach(reason="test")))
        await self._reader


class Viewer:
    """A hand-made client of ConsoleService."""

    def __init__(self, address: str, **opening: object) -> None:
        self._address = address
        values = {"vm": "vm", "client_name": "viewer", "replay": True, **opening}
        self.requests: asyncio.Queue[console_pb2.AttachConsoleRequest | None] = asyncio.Queue()
        self.requests.put_nowait(console_pb2.AttachConsoleRequest(open=console_pb2.ConsoleOpen(**values)))  # type: ignore[arg-type]

    async def __aenter__(self) -> Viewer:
        self._channel = grpc.aio.insecure_channel(self._address)
        self._call = console_pb2_grpc.ConsoleServiceStub(self._channel).AttachConsole(self._requests())
        self.responses = aiter(self._call)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
        await self._channel.close(None)

    async def _requests(self) -> AsyncIterator[console_pb2.AttachConsoleRequest]:
        while (request := await self.requests.get()) is not None:
            yield request

    async def opened(self) -> console_pb2.ConsoleOpened:
        response = await anext(self.responses)
        assert response.HasField("opened")
        return response.opened

    def type(self, data: bytes) -> None:
        self.requests.put_nowait(console_pb2.AttachConsoleRequest(input=data))

    async def output(self, count: int) -> bytes:
        """Return exactly count bytes of output."""
        got = b""
        while len(got) < count:
            response = await anext(self.responses)
            assert response.HasField("output"), response
            got += response.output
        assert len(got) == count
        return got

    async def accepted(self, count: int) -> None:
        """Wait until count bytes of input are acknowledged."""
        while count > 0:
            response = await anext(self.responses)
            assert response.HasField("input_accepted"), response
            count -= response.input_accepted
        assert count == 0

    async def ended(self) -> console_pb2.ConsoleEnded:
        response = await anext(self.responses)
        assert response.HasField("ended"), response
        return response.ended

    async def refusal(self) -> grpc.aio.AioRpcError:
        """Return the error that ends the call."""
        try:
            while True:
                await anext(self.responses)
        except grpc.aio.AioRpcError as error:
            return error


class Link:
    """A relay between two unix sockets whose connections can be cut."""

    def __init__(self, target: Path, path: Path) -> None:
        self.address = f"unix:{path}"
        self._target = target
        self._path = path
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Link:
        self._server = await asyncio.start_unix_server(self._relay, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection; new ones are possible."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, far_writer}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        self._writers -= {writer, far_writer}


class AnsweringTerminal:
    """The other side of a pseudo-terminal, which answers queries as xterm does, and keeps what it is shown."""

    ANSWERS: Mapping[bytes, bytes] = {
        b"\x1b[6n": b"\x1b[24;80R",
        b"\x1b[c": b"\x1b[?64;1;2c",
        b"\x1b]11;?\x07": b"\x1b]11;rgb:0000/0000/0000\x07",
    }

    def __init__(self, master: int) -> None:
        self.shown = b""
        self._master = master
        self._answered = 0
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while data := await read_some(self._master, 4096):
            self.shown += data
            queries = re.compile(b"|".join(map(re.escape, self.ANSWERS)))
            while match := queries.search(self.shown, self._answered):
                self._answered = match.end()
                os.write(self._master, self.ANSWERS[match[0]])
            self._changed.set()

    async def until(self, text: bytes) -> None:
        """Wait until it has shown a text."""
        while text not in self.shown:
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
