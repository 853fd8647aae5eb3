# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal at a console: what `splitvisor run` and `splitvisor console` attach.

Three tasks share the state of an attachment: one reads what is typed, one writes what the guest prints, one keeps the connection.
A lost connection is made again; output goes on where it stopped, as far as the console still has it, and input that did not
arrive is sent again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
import grpc.aio

from splitvisor.channels import explain, open_aio_channel
from splitvisor.rpc import console_pb2 as pb
from splitvisor.rpc import console_pb2_grpc
from splitvisor.terminal_io import EscapeFilter, OutputClosedError, TextWatch, raw_mode, read_some, write_all

RECONNECT_SECONDS = 60.0
"""How long vio_service may be away."""
UNWRITTEN_BYTES = 64 << 20
"""Output that waits for a slow reader of ours, before vio_service notices that we are slow."""
UNSENT_BYTES = 256 << 10
"""Typed input that waits for the guest, before no more is read."""
LEAVE_SECONDS = 1.0
"""How long what was typed before `^]` `q` may take to get out."""
READ_BYTES = 16 << 10

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

_Call = grpc.aio.StreamStreamCall[pb.AttachConsoleRequest, pb.AttachConsoleResponse]


class TerminalError(Exception):
    """The console cannot be attached; the text says why and what to do."""


class TerminalEnd(Enum):
    """Why a terminal came to its end."""

    LEFT = "left with ^] q"
    VM_ENDED = "the VM ended"
    EXIT_TEXT = "the guest printed the text that was waited for"
    TAKEN_OVER = "another terminal took over"
    OUTPUT_CLOSED = "nobody reads the output any more"
    LOST = "the connection was lost for too long"


@dataclass(frozen=True)
class TerminalResult:
    """How an attachment went."""

    end: TerminalEnd
    text: str
    """More about the end, in one line."""
    lost_bytes: int = 0
    """Output that the console no longer had when it was asked for."""


async def attach_terminal(
    address: str,
    vm: str,
    unit_address: int = 0,
    *,
    stdin: int = 0,
    stdout: int = 1,
    exit_text: bytes | None = None,
    writer: bool = True,
    force: bool = False,
    wait_seconds: float = 60.0,
    client_name: str | None = None,
    notify: Callable[[str], None] | None = None,
    opened: asyncio.Event | None = None,
) -> TerminalResult:
    """Connect two file descriptors to a console until one side ends.

    A stdin that is a terminal is put into raw mode, and `^]` `q` leaves. From anything else every byte goes to the guest; its end
    of file only ends the input.

    Args:
        address: of vio_service, as gRPC spells it.
        vm: the VM's name.
        unit_address: of the VTY; 0 is the VM's first.
        stdin: descriptor to read from.
        stdout: descriptor to write to.
        exit_text: ends the attachment once the guest has printed it.
        writer: False only watches; stdin is used for `^]` `q` alone.
        force: takes the console from another writer.
        wait_seconds: how long vio_service and the VM may take to appear, at most 60.
        client_name: what others are told about this terminal; user, host and process when not given.
        notify: gets remarks for people, such as lost output; stderr when not given.
        opened: set once the console is connected.

    Raises TerminalError when the console cannot be attached.
    """
    terminal = _Terminal(
        pb.ConsoleOpen(
            vm=vm,
            unit_address=unit_address,
            writer=writer,
            force=force,
            client_name=client_name or _own_name(),
            replay=True,
        ),
        stdin=stdin,
        stdout=stdout,
        watch=TextWatch(exit_text) if exit_text else None,
        wait_seconds=min(wait_seconds, RECONNECT_SECONDS),
        notify=notify or _to_stderr,
        opened=opened or asyncio.Event(),
    )
    with raw_mode(stdin):
        return await terminal.run(address)


def _own_name() -> str:
    user = os.environ.get("USER") or f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"[-200:]


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"\r\n[{text}]\r\n" if os.isatty(2) else f"[{text}]\n")
    sys.stderr.flush()


class _Terminal:
    """One attachment over all its connections."""

    def __init__(
        self,
        opening: pb.ConsoleOpen,
        *,
        stdin: int,
        stdout: int,
        watch: TextWatch | None,
        wait_seconds: float,
        notify: Callable[[str], None],
        opened: asyncio.Event,
    ) -> None:
        self._opening = opening
        self._stdin = stdin
        self._stdout = stdout
        self._watch = watch
        self._wait_seconds = wait_seconds
        self._notify = notify
        self._opened = opened
        self._input = bytearray()
        """From the first byte that was not acknowledged."""
        self._sent = 0
        """Bytes of _input that this connection has sent."""
        self._window = 0
        """Bytes of _input that may be under way; 0 while there is no connection."""
        self._connection = 0
        self._instance = 0
        self._received = 0
        """Position up to which the console has our input, counted as ConsoleOpened.input_received is."""
        self._position = 0
        """Of the next output byte."""
        self._output = bytearray()
        self._skip = 0
        """Bytes of output to come that are written already."""
        self._lost = 0
        self._resized = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._output_ready = asyncio.Event()
        self._output_taken = asyncio.Event()
        self._finished: TerminalResult | None = None

    async def run(self, address: str) -> TerminalResult:
        """Run until something ends it."""
        loop = asyncio.get_running_loop()
        resize_handler = False
        if os.isatty(self._stdin):
            self._resized = True
            with suppress(ValueError, RuntimeError):  # Only the main thread's loop can watch signals.
                loop.add_signal_handler(signal.SIGWINCH, self._resize)
                resize_handler = True
        jobs: list[Coroutine[Any, Any, TerminalResult | None]] = [self._read_input(), self._write_output()]
        async with open_aio_channel(address, CHANNEL_OPTIONS) as channel:
            tasks = [loop.create_task(job) for job in (*jobs, self._connect(channel))]
            try:
                return await _first_result(tasks)
            finally:
                if resize_handler:
                    loop.remove_signal_handler(signal.SIGWINCH)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _resize(self) -> None:
        self._resized = True
        self._changed.set()

    # This side.

    async def _read_input(self) -> TerminalResult | None:
        escapes = EscapeFilter() if os.isatty(self._stdin) else None
        if escapes is None and not self._opening.writer:
            return None
        while data := await read_some(self._stdin, READ_BYTES):
            typed = data if escapes is None else escapes.filter(data)
            if self._opening.writer:
                self._input += typed
                self._changed.set()
            if escapes is not None and escapes.left:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEAVE_SECONDS):
                        await self._drained()
                return TerminalResult(TerminalEnd.LEFT, TerminalEnd.LEFT.value, self._lost)
            while len(self._input) > UNSENT_BYTES:
                self._room.clear()
                await self._room.wait()
        return None

    async def _drained(self) -> None:
        while self._input:
            self._room.clear()
            await self._room.wait()

    async def _write_output(self) -> TerminalResult | None:
        while True:
            while not self._output:
                if self._finished is not None:
                    return self._finished
                self._output_ready.clear()
                await self._output_ready.wait()
            data = bytes(self._output)
            self._output.clear()
            self._output_taken.set()
            try:
                await write_all(self._stdout, data)
            except OutputClosedError as error:
                return TerminalResult(TerminalEnd.OUTPUT_CLOSED, str(error), self._lost)
            if self._watch is not None and self._watch.found(data):
                return TerminalResult(TerminalEnd.EXIT_TEXT, TerminalEnd.EXIT_TEXT.value, self._lost)

    def _finish(self, end: TerminalEnd, text: str) -> None:
        """End once all output is written."""
        self._finished = TerminalResult(end, text, self._lost)
        self._output_ready.set()

    # The console's side.

    async def _connect(self, channel: grpc.aio.Channel) -> TerminalResult | None:
        """Keep a connection until the console or the patience ends."""
        stub = console_pb2_grpc.ConsoleServiceStub(channel)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_seconds
        pause = 0.05
        reason = ""
        while (left := deadline - loop.time()) > 0:
            self._opening.wait_ms = int(left * 1000)
            call: _Call = stub.AttachConsole(self._requests(self._connection))
            try:
                if await self._converse(call):
                    return None
                reason = "vio_service ended the connection"
            except grpc.aio.AioRpcError as error:
                reason = explain(error)
                if error.code() is not grpc.StatusCode.UNAVAILABLE and not self._is_reconnecting(error):
                    raise TerminalError(reason) from error
            finally:
                call.cancel()
                self._connection += 1  # A request iterator that is still there must not take input any more.
                self._changed.set()
            if self._window:  # It was connected.
                self._window = 0
                deadline = loop.time() + RECONNECT_SECONDS
                pause = 0.05
            await asyncio.sleep(min(pause, max(deadline - loop.time(), 0)))
            pause = min(pause * 2, 1.0)
        if self._instance == 0:
            raise TerminalError(f"no console of VM {self._opening.vm!r} within {self._wait_seconds:g} s: {reason}")
        self._finish(TerminalEnd.LOST, reason)
        return None

    def _is_reconnecting(self, error: grpc.aio.AioRpcError) -> bool:
        """True for what may pass when there was a connection: the VM's own way back to vio_service, a reset stream."""
        passing = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
        return self._instance != 0 and error.code() in passing

    async def _converse(self, call: _Call) -> bool:
        """Use one connection to its end. True: the console has ended; False: connect again."""
        async for response in call:
            match response.WhichOneof("message"):
                case "opened":
                    self._resume(response.opened)
                case "output":
                    await self._take_output(response.output)
                case "input_accepted":
                    self._acknowledge(response.input_accepted)
                case "ended":
                    return self._take_end(response.ended)
        return False

    def _resume(self, opened: pb.ConsoleOpened) -> None:
        """Find out what of output and input the two sides have in common."""
        if self._instance == opened.instance:
            self._acknowledge(opened.input_received - self._received)
            gap = opened.offset - self._position
            if gap > 0:
                self._lose(gap)
                self._position = opened.offset
            self._skip = max(-gap, 0)
        else:
            if self._instance:
                self._notify("vio_service was restarted; output may be missing")
            self._received = opened.input_received
            self._position = opened.offset
            self._skip = 0
        self._instance = opened.instance
        self._sent = 0
        self._window = opened.input_window
        self._opening.unit_address = opened.unit_address
        self._opened.set()
        self._changed.set()

    def _lose(self, count: int) -> None:
        self._lost += count
        self._notify(f"{count} bytes lost")

    def _acknowledge(self, count: int) -> None:
        count = max(0, min(count, len(self._input)))
        del self._input[:count]
        self._sent = max(self._sent - count, 0)
        self._received += count
        self._changed.set()
        self._room.set()

    async def _take_output(self, data: bytes) -> None:
        known = min(self._skip, len(data))
        self._skip -= known
        self._output += data[known:]
        self._position += len(data) - known
        self._output_ready.set()
        while len(self._output) > UNWRITTEN_BYTES:
            self._output_taken.clear()
            await self._output_taken.wait()

    def _take_end(self, ended: pb.ConsoleEnded) -> bool:
        match ended.reason:
            case pb.CONSOLE_END_REASON_SLOW_READER | pb.CONSOLE_END_REASON_SHUTDOWN:
                return False
            case pb.CONSOLE_END_REASON_TAKEN_OVER:
                self._finish(TerminalEnd.TAKEN_OVER, ended.text)
            case _:
                self._finish(TerminalEnd.VM_ENDED, ended.text)
        return True

    async def _requests(self, connection: int) -> AsyncIterator[pb.AttachConsoleRequest]:
        """Make one connection's requests: input as far as the window allows, and the terminal's size when it changes."""
        yield pb.AttachConsoleRequest(open=self._opening)
        while connection == self._connection:
            end = min(len(self._input), self._window)
            if end > self._sent:
                data = bytes(self._input[self._sent : end])
                self._sent = end
                yield pb.AttachConsoleRequest(input=data)
            elif self._resized and self._window:
                self._resized = False
                yield pb.AttachConsoleRequest(window_size=_size(self._stdin))
            else:
                self._changed.clear()
                await self._changed.wait()


def _size(descriptor: int) -> pb.WindowSize:
    size = os.get_terminal_size(descriptor)
    return pb.WindowSize(rows=size.lines, columns=size.columns)


async def _first_result(tasks: list[asyncio.Task[TerminalResult | None]]) -> TerminalResult:
    """Return the first result that is one; a task that ends without one leaves it to the others."""
    running = set(tasks)
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            result = task.result()
            if result is not None:
                return result
    raise AssertionError("the writer of output ends with a result")
