# SPDX-License-Identifier: GPL-2.0-or-later
"""Telnet to the consoles: for conserver, and for people with nothing else at hand.

A port either belongs to one console, or asks which one is meant. Telnet knows neither passwords nor encryption: whoever reaches
the port may read, and type when nobody else does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from splitvisor.net.addresses import is_loopback, parse_host_port
from splitvisor.rpc import console_pb2
from splitvisor.service.serve import SettingError
from splitvisor.terminal.sequences import Boundary
from splitvisor.trap.server import TrapServicer
from vio_service.console.console import Attachment, Console, ConsoleBusyError
from vio_service.console.directory import ConsoleNotFoundError, consoles_of, find_console
from vio_service.console.telnet_protocol import Size, TelnetServer

MAX_CONNECTIONS = 64
"""Of all ports of a vio_service."""
MAX_REFUSED = 16
"""Clients beyond those that are told so at a time; more are cut off."""
REFUSE_SECONDS = 2.0
"""How long a client may take to hear that there is no room."""
MENU_SECONDS = 60.0
"""How long a choice may take."""
WAIT_SECONDS = 60.0
"""How long a port that belongs to a console waits for its VM."""
END_SECONDS = 0.5
"""How long the last words to a client may take."""
LINE_BYTES = 100
LISTED_CONSOLES = 40
READ_BYTES = 4096
WRITE_BYTES = 16 << 10
KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""A peer that is gone without a word is noticed within a minute, and the writer's place is free again."""

log = structlog.get_logger()


@dataclass(frozen=True)
class TelnetPort:
    """Where to listen, and for which console."""

    host: str
    port: int
    vm: str = ""
    """Empty: the client says."""
    unit_address: int = 0


def telnet_ports(loopback: str, anywhere: str, consoles: str) -> list[TelnetPort]:
    """Return the ports that settings name.

    Args:
        loopback: HOST:PORT on this host, or empty.
        anywhere: HOST:PORT on any network, or empty.
        consoles: VM[:UNIT]=PORT, with commas; on the host of one of the others.

    Raises SettingError.
    """
    if loopback and anywhere:
        raise SettingError("--telnet and --telnet-anywhere exclude each other", "give one")
    if not loopback and not anywhere:
        if consoles:
            raise SettingError("--telnet-consoles needs a host to listen at", "add --telnet 127.0.0.1:0")
        return []
    flag, text = ("--telnet", loopback) if loopback else ("--telnet-anywhere", anywhere)
    host, port = parse_host_port(text) or ("", 0)
    if not host:
        raise SettingError(f"{flag} {text}: give HOST:PORT, a port of 0 to 65535")
    if loopback and not is_loopback(host):
        remedy = "give 127.0.0.1:PORT, or --telnet-anywhere HOST:PORT"
        raise SettingError(f"{flag} {text}: telnet has no passwords and no encryption", remedy)
    ports = [TelnetPort(host, port)]
    for item in filter(None, consoles.split(",")):
        name, _, text = item.partition("=")
        vm, unit = parse_console(name)
        if not vm or unit is None:
            raise SettingError(f"--telnet-consoles {item}: give VM=PORT or VM:UNIT=PORT")
        console_port = parse_host_port(f":{text}")
        if console_port is None:
            raise SettingError(f"--telnet-consoles {item}: {text!r} is not a port", "give 0 to 65535")
        ports.append(TelnetPort(host, console_port[1], vm, unit))
    return ports


def parse_console(text: str) -> tuple[str, int | None]:
    """Return VM and unit address of "VM" or "VM:UNIT"; None for a unit address that is none."""
    vm, _, unit = text.strip().partition(":")
    try:
        number = int(unit, 0) if unit else 0
    except ValueError:
        return vm, None
    return vm, number if 0 <= number < 1 << 32 else None


class TelnetListener:
    """Listens at telnet ports for the consoles of a trap servicer's VMs."""

    def __init__(self, traps: TrapServicer) -> None:
        self._traps = traps
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._refused: set[asyncio.Task[None]] = set()
        """Those that are told that there is no room."""
        self.addresses: list[tuple[str, int]] = []
        """Where it listens, in the order of the ports."""

    async def start(self, ports: Sequence[TelnetPort]) -> None:
        """Listen. Raises SettingError when that cannot be."""
        for port in ports:
            try:
                server = await asyncio.start_server(partial(self._accept, port), port.host, port.port, limit=READ_BYTES)
            except OSError as error:
                await self.close()
                raise SettingError(f"telnet at {port.host}:{port.port}: {error.strerror}", "choose another port") from error
            self._servers.append(server)
            bound = server.sockets[0].getsockname()
            self.addresses.append((bound[0], bound[1]))
            log.info("telnet", host=bound[0], port=bound[1], vm=port.vm or "any")

    async def close(self) -> None:
        """Listen no more and end all connections."""
        for server in self._servers:
            server.close()
        if self._connections:  # Those at a console were told and end by themselves.
            await asyncio.wait(self._connections, timeout=END_SECONDS)
        tasks = {*self._connections, *self._refused}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, port: TelnetPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            if len(self._refused) >= MAX_REFUSED:
                writer.transport.abort()
                return
            log.warning("telnet client refused: too many connections", connections=len(self._connections))
            self._keep(self._refused, _refuse(reader, writer))
        else:
            self._keep(self._connections, _Connection(self._traps, reader, writer).run(port))

    @staticmethod
    def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a line and end the connection. What the client has sent is read first, or the close is a reset and drops the line."""
    try:
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(REFUSE_SECONDS):
                writer.write(b"[%d telnet clients are here already; try again later]\r\n" % MAX_CONNECTIONS)
                writer.write_eof()
                while await reader.read(READ_BYTES):
                    pass
    finally:
        writer.transport.abort()


class _ClosedError(Exception):
    """The other side is gone, or has nothing more to say."""


class _Connection:
    """One telnet client."""

    def __init__(self, traps: TrapServicer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._traps = traps
        self._reader = reader
        self._writer = writer
        self._telnet = TelnetServer()
        self._size: Size | None = None
        self._shown = Boundary()
        """Where the client's terminal is in the guest's output."""
        host, port = writer.get_extra_info("peername")[:2]
        self._name = f"telnet {host} port {port}"

    async def run(self, port: TelnetPort) -> None:
        """Serve it to its end."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        try:
            with suppress(_ClosedError, ConnectionError, TimeoutError):
                await self._reply()
                console = await self._wait_for(port) if port.vm else await self._ask()
                if console is not None:
                    await self._attach(console)
            await self._end()
        finally:
            self._writer.transport.abort()

    async def _end(self) -> None:
        """Let what was written last get out."""
        self._writer.close()
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._writer.wait_closed()

    async def _reply(self) -> None:
        """Send what the protocol has to say."""
        if self._telnet.replies:
            self._writer.write(bytes(self._telnet.replies))
            self._telnet.replies.clear()
        await self._writer.drain()

    async def _note(self, text: str, *, lost: bool = False) -> None:
        """Say something amid the guest's output. lost: what follows is not what follows there."""
        self._writer.write(self._telnet.encode(self._shown.interject(f"\r\n[{text}]\r\n".encode(), lost=lost)))
        await self._writer.drain()

    async def _say(self, text: str) -> None:
        self._writer.write(self._telnet.encode(text.encode()))
        await self._writer.drain()

    async def _keys(self) -> bytes:
        """Return the next keys; raise _ClosedError when there are none to come."""
        while True:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise _ClosedError
            keys = bytearray()
            for item in self._telnet.receive(data):
                if isinstance(item, Size):
                    self._size = item
                else:
                    keys += item
            await self._reply()
            if keys:
                return bytes(keys)

    # Which console.

    async def _wait_for(self, port: TelnetPort) -> Console | None:
        if self._traps.session(port.vm) is None:
            await self._say(f"[VM {port.vm} is not here; waiting for it]\r\n")
            await self._traps.wait_for_session(port.vm, WAIT_SECONDS)
        return await self._find(port.vm, port.unit_address)

    async def _find(self, vm: str, unit_address: int) -> Console | None:
        try:
            return find_console(self._traps, vm, unit_address)
        except ConsoleNotFoundError as error:
            await self._say(f"[{error}]\r\n")
            return None

    async def _ask(self) -> Console | None:
        consoles = consoles_of(self._traps)
        for console in consoles[:LISTED_CONSOLES]:
            writer = f", {console.writer.client} types" if console.writer is not None else ""
            await self._say(f"  {console.vm}:{console.unit_address:#x}{writer}\r\n")
        if len(consoles) > LISTED_CONSOLES:
            await self._say(f"  and {len(consoles) - LISTED_CONSOLES} more\r\n")
        await self._say("console (VM or VM:UNIT)? ")
        async with asyncio.timeout(MENU_SECONDS):
            line = await self._line()
        vm, unit = parse_console(line)
        if not vm or unit is None:
            await self._say("[no console]\r\n")
            return None
        return await self._find(vm, unit)

    async def _line(self) -> str:
        """Read a line and echo it, for this side has said that it does; keys after it are dropped."""
        line = bytearray()
        while True:
            for key in await self._keys():
                if key in b"\r\n":
                    await self._say("\r\n")
                    return line.decode(errors="replace")
                if key in b"\x03\x04":
                    raise _ClosedError
                if key in b"\x08\x7f":
                    if line:
                        line.pop()
                        await self._say("\b \b")
                elif 0x20 <= key < 0x7F and len(line) < LINE_BYTES:
                    line.append(key)
                    await self._say(chr(key))

    # At the console.

    async def _attach(self, console: Console) -> None:
        attachment: Attachment | None = None
        try:
            attachment = console.attach(self._name, writer=console.writer is None, force=False, replay=True)
            if console.writer is not None and not attachment.is_writer:
                await self._say(f"[{console.writer.client} types on this console; now reading only]\r\n")
            while attachment is not None:
                attachment = await self._converse(attachment)
        except ConsoleBusyError as error:
            await self._say(f"[{error}]\r\n")

    async def _converse(self, attachment: Attachment) -> Attachment | None:
        """Be at a console until it ends; return the attachment of a reader when somebody else took the writer's place."""
        receiving = asyncio.get_running_loop().create_task(self._receive(attachment))
        receiving.add_done_callback(lambda _: attachment.wake.set())
        console = attachment.console
        try:
            while True:
                attachment.wake.clear()
                skipped = attachment.take_skipped()
                if skipped:
                    await self._note(f"{skipped} bytes skipped", lost=True)
                    continue
                output = attachment.take_output(WRITE_BYTES)
                if output:
                    self._shown.feed(output)
                    self._writer.write(self._telnet.encode(output))
                    await self._writer.drain()
                elif attachment.end is not None:
                    await self._note(attachment.end.text)
                    if attachment.end.reason != console_pb2.CONSOLE_END_REASON_TAKEN_OVER:
                        return None
                    return console.attach(self._name, writer=False, force=False, replay=False, resume=attachment.position)
                elif receiving.done():
                    return None
                else:
                    await attachment.more()
        finally:
            console.detach(attachment)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _receive(self, attachment: Attachment) -> None:
        """Move keys to the guest. A reader that types becomes the writer when nobody is; else its keys are dropped."""
        told: Size | None = None
        while True:
            keys = await self._keys()
            if attachment.console.claim(attachment):
                if self._size is not None and self._size != told:
                    told = self._size
                    attachment.console.resize(attachment, told.rows, told.columns)
                await attachment.feed(keys)
