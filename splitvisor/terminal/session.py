# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal at a console: what `splitvisor run` and `splitvisor console attach` show.

Tasks: one reads what is typed, one writes what the guest prints, one sees its reader go, one keeps the connection
(splitvisor/terminal/link.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from splitvisor.process.streams import OutputError
from splitvisor.rpc import console_pb2 as pb
from splitvisor.terminal.io import WRITE_BYTES, TextWatch, raw_mode, read_some, reader_gone, write_all
from splitvisor.terminal.link import ConsoleLink, NoConsoleError, TerminalEnd, TerminalError, own_name
from splitvisor.terminal.menu import HELP, MENU, Command, MenuFilter
from splitvisor.terminal.sequences import Boundary

__all__ = [
    "NoConsoleError",
    "TerminalEnd",
    "TerminalError",
    "TerminalResult",
    "attach_terminal",
    "notify_on_stderr",
    "stay_without_console",
]

PASTE_SECONDS = 0.3
"""After the last key that was dropped until that is said: a paste comes in many pieces."""
LEAVE_SECONDS = 1.0
"""How long what was typed before `^]` `q` may take to get out."""
READ_BYTES = 16 << 10
INTERRUPT = b"\x03"


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
    greet: bool = False,
    running: asyncio.Event | None = None,
) -> TerminalResult:
    """Connect two file descriptors to a console until one side ends.

    A stdin that is a terminal is put into raw mode, and `^]` opens the menu (splitvisor/terminal/menu.py). From anything else
    every byte goes to the guest; its end of file only ends the input.

    Args:
        address: of vio_service, as gRPC spells it.
        vm: the VM's name.
        unit_address: of the VTY; 0 is the VM's first.
        stdin: descriptor to read from.
        stdout: descriptor to write to.
        exit_text: ends the attachment once the guest has printed it.
        writer: False only watches; stdin is used for the menu alone.
        force: takes the console from another writer.
        wait_seconds: how long vio_service and the VM may take to appear, at most 60.
        client_name: what others are told about this terminal; user, host and process when not given.
        notify: gets remarks for people, such as lost output; stderr when not given.
        opened: set once the console is connected.
        greet: say at a terminal what it is connected to, and how to leave.
        running: set once a guest gets what is typed; until then ^C at a terminal ends the attachment. When not given: opened.

    Raises TerminalError when the console cannot be attached, and OutputError when stdout cannot be written for another reason
    than that its reader has gone.
    """
    opening = pb.ConsoleOpen(
        vm=vm, unit_address=unit_address, writer=writer, force=force, client_name=client_name or own_name(), replay=True
    )
    notices = Notices(notify, amid_output=os.isatty(stdout) and os.isatty(2))
    link = ConsoleLink(address, opening, wait_seconds=wait_seconds, notify=notices.show, notify_gap=notices.show_gap)
    if opened is not None:
        link.opened = opened
    watch = TextWatch(exit_text) if exit_text else None
    greet = greet and os.isatty(stdin) and os.isatty(stdout)
    with raw_mode(stdin):
        terminal = _Terminal(
            link, stdin=stdin, stdout=stdout, watch=watch, notices=notices, greet=greet, running=running or link.opened
        )
        return await terminal.run()


async def stay_without_console(vm: str, ended: asyncio.Future[Any], *, stdin: int = 0) -> TerminalResult:
    """Wait for the end of a VM that has no console. At a terminal, `^]` `q` leaves and `^C` is a signal.

    Args:
        vm: the VM's name.
        ended: done once the VM has ended.
        stdin: descriptor to read from, if it is a terminal.
    """
    at_terminal = os.isatty(stdin)
    leaving = "; ^] q leaves" if at_terminal else ""
    notify_on_stderr(f"VM {vm} has no console; waiting for its end{leaving}")
    with raw_mode(stdin, signals=True):
        typing = asyncio.ensure_future(_wait_for_quit(stdin) if at_terminal else asyncio.Event().wait())
        try:
            await asyncio.wait({typing, ended}, return_when=asyncio.FIRST_COMPLETED)
            left = typing.done() and typing.result()
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)
    end = TerminalEnd.LEFT if left else TerminalEnd.VM_ENDED
    return TerminalResult(end, end.value)


async def _wait_for_quit(stdin: int) -> bool:
    """Wait for `^]` `q`; the end of the terminal is none."""
    menu = MenuFilter()
    while data := await read_some(stdin, READ_BYTES):
        for item in menu.feed(data):
            if item is Command.QUIT:
                return True
        if menu.is_open:
            notify_on_stderr("q quit; there is no console for the other keys")
    return await asyncio.Event().wait()


def notify_on_stderr(text: str) -> None:
    """Show a remark, on a line of its own where stderr is a terminal that may be raw."""
    sys.stderr.write(f"\r\n[{text}]\r\n" if os.isatty(2) else f"[{text}]\n")
    sys.stderr.flush()


class Notices:
    """Remarks on stderr, between two sequences of the output if both are shown by one terminal.

    Args:
        notify: gets the remarks instead.
        amid_output: stdout and stderr are terminals.
    """

    def __init__(self, notify: Callable[[str], None] | None, *, amid_output: bool) -> None:
        self._notify = notify or (self._interject if amid_output else notify_on_stderr)
        self._boundary = Boundary()
        self._lost = False

    def wrote(self, data: bytes) -> None:
        """The next output was written."""
        self._boundary.feed(data)

    def show(self, text: str) -> None:
        """Show a remark."""
        self._notify(text)

    def show_gap(self, text: str) -> None:
        """Show a remark where output is missing: what comes next begins a sequence."""
        self._lost = True
        self._notify(text)
        self._lost = False

    def _interject(self, text: str) -> None:
        sys.stderr.flush()
        data = self._boundary.interject(f"\r\n[{text}]\r\n".encode(errors="replace"), lost=self._lost)
        with suppress(OSError):
            os.write(2, data)


class _Terminal:
    """One attachment: the link, and two descriptors."""

    def __init__(
        self,
        link: ConsoleLink,
        *,
        stdin: int,
        stdout: int,
        watch: TextWatch | None,
        notices: Notices,
        greet: bool,
        running: asyncio.Event,
    ) -> None:
        self._running = running
        self._link = link
        self._stdin = stdin
        self._stdout = stdout
        self._watch = watch
        self._notices = notices
        self._notify = notices.show
        self._greet = greet
        self._dropped = 0
        """Bytes of a paste that the queue did not take."""
        self._drop_notice: asyncio.TimerHandle | None = None
        self._end: TerminalEnd | None = None

    async def run(self) -> TerminalResult:
        """Run until something ends it. Raises TerminalError."""
        loop = asyncio.get_running_loop()
        resize_handler = False
        if os.isatty(self._stdin):
            self._resize()
            with suppress(ValueError, RuntimeError):  # Only the main thread's loop can watch signals.
                loop.add_signal_handler(signal.SIGWINCH, self._resize)
                resize_handler = True
        jobs = (self._read_input(), self._write_output(), self._watch_output(), self._keep_link())
        tasks = [loop.create_task(job) for job in jobs]
        try:
            return await _first_result(tasks)
        finally:
            if resize_handler:
                loop.remove_signal_handler(signal.SIGWINCH)
            if self._drop_notice is not None:
                self._drop_notice.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _resize(self) -> None:
        size = os.get_terminal_size(self._stdin)
        self._link.resize(size.lines, size.columns)

    def _result(self, end: TerminalEnd, text: str = "") -> TerminalResult:
        return TerminalResult(end, text or end.value, self._link.lost)

    async def _keep_link(self) -> TerminalResult | None:
        self._end = await self._link.run()
        return None  # Once all output is written.

    async def _watch_output(self) -> TerminalResult | None:
        await reader_gone(self._stdout)
        return self._result(TerminalEnd.OUTPUT_CLOSED)

    async def _write_output(self) -> TerminalResult | None:
        if self._greet:
            await self._link.opened.wait()
            role = "you type here" if self._link.is_writer else "only reading"
            self._notify(f"VM {self._link.vm}, console {self._link.unit_address:#x}: {role}; ^] ? shows the keys, ^] q leaves")
        while data := await self._link.read():
            try:
                for start in range(0, len(data), WRITE_BYTES):
                    piece = data[start : start + WRITE_BYTES]
                    await write_all(self._stdout, piece)
                    self._notices.wrote(piece)
            except OutputError as error:
                if not error.reader_gone:
                    raise
                return self._result(TerminalEnd.OUTPUT_CLOSED, str(error))
            if self._watch is not None and self._watch.found(data):
                return self._result(TerminalEnd.EXIT_TEXT)
        # Without an end the link has failed, and its task raises why.
        return None if self._end is None else self._result(self._end, self._link.end_text)

    async def _read_input(self) -> TerminalResult | None:
        if not os.isatty(self._stdin):
            if self._link.is_writer:
                await self._type_input()
            return None
        menu = MenuFilter()
        while data := await read_some(self._stdin, READ_BYTES):
            if not self._running.is_set() and INTERRUPT in data:  # The terminal is raw, and nobody else would hear of it.
                return self._result(TerminalEnd.INTERRUPTED)
            for item in menu.feed(data):
                if isinstance(item, bytes):
                    self._offer(item)
                elif item is Command.QUIT:
                    if self._running.is_set():
                        await self._drain()
                    return self._result(TerminalEnd.LEFT)
                else:
                    await _COMMANDS[item](self)
            if menu.is_open:
                self._notify(MENU)
        return None

    async def _type_input(self) -> None:
        """Type what comes from a pipe or a file."""
        try:
            while data := await read_some(self._stdin, READ_BYTES):
                await self._link.type(data)
        except OSError as error:
            self._notify(f"standard input: {error.strerror}; nothing more is typed")

    def _offer(self, keys: bytes) -> None:
        """Queue keys. Waiting for room would keep `^]` from being seen: what does not fit is counted."""
        taken = self._link.offer(keys)
        if taken == len(keys) and not self._dropped:
            return
        self._dropped += len(keys) - taken
        if self._drop_notice is not None:
            self._drop_notice.cancel()
        self._drop_notice = asyncio.get_running_loop().call_later(PASTE_SECONDS, self._tell_dropped)

    def _tell_dropped(self) -> None:
        self._notify(
            f"the guest does not read, and the input queue is full: {self._dropped} bytes are not taken, "
            f"{self._link.queued} bytes wait; ^] d drops them"
        )
        self._dropped = 0

    async def _discard(self) -> None:
        self._link.discard()

    async def _drain(self) -> None:
        """Let what was typed get out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._link.drained()

    # The menu.

    async def _take_over(self) -> None:
        if not self._link.is_writer:
            self._link.reopen(writer=True, force=True)
        self._notify("you can type on this console")

    async def _release(self) -> None:
        await self._drain()
        if self._link.is_writer:
            self._link.reopen(writer=False)
        self._notify("read only; ^] f to type again")

    async def _status(self) -> None:
        link = self._link
        role = "types" if link.is_writer else "reads"
        state = "connected" if link.is_connected else "not connected, trying again"
        waits = f"; {link.queued} bytes of input wait" if link.queued else ""
        self._notify(
            f"VM {link.vm}, console {link.unit_address:#x} at {link.address}: {state}; {role}; {link.lost} bytes lost{waits}"
        )

    async def _list(self) -> None:
        try:
            for console in await self._link.consoles():
                here = ", here" if console.unit_address == self._link.unit_address else ""
                self._notify(f"{console.unit_address:#x}: {console.writer or 'nobody'} types, {console.readers} attached{here}")
        except TerminalError as error:
            self._notify(str(error))

    async def _next(self) -> None:
        try:
            units = [console.unit_address for console in await self._link.consoles()]
        except TerminalError as error:
            self._notify(str(error))
            return
        following = next((unit for unit in units if unit > self._link.unit_address), units[0] if units else 0)
        if following in {0, self._link.unit_address}:
            self._notify("this VM has no other console")
            return
        await self._drain()
        self._link.reopen(writer=self._link.is_writer, unit_address=following)

    async def _help(self) -> None:
        for line in HELP:
            self._notify(line)


_COMMANDS: Mapping[Command, Callable[[_Terminal], Awaitable[None]]] = {
    Command.TAKE_OVER: _Terminal._take_over,
    Command.RELEASE: _Terminal._release,
    Command.DISCARD: _Terminal._discard,
    Command.STATUS: _Terminal._status,
    Command.LIST: _Terminal._list,
    Command.NEXT: _Terminal._next,
    Command.HELP: _Terminal._help,
}


async def _first_result(tasks: list[asyncio.Task[TerminalResult | None]]) -> TerminalResult:
    """Return the first result that is one; a task that ends without one leaves it to the others."""
    running = set(tasks)
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            result = task.result()
            if result is not None:
                return result
    raise AssertionError("the writer of output ends with a result, or the link's task raises")
