# SPDX-License-Identifier: GPL-2.0-or-later
"""This side of a terminal session: raw mode, pipes."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from splitvisor.process.streams import OutputError
from splitvisor.terminal.io import TextWatch, raw_mode, read_some, reader_gone, write_all


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_text_is_found_however_the_stream_is_cut(size: int) -> None:
    stream = b"boot... log in: here"
    watch = TextWatch(b"login: here".replace(b"in", b" in"))
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [watch.found(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_a_text_that_is_not_there_is_not_found() -> None:
    watch = TextWatch(b"aab")
    assert not any(watch.found(piece) for piece in (b"aa", b"a", b"ab"[:1], b"cb"))
    assert TextWatch(b"x").found(b"x")


def test_raw_mode_passes_keys_and_comes_back(terminal: tuple[int, int]) -> None:
    _, slave = terminal
    before = termios.tcgetattr(slave)
    with raw_mode(slave):
        inside = termios.tcgetattr(slave)
        assert not inside[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        assert not inside[0] & (termios.ICRNL | termios.IXON)
    assert termios.tcgetattr(slave) == before
    with pytest.raises(RuntimeError), raw_mode(slave):
        raise RuntimeError
    assert termios.tcgetattr(slave) == before


def test_raw_mode_leaves_pipes_alone() -> None:
    read_end, write_end = os.pipe()
    with raw_mode(read_end):
        pass
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_a_signal_kills(terminal: tuple[int, int], number: signal.Signals) -> None:
    _, slave = terminal
    before = termios.tcgetattr(slave)
    program = (
        "import os, signal, sys\nfrom splitvisor.terminal.io import raw_mode\n"
        # Under nohup, SIGHUP is ignored from the start, and stays so.
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "with raw_mode(0):\n    sys.stdout.write('raw\\n')\n    sys.stdout.flush()\n    signal.pause()\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], stdin=slave, stdout=subprocess.PIPE, cwd=root) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"raw\n"
        assert termios.tcgetattr(slave) != before
        child.send_signal(number)
        try:
            assert child.wait(10) == -number
        finally:
            child.kill()
    assert termios.tcgetattr(slave) == before


def test_a_pipe_is_read_to_its_end() -> None:
    read_end, write_end = os.pipe()

    async def scenario() -> bytes:
        reading = asyncio.create_task(read_some(read_end, 100))
        await asyncio.sleep(0)
        os.write(write_end, b"first")
        first = await reading
        os.close(write_end)
        return first + await read_some(read_end, 100)

    assert asyncio.run(scenario()) == b"first"
    os.close(read_end)


def test_regular_files_and_dev_null_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "commands"
    path.write_bytes(b"ls\n")
    for name, expected in ((str(path), b"ls\n"), (os.devnull, b"")):
        descriptor = os.open(name, os.O_RDONLY)
        assert asyncio.run(read_some(descriptor, 100)) == expected
        os.close(descriptor)


def test_a_hung_up_terminal_is_an_end_of_file() -> None:
    master, slave = pty.openpty()
    os.close(master)
    assert asyncio.run(read_some(slave, 100)) == b""
    os.close(slave)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_slow_reader_gets_every_byte_and_the_loop_goes_on(blocking: bool) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, blocking)
    data = os.urandom(300_000)

    async def scenario() -> bytes:
        writing = asyncio.create_task(write_all(write_end, data))
        got = bytearray()
        while len(got) < len(data):
            got += await read_some(read_end, 1000)
        await writing
        return bytes(got)

    assert asyncio.run(scenario()) == data
    os.close(read_end)
    os.close(write_end)


def test_a_closed_reader_is_told_from_a_full_disk() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(OutputError, match="Broken pipe") as closed:
        asyncio.run(write_all(write_end, b"x"))
    os.close(write_end)
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OutputError, match="No space left") as failed:
        asyncio.run(write_all(full, b"x"))
    os.close(full)
    assert (closed.value.reader_gone, failed.value.reader_gone) == (True, False)


def test_input_that_nohup_left_unreadable_is_at_its_end_and_a_directory_is_an_error(tmp_path: Path) -> None:
    unreadable = os.open(os.devnull, os.O_WRONLY)
    assert asyncio.run(read_some(unreadable, 100)) == b""
    os.close(unreadable)
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        asyncio.run(read_some(directory, 100))
    os.close(directory)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_pipe_whose_reader_goes_is_noticed_without_a_write(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    read_end, write_end = os.pipe()

    async def scenario() -> None:
        watching = asyncio.create_task(reader_gone(write_end))
        os.write(write_end, b"x")
        await asyncio.sleep(0)
        assert not watching.done()
        os.close(read_end)
        async with asyncio.timeout(10):
            await watching

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())
    os.close(write_end)
