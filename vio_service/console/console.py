# SPDX-License-Identifier: GPL-2.0-or-later
"""A console: what a guest wrote to a VTY, kept for any number of readers, and what one writer types.

Output is one log with many cursors. The guest appends to it; each reader takes from where it is, so a reader costs only its
position, and one that falls behind the oldest byte is skipped ahead and marked. The guest never waits for a reader; a writer
waits for the guest.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from splitvisor.rpc import console_pb2, state_pb2
from splitvisor.terminal.sequences import unfinished, unit_end, units_end
from vio_service.console.output_log import BACKLOG_BYTES, REPLAY_BYTES, OutputLog

STATE_VERSION = 1
"""Of VtyState."""
INPUT_BYTES = 64 << 10
"""Input that waits for the guest."""
MAX_ATTACHMENTS = 64
"""Readers and writer of one console together."""


class ConsoleBusyError(Exception):
    """The console has a writer already, or as many readers as it takes."""


@dataclass(frozen=True)
class End:
    """Why an attachment ended, and the position up to which it gets output first."""

    reason: console_pb2.ConsoleEndReason
    text: str
    position: int


class Attachment:
    """One terminal at a console. Its owner takes output and acknowledgements whenever `wake` is set."""

    def __init__(self, console: Console, client: str, position: int | None) -> None:
        self.console = console
        self.client = client
        self.position = 0
        """Of the next output byte that it gets."""
        self._old: bytes | None = None
        """What is left of the output from before it was there, without queries; None: not taken from the log yet."""
        self._old_end = 0
        self._passing = b""
        """A unit in whose middle it begins, or what stands for it, which it does not get."""
        self._go_to(position)
        self.accepted = 0
        """Input bytes that were taken and not acknowledged yet."""
        self.skipped = 0
        """Output that it was too slow for, in all."""
        self.window_size: tuple[int, int] | None = None
        """Rows and columns of its terminal, when it has told."""
        self._since = time.monotonic()
        self.end: End | None = None
        self.wake = asyncio.Event()

    @property
    def is_writer(self) -> bool:
        """True while it may type."""
        return self.console.writer is self

    def take_accepted(self) -> int:
        """Return how many more input bytes were taken since the last time."""
        count, self.accepted = self.accepted, 0
        return count

    def take_skipped(self) -> int:
        """Skip ahead when the next output is gone; return by how many bytes.

        It goes on at the replay's distance from the end, so as not to be too slow for the very next byte again.
        """
        log = self.console.output
        if self.position >= log.start or self._old:
            return 0
        before = self.position
        if self.end is not None and self.end.position <= log.start:
            self._go_to(self.end.position)
        else:
            self._go_to(log.beginning(log.end - self.console.replay_bytes))
        count = self.position - before
        self.skipped += count
        self.console.dropped_bytes += count
        return count

    def _go_to(self, position: int | None) -> None:
        """Go on at a position: what is there already is old. None: at the end, in the middle of a long unit."""
        log = self.console.output
        self._passing = log.open_unit() if position is None else b""
        self.position = log.end if position is None else position
        self._old, self._old_end = None, log.end

    def take_output(self, limit: int) -> bytes:
        """Return the next output, at most limit bytes. After take_skipped(), without waiting in between.

        It ends where a unit does, unless the guest does not go on. Old output has NULs for queries: nobody waits for an answer.
        """
        log = self.console.output
        if self.position < self._old_end and self.position >= log.start and self._old is None:
            self._old = log.without_queries(self.position, self._old_end)
        if self._old:
            data = self._old[:limit]
            if len(self._old) > limit:
                data = data[: units_end(data) or limit]
            self._old = self._old[len(data) :]
        else:
            end = log.end if self.end is None else self.end.position
            if self.position + limit < end:
                end = log.cut(self.position, self.position + limit)
            elif self.end is None and log.held_for(self.position):
                end = self.position
            elif self.end is None and self.position < log.last and log.held_for(log.last):
                end = log.last
            data = self._pass(log.read(self.position, max(end - self.position, 0)))
        if self.end is not None:
            data = data[: max(self.end.position - self.position, 0)]
        self.position += len(data)
        return data

    def _pass(self, data: bytes) -> bytes:
        """Return data with NUL for what belongs to the unit that it does not get."""
        if not self._passing or not data:
            return data
        whole = self._passing + data
        end = unit_end(whole, 0)
        if end is None:
            self._passing = unfinished(whole)
            return bytes(len(data))
        self._passing, rest = b"", max(end - (len(whole) - len(data)), 0)
        return bytes(rest) + data[rest:]

    async def more(self) -> None:
        """Wait for something to take."""
        held = self.console.output.held_for(max(self.position, self.console.output.last)) if self.end is None else 0.0
        with suppress(TimeoutError):
            async with asyncio.timeout(held or None):
                await self.wake.wait()

    def finish(self, reason: console_pb2.ConsoleEndReason, text: str, position: int) -> None:
        """End it once it has the output before position. The first reason stays."""
        if self.end is None:
            self.end = End(reason, text, position)
        self.wake.set()

    def describe(self) -> console_pb2.ConsoleClient:
        """Describe the terminal for a list."""
        return console_pb2.ConsoleClient(
            name=self.client,
            writer=self.is_writer,
            attached_seconds=time.monotonic() - self._since,
            behind_bytes=self.console.output.end - self.position,
            skipped_bytes=self.skipped,
        )

    async def feed(self, data: bytes) -> None:
        """Queue input for the guest, waiting for room as often as needed. Stops early when it is no longer the writer."""
        position = 0
        while position < len(data) and self.is_writer:
            taken = self.console.push_input(data[position : position + INPUT_BYTES])
            if taken:
                position += taken
                self.accepted += taken
                self.wake.set()
            else:
                await self.console.wait_for_room()


class Console:
    """One VTY's console.

    Args:
        vm: name of the VM, for lists and messages.
        unit_address: of the VTY.
        on_input: called when input arrives that the guest does not know of: the queue was empty.
    """

    replay_bytes = REPLAY_BYTES

    def __init__(self, vm: str, unit_address: int, on_input: Callable[[], None]) -> None:
        self.vm = vm
        self.unit_address = unit_address
        self.instance = secrets.randbits(63) | 1
        """Tells this console from one that a restarted service makes for the same VM: their positions have nothing in common."""
        self.output = OutputLog()
        self.writer: Attachment | None = None
        self.input_received = 0
        """Input bytes taken from writers."""
        self.input_discarded = 0
        """Input bytes that a writer took back."""
        self.dropped_bytes = 0
        """Output that readers were too slow for, all together."""
        self.transcript = ""
        """Path of the file that has the output too; empty when there is none."""
        self.on_received: Callable[[], None] | None = None
        """Called before input that was taken is acknowledged."""
        self.window_size: tuple[int, int] | None = None
        """Rows and columns of the writer's terminal, the last one that told."""
        self.is_frozen = False
        """No input is taken: the VM is being saved, or restored."""
        self._on_input = on_input
        self._input = bytearray()
        self._room = asyncio.Event()
        self._attachments: dict[Attachment, None] = {}
        """In the order in which they came."""
        self._end: End | None = None

    def restore(self, instance: int, end: int, newest: bytes, input_received: int) -> None:
        """Go on as the console of a former process: the same positions, and its newest output for replay.

        Of more than BACKLOG_BYTES the first only show where units end.
        """
        self.instance = instance
        self.output = OutputLog(end - len(newest))
        self.output.append(newest)
        self.input_received = input_received

    # The guest's side.

    def write(self, data: bytes) -> None:
        """Append output and wake the readers that have caught up."""
        self.output.append(data)
        for attachment in self._attachments:
            attachment.wake.set()

    @property
    def waiting_input(self) -> int:
        """Bytes of input that the guest has not read."""
        return len(self._input)

    @property
    def room(self) -> int:
        """Bytes of input that would be taken now."""
        return 0 if self.is_frozen else INPUT_BYTES - len(self._input)

    def peek_input(self, limit: int) -> bytes:
        """Return the next input, which stays queued."""
        return bytes(self._input[:limit])

    def drop_input(self, count: int) -> None:
        """The guest has read count bytes."""
        del self._input[:count]
        self._room.set()

    def discard_input(self) -> int:
        """Drop the input that the guest has not read; return how many bytes. While the VM is being saved, none."""
        if self.is_frozen:
            return 0
        count = len(self._input)
        self.drop_input(count)
        self.input_discarded += count
        return count

    # The terminals' side.

    def attach(self, client: str, *, writer: bool, force: bool, replay: bool, resume: int | None = None) -> Attachment:
        """Connect a terminal. It gets output from the position resume on, else the replay or only what comes next.

        A writer takes the place of another one with force, or of itself: the same client name is the same terminal, whose old
        connection may not have been missed yet.

        Raises ConsoleBusyError.
        """
        holder = self.writer
        if writer and holder is not None:
            if not force and holder.client != client:
                raise ConsoleBusyError(f"{holder.client} types on this console; take it over with --force, or only read")
            text = f"{client} took over"
            holder.finish(console_pb2.CONSOLE_END_REASON_TAKEN_OVER, text, self.output.end)
            self.detach(holder)
        if len(self._attachments) >= MAX_ATTACHMENTS:
            raise ConsoleBusyError(f"this console has {MAX_ATTACHMENTS} readers already")
        if resume is None:
            position = self.output.beginning(self.output.end - self.replay_bytes if replay else self.output.end)
        elif resume < self.output.start:
            position = self.output.beginning(self.output.start)
        else:
            position = min(resume, self.output.end)
        attachment = Attachment(self, client, position)
        self._attachments[attachment] = None
        if writer:
            self.writer = attachment
        if self._end is not None:
            attachment.finish(self._end.reason, self._end.text, self.output.end)
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Disconnect a terminal; more than once does nothing."""
        self._attachments.pop(attachment, None)
        self.release(attachment)

    def claim(self, attachment: Attachment) -> bool:
        """Make an attached terminal the writer when there is none; True when it is the writer."""
        if self.writer is None and attachment in self._attachments:
            self.writer = attachment
        return attachment.is_writer

    def release(self, attachment: Attachment) -> None:
        """The terminal types no more; it may go on reading."""
        if self.writer is attachment:
            self.writer = None
            self._room.set()

    def push_input(self, data: bytes) -> int:
        """Queue input as far as there is room; return how many bytes were taken."""
        if self.is_frozen:
            return 0
        taken = data[: INPUT_BYTES - len(self._input)]
        was_empty = not self._input
        self._input += taken
        self.input_received += len(taken)
        if self.on_received is not None:
            self.on_received()
        if was_empty and taken:
            self._on_input()
        return len(taken)

    async def wait_for_room(self) -> None:
        """Wait until the guest has read something or the writer has changed."""
        self._room.clear()
        await self._room.wait()

    def save(self) -> state_pb2.VtyState:
        """Return output and input as they are."""
        output = self.output
        return state_pb2.VtyState(
            version=STATE_VERSION,
            output=b"".join(output.newest(0, BACKLOG_BYTES)),
            output_end=output.end,
            input=bytes(self._input),
            input_received=self.input_received,
            instance=self.instance,
        )

    def restore_state(self, state: state_pb2.VtyState, *, same_instance: bool) -> None:
        """Go on from save(), elsewhere; a new console only. Raises ValueError when it cannot be the state of a console."""
        if len(state.output) > min(BACKLOG_BYTES, state.output_end):
            raise ValueError(f"{len(state.output)} bytes of output are kept of {state.output_end}")
        if len(state.input) > min(INPUT_BYTES, state.input_received):
            raise ValueError(f"{len(state.input)} bytes of input wait of {state.input_received}")
        self.restore(state.instance if same_instance else self.instance, state.output_end, state.output, state.input_received)
        self._input[:] = state.input

    def thaw(self) -> None:
        """Take input again."""
        self.is_frozen = False
        self._room.set()

    def end(self, reason: console_pb2.ConsoleEndReason, text: str) -> None:
        """End the console: every terminal gets the output that there is, then the reason. The first reason counts."""
        if self._end is None:
            self._end = End(reason, text, self.output.end)
        for attachment in self._attachments:
            attachment.finish(reason, text, self.output.end)

    def resize(self, attachment: Attachment, rows: int, columns: int) -> None:
        """A terminal's size has changed. The writer's counts; a VTY has no way to tell its guest (hvterm1)."""
        attachment.window_size = (rows, columns)
        if attachment.is_writer:
            self.window_size = attachment.window_size

    def describe(self) -> console_pb2.Console:
        """Describe the console for a list."""
        rows, columns = self.window_size or (0, 0)
        return console_pb2.Console(
            vm=self.vm,
            unit_address=self.unit_address,
            output_bytes=self.output.end,
            input_bytes=self.input_received - self.input_discarded - len(self._input),
            readers=len(self._attachments),
            writer="" if self.writer is None else self.writer.client,
            clients=[attachment.describe() for attachment in self._attachments],
            window_size=console_pb2.WindowSize(rows=rows, columns=columns),
            transcript=self.transcript,
        )
