# SPDX-License-Identifier: GPL-2.0-or-later
"""attach_terminal at a real vio_service: pipes, a pseudo-terminal, lost connections."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from splitvisor.terminal.io import read_some
from splitvisor.terminal.session import TerminalEnd, TerminalError, TerminalResult, attach_terminal
from tests.component.console_harness import (
    VTY,
    AnsweringTerminal,
    BareServer,
    Guest,
    Link,
    Viewer,
    VioServer,
    run_bare,
    vio_server,
)
from vio_service.console.console import INPUT_BYTES
from vio_service.console.directory import find_console
from vio_service.console.output_log import BACKLOG_BYTES


class Ends:
    """Two pipes: what the terminal reads as stdin, and what it writes as stdout."""

    def __init__(self) -> None:
        self.stdin, self._keys = os.pipe()
        self._screen, self.stdout = os.pipe()

    async def type(self, data: bytes) -> None:
        """Write everything, however slowly it is read."""
        await asyncio.to_thread(_write_all, self._keys, data)

    def end_of_file(self) -> None:
        os.close(self._keys)
        self._keys = -1

    async def shown(self, count: int) -> bytes:
        """Return exactly count bytes that were printed."""
        got = b""
        while len(got) < count:
            got += await read_some(self._screen, count - len(got))
        return got

    def stop_reading(self) -> None:
        os.close(self._screen)
        self._screen = -1

    def close(self) -> None:
        for descriptor in (self.stdin, self._keys, self._screen, self.stdout):
            if descriptor >= 0:
                os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@pytest.fixture
def ends() -> Iterator[Ends]:
    pipes = Ends()
    yield pipes
    pipes.close()


def run(scenario: Callable[[VioServer], Awaitable[None]]) -> None:
    async def with_server() -> None:
        async with vio_server() as server:
            await scenario(server)

    asyncio.run(with_server())


def start(address: str, ends: Ends, **options: object) -> asyncio.Task[TerminalResult]:
    attaching = attach_terminal(address, "vm", stdin=ends.stdin, stdout=ends.stdout, **options)  # type: ignore[arg-type]
    return asyncio.create_task(attaching)


def test_a_pipe_feeds_the_guest_and_the_end_of_the_vm_ends_the_terminal(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        terminal = start(server.address, ends)
        await ends.type(b"off\n")
        ends.end_of_file()
        async with Guest(server.address) as guest:
            guest.post(b"# ")
            assert await guest.read(4) == b"off\n"
            guest.post(b"bye\r\n")
            await guest.end()
        assert await ends.shown(7) == b"# bye\r\n"
        result = await terminal
        assert (result.end, result.lost_bytes) == (TerminalEnd.VM_ENDED, 0)

    run(scenario)


def test_every_byte_of_a_pipe_arrives_escape_keys_included_however_slow_the_guest(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        data = (b"\x1dq" + os.urandom(1000)).replace(b"\r", b"\n") * 150
        terminal = start(server.address, ends)
        typing = asyncio.create_task(ends.type(data))
        async with Guest(server.address) as guest:
            assert await guest.read(len(data)) == data
            await typing
            await guest.end()
        assert (await terminal).end is TerminalEnd.VM_ENDED

    run(scenario)


def test_every_byte_of_output_arrives_however_slow_the_reader(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        text = os.urandom(3 << 20)
        opened = asyncio.Event()
        terminal = start(server.address, ends, opened=opened)
        async with Guest(server.address) as guest:
            await opened.wait()
            for begin in range(0, len(text), 1 << 16):
                guest.post(text[begin : begin + (1 << 16)])
                await guest.settle()
            await guest.end()
            assert await ends.shown(len(text)) == text
        assert (await terminal).lost_bytes == 0

    run(scenario)


def test_the_exit_text_ends_the_terminal_however_it_is_cut(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        terminal = start(server.address, ends, exit_text=b"login:")
        async with Guest(server.address) as guest:
            guest.post(b"host lo")
            assert await ends.shown(7) == b"host lo"
            assert not terminal.done()
            guest.post(b"gin: ")
            assert (await terminal).end is TerminalEnd.EXIT_TEXT
            assert await ends.shown(4) == b"gin:"

    run(scenario)


def test_a_closed_output_ends_the_terminal(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        terminal = start(server.address, ends)
        async with Guest(server.address) as guest:
            guest.post(b"x")
            await ends.shown(1)
            ends.stop_reading()
            guest.post(b"y")
            assert (await terminal).end is TerminalEnd.OUTPUT_CLOSED

    run(scenario)


def test_a_vm_that_never_comes_is_an_error_that_names_it(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        with pytest.raises(TerminalError, match="no VM 'vm' is attached"):
            await start(server.address, ends, wait_seconds=0.2)
        with pytest.raises(TerminalError, match=r"no console of VM 'vm' at \S+\.gone within 0\.2 s"):
            await start(f"{server.address}.gone", ends, wait_seconds=0.2)

    run(scenario)


def test_a_console_with_a_writer_is_refused_and_can_be_taken_over(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        notes: list[str] = []
        async with Guest(server.address) as guest, Viewer(server.address, writer=True, client_name="alice") as alice:
            await alice.opened()
            with pytest.raises(TerminalError, match="alice types on this console"):
                await start(server.address, ends)
            terminal = start(server.address, ends, force=True, notify=notes.append)
            await alice.ended()
            async with Viewer(server.address, writer=True, client_name="carol", force=True) as carol:
                await carol.opened()
                guest.post(b"for both")
                assert await ends.shown(8) == b"for both", "who lost the writer's place reads on"
                assert notes == ["carol took over; now reading only"]
                await guest.end()
                assert (await terminal).end is TerminalEnd.VM_ENDED

    run(scenario)


def test_after_a_cut_nothing_is_lost_or_doubled_in_either_direction(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        text = b"".join(b"%06d" % number for number in range(5_000))
        data = b"".join(b"%07d" % number for number in range(20_000))
        async with (
            Guest(server.address) as guest,
            Link(server.socket_path, server.socket_path.with_name("link.sock")) as link,
        ):
            terminal = start(link.address, ends)
            typing = asyncio.create_task(ends.type(data))
            shown = asyncio.create_task(ends.shown(len(text)))
            got = b""
            for round_ in range(5):
                guest.post(text[round_ * 6000 : (round_ + 1) * 6000])
                got += await guest.read(25_000)
                link.cut()
            got += await guest.read(len(data) - len(got))
            assert got[: len(data)] == data
            await typing
            assert await shown == text
            await guest.end()
            result = await terminal
            assert (result.end, result.lost_bytes) == (TerminalEnd.VM_ENDED, 0)

    run(scenario)


def test_output_that_the_console_no_longer_has_is_counted(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        notes: list[str] = []
        path = server.socket_path.with_name("link.sock")
        async with Guest(server.address) as guest:
            async with Link(server.socket_path, path) as link:
                terminal = start(link.address, ends, notify=notes.append)
                guest.post(b"first")
                assert await ends.shown(5) == b"first"
            guest.post(b"x" * 1000 + b"y" * BACKLOG_BYTES)
            await guest.settle()
            path.unlink(missing_ok=True)
            async with Link(server.socket_path, path):
                assert await ends.shown(BACKLOG_BYTES) == b"y" * BACKLOG_BYTES
                await guest.end()
                assert (await terminal).lost_bytes == 1000
        assert notes[0].startswith("disconnected: ")
        assert notes[1:] == ["connected again", "1000 bytes skipped: too slow, or disconnected for too long"]

    run(scenario)


def test_a_restarted_vio_service_is_found_again(ends: Ends) -> None:
    async def scenario(server: VioServer) -> None:
        notes: list[str] = []
        terminal = start(server.address, ends, notify=notes.append)
        async with Guest(server.address) as guest:
            guest.post(b"before")
            assert await ends.shown(6) == b"before"
        await server.stop()
        await server.start()
        async with Guest(server.address, sequence=100) as guest:
            guest.post(b"now")
            assert await ends.shown(3) == b"now"
            await ends.type(b"still here")
            assert await guest.read(10) == b"still here"
            await guest.end()
        assert (await terminal).end is TerminalEnd.VM_ENDED
        assert notes[-1] == "vio_service was restarted; output may be missing"

    run(scenario)


def test_on_a_terminal_keys_pass_raw_and_the_escape_leaves() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    async def scenario(server: VioServer) -> None:
        opened = asyncio.Event()
        async with Guest(server.address) as guest:
            attaching = attach_terminal(server.address, "vm", stdin=slave, stdout=slave, opened=opened)
            terminal = asyncio.create_task(attaching)
            await opened.wait()
            os.write(master, b"\x03\x04\x1d\x1dls\n")
            assert await guest.read(6) == b"\x03\x04\x1dls\n"
            guest.post(b"file\r\n")
            assert await read_some(master, 100) == b"file\r\n", "nothing is echoed by this side"
            os.write(master, b"gone\x1dq and more")
            assert (await terminal).end is TerminalEnd.LEFT
            assert await guest.read(4) == b"gone"
            assert (await guest.call("H_GET_TERM_CHAR", 0)).outputs[0] == 0

    run(scenario)
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_the_escape_leaves_also_while_there_is_no_vio_service() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    async def scenario() -> None:
        attaching = attach_terminal("unix:/nowhere/vio.sock", "vm", stdin=slave, stdout=slave)
        terminal = asyncio.create_task(attaching)
        os.write(master, b"\x1dq")
        async with asyncio.timeout(10):
            assert (await terminal).end is TerminalEnd.LEFT

    asyncio.run(scenario())
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_a_cancelled_attachment_restores_the_terminal() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    async def scenario(server: VioServer) -> None:
        opened = asyncio.Event()
        async with Guest(server.address):
            attaching = attach_terminal(server.address, "vm", stdin=slave, stdout=slave, opened=opened)
            terminal = asyncio.create_task(attaching)
            await opened.wait()
            assert termios.tcgetattr(slave) != before
            terminal.cancel()
            with suppress(asyncio.CancelledError):
                await terminal
            assert termios.tcgetattr(slave) == before

    run(scenario)
    os.close(master)
    os.close(slave)


def test_the_size_of_the_terminal_is_told_at_first_and_when_it_changes() -> None:
    master, slave = pty.openpty()

    async def scenario(server: BareServer) -> None:
        async with Guest(server.address):
            console = find_console(server.traps, "vm", 0)
            termios.tcsetwinsize(slave, (40, 100))
            terminal = asyncio.create_task(attach_terminal(server.address, "vm", stdin=slave, stdout=slave))
            while console.window_size != (40, 100):
                await asyncio.sleep(0.01)
            termios.tcsetwinsize(slave, (50, 120))
            os.kill(os.getpid(), signal.SIGWINCH)
            while console.window_size != (50, 120):
                await asyncio.sleep(0.01)
            os.write(master, b"\x1dq")
            await terminal

    run_bare(scenario)
    os.close(master)
    os.close(slave)


def test_the_menu_gives_the_console_away_takes_it_back_and_goes_to_the_next() -> None:
    master, slave = pty.openpty()

    async def scenario(server: BareServer) -> None:
        notes: list[str] = []

        async def noted(text: str) -> None:
            while not any(text in note for note in notes):
                await asyncio.sleep(0.01)
            notes.clear()

        async with Guest(server.address, vtys=2) as guest:
            first, second = find_console(server.traps, "vm", VTY), find_console(server.traps, "vm", VTY + 1)
            guest.post(b"one.")
            guest.post(b"two.", VTY + 1)
            await guest.settle()
            attaching = attach_terminal(server.address, "vm", stdin=slave, stdout=slave, notify=notes.append, client_name="me")
            terminal = asyncio.create_task(attaching)
            assert await read_some(master, 4) == b"one."
            os.write(master, b"before\x1drdropped")
            await noted("read only")
            assert await guest.read(6) == b"before"
            async with Viewer(server.address, writer=True, client_name="alice") as alice:
                await alice.opened()
                guest.post(b"both")
                assert await read_some(master, 4) == b"both", "the replay does not come again"
                os.write(master, b"\x1dl")
                await noted("alice types, 2 attached, here")
                os.write(master, b"\x1df")
                await alice.output(8)
                assert (await alice.ended()).text == "me took over"
            os.write(master, b"\x1dsafter")
            await noted("types; 0 bytes lost")
            assert await guest.read(5) == b"after"
            os.write(master, b"\x1dn")
            assert await read_some(master, 4) == b"two."
            assert (first.writer, second.describe().writer) == (None, "me")
            os.write(master, b"\x1d")
            await noted("q quit")
            os.write(master, b"q")
            assert (await terminal).end is TerminalEnd.LEFT

    run_bare(scenario)
    os.close(master)
    os.close(slave)


@asynccontextmanager
async def command_at_a_terminal(address: str, *arguments: str) -> AsyncIterator[tuple[AnsweringTerminal, int]]:
    """Run `splitvisor console` with output and remarks on a pseudo-terminal that answers; yield that, and its other side."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "splitvisor", "console", *arguments, "--vio", address]
    process = await asyncio.create_subprocess_exec("setsid", "--ctty", *command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    terminal = AnsweringTerminal(master)
    try:
        yield terminal, master
        await process.wait()
    finally:
        await terminal.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)


def test_a_terminal_answers_what_the_guest_asks_now_and_nothing_older() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address) as guest:
            guest.post(b"~ # \x1b[6n\x1b[c\x1b]11;?\x07")
            await guest.settle()
            async with command_at_a_terminal(server.address, "attach", "vm") as (terminal, master):
                await terminal.until(b"[VM vm, console 0x71000000: you type here; ^] ? shows the keys, ^] q leaves]\r\n~ # ")
                guest.post(b"now: \x1b[6n")
                assert await guest.read(8) == b"\x1b[24;80R", "the first that it reads"
                os.write(master, b"\x1dq")
            async with command_at_a_terminal(server.address, "log", "vm") as (terminal, _):
                await terminal.until(b"now: ")
            assert b"\x1b" not in terminal.shown

    run(scenario)


def test_a_notice_does_not_stand_in_the_middle_of_a_sequence() -> None:
    async def scenario(server: VioServer) -> None:
        async with (
            Guest(server.address) as guest,
            command_at_a_terminal(server.address, "attach", "vm", "--read-only") as (terminal, master),
        ):
            await terminal.until(b"only reading")
            guest.post(b"a\x1b[3")
            await terminal.until(b"a\x1b[3")
            os.write(master, b"\x1d")
            await terminal.until(b"send ^]]\r\n\x1b[3")
            guest.post("1mred ä".encode()[:-1])
            await terminal.until(b"1mred \xc3")
            os.write(master, b"s")
            await terminal.until(b"bytes lost]\r\n\xc3")
            guest.post(b"\xa4.")
            await terminal.until(b"\xc3\xa4.")
            os.write(master, b"\x1dq")
        assert terminal.shown.count(b"\x18") == 1
        assert b"a\x1b[3\x18\r\n[q quit" in terminal.shown

    run(scenario)


def test_a_paste_that_does_not_fit_is_counted_and_can_be_dropped() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address) as guest, command_at_a_terminal(server.address, "attach", "vm") as (terminal, master):
            await terminal.until(b"^] q leaves")
            paste = 1_300_000
            await asyncio.to_thread(_write_all, master, b"x" * paste)
            await terminal.until(b"^] d drops them]")
            match = re.search(
                rb"\[the guest does not read, and the input queue is full: (\d+) bytes are not taken, (\d+) bytes wait",
                terminal.shown,
            )
            assert match is not None
            assert int(match[1]) + int(match[2]) + INPUT_BYTES == paste
            os.write(master, b"\x1ddls\r")
            await terminal.until(b"bytes of input dropped]")
            assert b"[%d bytes of input dropped]" % (int(match[2]) + INPUT_BYTES) in terminal.shown
            assert await guest.read(3) == b"ls\r"
            os.write(master, b"\x1dq")

    run(scenario)
