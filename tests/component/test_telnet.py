# SPDX-License-Identifier: GPL-2.0-or-later
"""Telnet at a real vio_service: raw clients, and Debian's telnet on a pseudo terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from splitvisor.service.serve import SettingError
from splitvisor.terminal.io import read_some
from tests.component.console_harness import VTY, AnsweringTerminal, BareServer, Guest, Viewer, run_bare
from vio_service.console.directory import find_console
from vio_service.console.telnet import MAX_CONNECTIONS, TelnetListener, TelnetPort, telnet_ports
from vio_service.console.telnet_protocol import IAC, SB, SE, WILL, Option, TelnetServer

OPENING = bytes(TelnetServer().replies)


@asynccontextmanager
async def listening(server: BareServer, *ports: TelnetPort) -> AsyncIterator[list[int]]:
    listener = TelnetListener(server.traps)
    await listener.start(ports)
    try:
        yield [port for _, port in listener.addresses]
    finally:
        await listener.close()


class Client:
    """A raw telnet client, past the server's opening."""

    async def connect(self, port: int) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        assert await self.reader.readexactly(len(OPENING)) == OPENING
        return self

    async def until(self, text: bytes) -> bytes:
        return await self.reader.readuntil(text)

    def type(self, data: bytes) -> None:
        self.writer.write(data)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def port_of(vm: str = "") -> TelnetPort:
    return TelnetPort("127.0.0.1", 0, vm)


def test_a_port_of_a_console_shows_the_replay_and_types() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest, listening(server, port_of("vm")) as [port]:
            guest.post(b"log in:\xff\r")
            await guest.settle()
            client = await Client().connect(port)
            assert await client.until(b"\r") == b"log in:\xff\xff\r"
            client.type(b"root\r\0\xff\xff")
            assert await guest.read(6) == b"root\r\xff"
            guest.post(b"# \r\n")
            assert await client.until(b"\r\n") == b"\0# \r\n"
            await guest.end()
            assert b"[the VM has ended]" in await client.reader.read()
            await client.close()

    run_bare(scenario)


def test_a_port_without_a_console_lists_them_and_asks() -> None:
    async def scenario(server: BareServer) -> None:
        async with (
            Guest(server.address, vm="a"),
            Guest(server.address, vm="b", vtys=2) as guest,
            Viewer(server.address, vm="a", writer=True, client_name="alice") as alice,
            listening(server, port_of()) as [port],
        ):
            await alice.opened()
            client = await Client().connect(port)
            assert await client.until(b"? ") == (
                b"  a:0x71000000, alice types\r\n  b:0x71000000\r\n  b:0x71000001\r\nconsole (VM or VM:UNIT)? "
            )
            client.type(b"bx\x7f:0x71000001\r\n")
            assert await client.until(b"\r\n") == b"bx\b \b:0x71000001\r\n"
            client.type(b"k")
            assert await guest.read(1, VTY + 1) == b"k"
            await client.close()

            client = await Client().connect(port)
            await client.until(b"? ")
            client.type(b"c\r\n")
            assert (await client.reader.read()).endswith(b"[no VM 'c' is attached to this vio_service]\r\n")
            await client.close()

    run_bare(scenario)


def test_a_second_writer_reads_and_types_once_the_place_is_free() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest, listening(server, port_of("vm")) as [port]:
            async with Viewer(server.address, writer=True, client_name="alice") as alice:
                await alice.opened()
                client = await Client().connect(port)
                assert b"alice types on this console; now reading only" in await client.until(b"]\r\n")
                client.type(b"dropped")
                guest.post(b"for both\r\n")
                assert await client.until(b"\r\n") == b"for both\r\n"
            console = find_console(server.traps, "vm", 0)
            while console.writer is not None:
                await asyncio.sleep(0.01)
            client.type(b"typed")
            assert await guest.read(5) == b"typed"
            async with Viewer(server.address, writer=True, client_name="bob", force=True) as bob:
                await bob.opened()
                assert b"[bob took over]" in await client.until(b"]\r\n")
                guest.post(b"still read\r\n")
                assert await client.until(b"read\r\n") == b"still read\r\n"
            await client.close()

    run_bare(scenario)


def test_the_size_of_its_window_is_known() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest, listening(server, port_of("vm")) as [port]:
            client = await Client().connect(port)
            client.type(bytes((IAC, WILL, Option.NAWS, IAC, SB, Option.NAWS, 0, 132, 0, 50, IAC, SE)) + b"k")
            assert await guest.read(1) == b"k"
            assert find_console(server.traps, "vm", 0).window_size == (50, 132)
            await client.close()

    run_bare(scenario)


def test_a_client_that_never_reads_is_skipped_and_the_guest_goes_on() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest, listening(server, port_of("vm")) as [port]:
            console = find_console(server.traps, "vm", 0)
            client = await Client().connect(port)
            while not console.describe().clients:
                await asyncio.sleep(0.01)
            for _ in range(24):  # More than sockets and stream buffers take.
                console.write(b"x" * (1 << 20))
                await asyncio.sleep(0.01)
            text = b"end of it\r\n"
            guest.post(text)
            await guest.settle()
            shown = b""
            while not shown.endswith(text):
                shown = shown[-200_000:] + await client.reader.read(1 << 16)
            assert b" bytes skipped]" in shown
            (described,) = console.describe().clients
            assert described.skipped_bytes > 0
            await client.close()

    run_bare(scenario)


def test_connections_are_bounded() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address), listening(server, port_of()) as [port]:
            clients = [await Client().connect(port) for _ in range(MAX_CONNECTIONS)]
            # Each is told and closed, one that has sent something meanwhile as well.
            refused = []
            for sent in (b"", b"vm\r\n" * 1000, b""):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                assert await reader.read() == b"[64 telnet clients are here already; try again later]\r\n"
                refused.append(writer)
            for each in (*refused, *(client.writer for client in clients)):
                each.close()
                await each.wait_closed()

    run_bare(scenario)


def test_debians_telnet_types_and_shows() -> None:
    if shutil.which("telnet") is None:
        pytest.skip("there is no telnet (apt-get install inetutils-telnet)")

    async def scenario(server: BareServer) -> None:
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (33, 99))
        async with Guest(server.address) as guest, listening(server, port_of("vm")) as [port]:
            guest.post(b"\xffwelcome\r\n")
            client = await asyncio.create_subprocess_exec(
                "telnet", "-E", "127.0.0.1", str(port), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                env={**os.environ, "TERM": "vt100"},
            )  # fmt: skip
            shown = b""
            while b"\xffwelcome" not in shown:
                shown += await read_some(master, 1000)
            os.write(master, b"ls \xff\x03\r")
            assert await guest.read(6) == b"ls \xff\x03\r", "character by character, nothing is taken for a signal"
            assert find_console(server.traps, "vm", 0).window_size == (33, 99)
            guest.post(b"done\r\n")
            while b"done\r\n" not in shown:
                shown += await read_some(master, 1000)
            assert b"ls" not in shown, "the guest echoes, not the client"
            await guest.end()
            await client.wait()
        os.close(master)
        os.close(slave)

    run_bare(scenario)


def test_a_terminal_behind_telnet_answers_what_the_guest_asks_now_and_nothing_older() -> None:
    async def scenario(server: BareServer) -> None:
        master, slave = pty.openpty()
        async with Guest(server.address) as guest, listening(server, port_of("vm")) as [port]:
            guest.post(b"~ # \x1b[6n\x1b[c\x1b]11;?\x07")
            await guest.settle()
            client = await asyncio.create_subprocess_exec(
                "telnet", "-E", "127.0.0.1", str(port), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                env={**os.environ, "TERM": "xterm"},
            )  # fmt: skip
            terminal = AnsweringTerminal(master)
            await terminal.until(b"~ # ")
            guest.post(b"now: \x1b[6n.")
            await terminal.until(b"now: \x1b[6n.")
            assert await guest.read(8) == b"\x1b[24;80R", "the first that it reads"
            guest.post(b"cut\x1b[3")
            await terminal.until(b"cut\x1b[3")
            await guest.end()
            await terminal.until(b"\x18\r\n[the VM has ended]")
            await client.wait()
            await terminal.close()
        os.close(master)
        os.close(slave)

    run_bare(scenario)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (("0.0.0.0:23", "", ""), "no passwords"),
        (("example.org:23", "", ""), "no passwords"),
        (("127.0.0.1:23", "0.0.0.0:23", ""), "exclude each other"),
        (("127.0.0.1:x", "", ""), "a port of 0 to 65535"),
        (("", "", "vm=7000"), "needs a host"),
        (("127.0.0.1:0", "", "vm:zz=7000"), "give VM=PORT"),
        (("127.0.0.1:0", "", "=7000"), "give VM=PORT"),
        (("127.0.0.1:0", "", "vm=70000"), "0 to 65535"),
    ],
)
def test_bad_settings_are_refused(settings: tuple[str, str, str], text: str) -> None:
    with pytest.raises(SettingError, match=text):
        telnet_ports(*settings)


def test_settings_name_ports() -> None:
    assert telnet_ports("", "", "") == []
    assert telnet_ports("[::1]:23", "", "") == [TelnetPort("::1", 23)]
    assert telnet_ports("", "0.0.0.0:23", "a=7001,b:0x71000001=7002") == [
        TelnetPort("0.0.0.0", 23),
        TelnetPort("0.0.0.0", 7001, "a"),
        TelnetPort("0.0.0.0", 7002, "b", 0x71000001),
    ]
