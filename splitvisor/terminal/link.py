# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal's way to a console, over all its connections: output without gaps, input exactly once.

A lost connection is made again; output goes on where it stopped, as far as the console still has it, and input that did not
arrive is sent again. Who loses the writer's place reads on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum

import grpc
import grpc.aio

from splitvisor.errors.status import problem_in
from splitvisor.limits import MESSAGE_BYTES
from splitvisor.net.channels import CONNECT_MS, explain, open_aio_channel
from splitvisor.net.pages import every_aio
from splitvisor.net.times import duration
from splitvisor.process.text import shown
from splitvisor.rpc import console_pb2 as pb
from splitvisor.rpc import console_pb2_grpc
from splitvisor.terminal.sequences import units_end

RECONNECT_SECONDS = 60.0
"""How long vio_service may be away."""
UNREAD_BYTES = 64 << 20
"""Output that waits for a slow reader of ours, before vio_service notices that we are slow."""
UNSENT_BYTES = 256 << 10
"""Input from a pipe that waits for the guest, before no more is taken."""
QUEUED_BYTES = 1 << 20
"""Input from a terminal that waits for the guest; more is dropped."""
NO_CONSOLE = "NO_CONSOLE"
"""The reason of a vio_service whose VM has no console (docs/contracts.md)."""
LIST_SECONDS = 5.0
"""How long a list of consoles may take."""
ANSWER_SECONDS = 2.0
"""How long a service may take to answer, beyond the time that it is to wait for the VM."""
FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
"""Seconds between attempts to connect."""

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

_Call = grpc.aio.StreamStreamCall[pb.AttachConsoleRequest, pb.AttachConsoleResponse]


class TerminalError(Exception):
    """The console cannot be attached; the text says why and what to do."""


class NoConsoleError(TerminalError):
    """The VM is there and has no console."""


class TerminalEnd(Enum):
    """Why a terminal came to its end."""

    LEFT = "left with ^] q"
    INTERRUPTED = "interrupted with ^C"
    VM_ENDED = "the VM ended"
    EXIT_TEXT = "the guest printed the expected text"
    OUTPUT_CLOSED = "the output was closed"
    LOST = "the connection was lost for too long"


def own_name() -> str:
    """Return the description of this process's terminal for other users: user, host and process."""
    user = os.environ.get("USER") or f"uid {os.getuid()}"
    return shown(f"{user}@{socket.gethostname()} pid {os.getpid()}")[-200:]


class ConsoleLink:
    """One terminal at a console.

    Args:
        address: of vio_service, as gRPC spells it.
        opening: what to attach to, and how; wait is set here.
        wait_seconds: how long vio_service and the VM may take to appear, at most 60.
        notify: gets remarks for people, such as lost output.
        resume: instance and position where output shall go on; (0, 0): as opening says.
        notify_gap: gets remarks about output that is missing where read() is; notify when not given.
    """

    def __init__(
        self,
        address: str,
        opening: pb.ConsoleOpen,
        *,
        wait_seconds: float,
        notify: Callable[[str], None],
        resume: tuple[int, int] = (0, 0),
        notify_gap: Callable[[str], None] | None = None,
    ) -> None:
        self.address = address
        self.opened = asyncio.Event()
        """Set once the console is connected."""
        self.ended = asyncio.Event()
        self.end_text = ""
        """More about the end, in one line."""
        self.lost = 0
        """Output that the console no longer had when it was asked for."""
        self._opening = opening
        self._wait_seconds = min(wait_seconds, RECONNECT_SECONDS)
        self._notify = notify
        self._notify_gap = notify_gap or notify
        self._input = bytearray()
        """From the first byte that was not acknowledged."""
        self._sent = 0
        """Bytes of _input that this connection has sent."""
        self._window = 0
        """Bytes of _input that may be under way; 0 while there is no connection."""
        self._connection = 0
        self._stub: console_pb2_grpc.ConsoleServiceAsyncStub | None = None
        self._call: _Call | None = None
        self._reopening = False
        """The connection was ended here, to attach in another way."""
        self._away = False
        """Whether the user was notified of the lost connection."""
        self._reason = "no answer"
        """Why there is no connection."""
        self._instance, self._position = resume
        """Which console it was, and the position of the next output byte."""
        self._received = 0
        """Position up to which the console has our input, counted as ConsoleOpened.input_received is."""
        self._typed_since: bytearray | None = None
        """Input that came after discard(), while vio_service is asked to drop what came before; None: it is not being asked."""
        self._output = bytearray()
        self._read = 0
        """Bytes of output that read() has returned."""
        self._gaps: deque[tuple[int, str]] = deque()
        """Remarks for notify_gap, and how many bytes read() returns before."""
        self._starts: deque[tuple[int, int, int]] = deque([(0, *resume)])
        """Where output begins anew: how many bytes read() returns before, and the instance and position there."""
        self._size: pb.WindowSize | None = None
        self._size_sent = True
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._output_ready = asyncio.Event()
        self._output_taken = asyncio.Event()

    @property
    def vm(self) -> str:
        """The VM's name."""
        return self._opening.vm

    @property
    def unit_address(self) -> int:
        """Of the VTY; 0 while the VM's first one is meant and not known."""
        return self._opening.unit_address

    @property
    def is_writer(self) -> bool:
        """True while what is typed goes to the guest."""
        return self._opening.writer

    @property
    def is_connected(self) -> bool:
        """True while there is a connection."""
        return self._window > 0

    @property
    def position(self) -> tuple[int, int]:
        """Instance of the console, and position of the first byte that read() has not returned."""
        while len(self._starts) > 1 and self._starts[1][0] <= self._read:
            self._starts.popleft()
        before, instance, position = self._starts[0]
        return instance, position + self._read - before

    def unreachable(self, seconds: float) -> str:
        """Say that there was no connection for so many seconds: where, why, and what to do."""
        text = f"no console of VM {self.vm!r} at {self.address} within {seconds:g} s: {self._reason}"
        return f"{text}; is the service running? --vio ADDRESS names another one"

    # This side.

    async def read(self) -> bytes:
        """Return what the guest has written since, without gaps; b"" when the link has ended and all was read."""
        while True:
            while self._gaps and self._gaps[0][0] == self._read:
                self._notify_gap(self._gaps.popleft()[1])
            if self._output:
                break
            if self.ended.is_set():
                return b""
            self._output_ready.clear()
            await self._output_ready.wait()
        count = self._gaps[0][0] - self._read if self._gaps else len(self._output)
        data = bytes(self._output[:count])
        del self._output[:count]
        self._read += count
        self._output_taken.set()
        return data

    async def type(self, data: bytes) -> None:
        """Send input, once there is room for it. Without the writer's place it is dropped."""
        if not self.is_writer:
            return
        self._queue(data)
        while len(self._input) > UNSENT_BYTES:
            self._room.clear()
            await self._room.wait()

    def offer(self, data: bytes) -> int:
        """Queue input of a terminal, whose later keys must be seen, as far as there is room; return how many bytes were taken.

        A character is taken as a whole. Without the writer's place everything is dropped, and counts as taken.
        """
        room = QUEUED_BYTES - self.queued
        if not self.is_writer or len(data) <= room:
            self._queue(data if self.is_writer else b"")
            return len(data)
        count = units_end(data[: max(room, 0)])
        self._queue(data[:count])
        return count

    def _queue(self, data: bytes) -> None:
        if self._typed_since is not None:
            self._typed_since += data
        else:
            self._input += data
            self._changed.set()

    @property
    def queued(self) -> int:
        """Bytes of input that vio_service has not taken."""
        return len(self._input if self._typed_since is None else self._typed_since)

    def discard(self) -> None:
        """Drop the input that the guest has not read, here and at vio_service; notify says how much that was."""
        if not self.is_writer:
            self._notify("read only: nothing is queued")
        elif self._typed_since is None:
            self._typed_since = bytearray()
            self._opening.discard_input = True
            self.reopen(writer=True)

    async def drained(self) -> None:
        """Wait until vio_service has all that was typed."""
        while self._input:
            self._room.clear()
            await self._room.wait()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal's size, at each connection and when it changes."""
        self._size, self._size_sent = pb.WindowSize(rows=rows, columns=columns), False
        self._changed.set()

    def reopen(self, *, writer: bool, force: bool = False, unit_address: int | None = None) -> None:
        """Attach in another way: as reader or writer, or to another console of the VM, whose replay then follows."""
        self._opening.writer, self._opening.force = writer, force
        if unit_address is not None and unit_address != self._opening.unit_address:
            self._opening.unit_address = unit_address
            self._instance = 0
            self._gaps.append((self._read + len(self._output), f"console {unit_address:#x}"))
            self._input.clear()
        if not writer:
            self._input.clear()
        self._room.set()
        self._reopening = True
        if self._call is not None:
            self._call.cancel()

    async def consoles(self) -> Sequence[pb.Console]:
        """List the VM's consoles. Raises TerminalError."""
        if self._stub is None:
            raise TerminalError("there is no connection yet")
        try:
            return await every_aio(self._stub.ListConsoles, pb.ListConsolesRequest(vm=self.vm), LIST_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise TerminalError(explain(error)) from error

    # The console's side.

    async def run(self) -> TerminalEnd:
        """Keep a connection until the console or the patience ends. Raises TerminalError."""
        try:
            async with open_aio_channel(self.address, CHANNEL_OPTIONS) as channel:
                self._stub = console_pb2_grpc.ConsoleServiceStub(channel)
                return await self._run(self._stub)
        finally:
            self.ended.set()
            self._output_ready.set()

    async def _run(self, stub: console_pb2_grpc.ConsoleServiceAsyncStub) -> TerminalEnd:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_seconds
        pause = FIRST_PAUSE
        while (left := deadline - loop.time()) > 0:
            self._opening.wait.CopyFrom(duration(left))
            self._opening.resume_instance, self._opening.resume_position = self._instance, self._position
            self._reopening = False
            self._call = stub.AttachConsole(self._requests(self._connection))
            try:
                async with asyncio.timeout(left + ANSWER_SECONDS) as until_opened:
                    if await self._converse(self._call, until_opened):
                        return TerminalEnd.VM_ENDED
                self._reason = "it ended the connection"
            except grpc.aio.AioRpcError as error:
                self._reason = explain(error)
                self._judge(error, self._reason)
            except TimeoutError:
                self._reason = "it does not answer"
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not self._reopening or (task is not None and task.cancelling()):
                    raise  # Else it was the call that was cancelled, not this task.
            finally:
                self._call.cancel()
                self._connection += 1  # A request iterator that is still there must not take input any more.
                self._changed.set()
            if self._window:  # It was connected.
                self._window = 0
                deadline = loop.time() + RECONNECT_SECONDS
                pause = FIRST_PAUSE
                if not self._reopening:
                    self._away = True
                    self._notify(f"disconnected: {self._reason}; trying again")
            if not self._reopening:
                await asyncio.sleep(min(pause, max(deadline - loop.time(), 0)))
                pause = min(pause * 2, LAST_PAUSE)
        if not self.opened.is_set():
            raise TerminalError(self.unreachable(self._wait_seconds))
        self.end_text = self._reason
        return TerminalEnd.LOST

    def _judge(self, error: grpc.aio.AioRpcError, reason: str) -> None:
        """Raise TerminalError for what will not pass by itself."""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return
        if not self.opened.is_set():
            raise (NoConsoleError if problem_in(error).reason == NO_CONSOLE else TerminalError)(reason) from error
        # The VM's own way back to vio_service, a reset stream.
        passing = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION and self.is_writer:
            self._lose_place(reason)
        elif error.code() not in passing:
            raise TerminalError(reason) from error

    def _lose_place(self, reason: str) -> None:
        """Somebody else types now; go on as a reader."""
        self._notify(f"{reason}; now reading only")
        self.reopen(writer=False)

    async def _converse(self, call: _Call, until_opened: asyncio.Timeout) -> bool:
        """Use one connection to its end. True: the console has ended; False: connect again."""
        async for response in call:
            match response.WhichOneof("message"):
                case "opened":
                    until_opened.reschedule(None)
                    self._resume(response.opened)
                case "output":
                    await self._take_output(response.output)
                case "input_accepted":
                    self._acknowledge(response.input_accepted)
                case "skipped":
                    self._lose(response.skipped)
                case "ended":
                    return self._take_end(response.ended)
        return False

    def _resume(self, opened: pb.ConsoleOpened) -> None:
        """Find out what of output and input the two sides have in common."""
        if self._instance == opened.instance:
            if self.opened.is_set():  # Else nothing was typed yet.
                self._acknowledge(opened.input_received - self._received)
            if opened.offset > self._position:
                self._lose(opened.offset - self._position)
            if self._away:
                self._notify("connected again")
        elif self._instance:
            self._note_gap("vio_service was restarted; output may be missing")
        if self._typed_since is not None:
            self._discarded(opened.input_discarded)
        self._away = False
        self._received = opened.input_received
        self._position = opened.offset
        self._instance = opened.instance
        self._begin_output()
        self._sent = 0
        self._window = opened.input_window
        self._opening.unit_address = opened.unit_address
        self._opening.force = False  # Once: a reconnect does not take the place of who took ours meanwhile.
        self._size_sent = self._size is None
        self.opened.set()
        self._changed.set()

    def _discarded(self, at_console: int) -> None:
        """The console has dropped input; so is what it had not taken before."""
        assert self._typed_since is not None
        self._notify(f"{len(self._input) + at_console} bytes of input dropped")
        self._input, self._typed_since = self._typed_since, None
        self._opening.discard_input = False
        self._room.set()

    def _lose(self, count: int) -> None:
        self.lost += count
        self._position += count
        self._begin_output()
        self._note_gap(f"{count} bytes skipped: too slow, or disconnected for too long")

    def _begin_output(self) -> None:
        """What comes next is at the position of now, whatever came before it."""
        self._starts.append((self._read + len(self._output), self._instance, self._position))

    def _note_gap(self, text: str) -> None:
        """Show a remark once what came before it is."""
        self._gaps.append((self._read + len(self._output), text))
        self._output_ready.set()

    def _acknowledge(self, count: int) -> None:
        count = max(0, min(count, len(self._input)))
        del self._input[:count]
        self._sent = max(self._sent - count, 0)
        self._received += count
        self._changed.set()
        self._room.set()

    async def _take_output(self, data: bytes) -> None:
        self._output += data
        self._position += len(data)
        self._output_ready.set()
        while len(self._output) > UNREAD_BYTES:
            self._output_taken.clear()
            await self._output_taken.wait()

    def _take_end(self, ended: pb.ConsoleEnded) -> bool:
        match ended.reason:
            case pb.CONSOLE_END_REASON_SHUTDOWN:
                return False
            case pb.CONSOLE_END_REASON_TAKEN_OVER:
                self._lose_place(ended.text)
                return False
        self.end_text = ended.text
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
            elif not self._size_sent and self._window:
                self._size_sent = True
                yield pb.AttachConsoleRequest(window_size=self._size)
            else:
                self._changed.clear()
                await self._changed.wait()
