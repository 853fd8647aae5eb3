# SPDX-License-Identifier: GPL-2.0-or-later
"""Consoles for scripts: send a text, wait for one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from splitvisor.rpc import console_pb2 as pb
from splitvisor.terminal.link import ConsoleLink, TerminalEnd, TerminalError, own_name
from splitvisor.terminal.search import Search

_T = TypeVar("_T")

WINDOW_BYTES = 64 << 10
"""Output that a pattern is looked for in: the newest."""
STEP_BYTES = 16 << 10
"""Output that is searched at a time: less than the window, or what lies in the middle of much output would not be seen."""
WAIT_SECONDS = 10.0
"""How long the service and the VM may take to appear."""
DRAIN_SECONDS = 5.0
"""How long text that was sent may take to arrive, once the answer to it is there."""

_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "e": b"\x1b", "\\": b"\\"}


class EscapeError(ValueError):
    """A text has an escape that does not exist; the message says which do."""


def unescape(text: str) -> bytes:
    r"""Return a text's bytes with \r, \n, \t, \e, \\ and \xHH replaced. Raises EscapeError."""

    def replaced(match: re.Match[str]) -> str:
        code = match[1]
        if code in _ESCAPES:
            return _ESCAPES[code].decode()
        if len(code) == 3:
            return chr(0xDC00 + int(code[1:], 16)) if int(code[1:], 16) >= 0x80 else chr(int(code[1:], 16))
        raise EscapeError(rf"\{code} is not known; there are \r \n \t \e \\ and \xHH")

    # Bytes from 0x80 are kept as surrogates until all is encoded: in UTF-8 they are no characters.
    return re.sub(r"\\(x[0-9a-fA-F]{2}|.|$)", replaced, text, flags=re.DOTALL).encode("utf-8", "surrogateescape")


class PositionError(ValueError):
    """A text is no position."""


@dataclass(frozen=True)
class Position:
    """A place in what a console has shown: scripts get it from one command and give it to the next."""

    instance: int
    """Of the console: places of one life of it mean nothing in another."""
    offset: int
    """Bytes that it had shown before."""

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that str() gave as a text. Raises PositionError."""
        match = re.fullmatch(r"([0-9a-f]{1,16}):([0-9]{1,20})", text)
        if match is None or not int(match[1], 16) or int(match[2]) >> 64:
            raise PositionError(f"{text!r} is not a position; give what --position printed, such as 6c1f02ab:4711")
        return cls(int(match[1], 16), int(match[2]))

    def __str__(self) -> str:
        return f"{self.instance:x}:{self.offset}"


@dataclass(frozen=True)
class Found:
    """What was expected."""

    line: str
    """In which it stands, as far as the line is there."""
    match: str
    position: Position
    """After the match."""


class Expectation:
    """Searches output that arrives in pieces. Carriage returns are dropped: lines end with a newline."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._window = b""
        self._next = Position(0, 0)
        """Behind the window."""

    async def feed(self, position: Position, data: bytes) -> Found | None:
        """Take the next output, which begins at a position; return what is found. Raises SearchError."""
        if position != self._next:
            self._window = b""
        for start in range(0, len(data), STEP_BYTES):
            piece = data[start : start + STEP_BYTES]
            self._window = (self._window + piece)[-WINDOW_BYTES:]
            self._next = Position(position.instance, position.offset + start + len(piece))
            shown = self._window.replace(b"\r", b"")
            span = await self._search.find(shown)
            if span is not None:
                return self._found(shown, *span)
        return None

    def _found(self, shown: bytes, start: int, end: int) -> Found:
        first = shown.rfind(b"\n", 0, start) + 1
        last = shown.find(b"\n", end)
        line = shown[first : len(shown) if last < 0 else last]
        # Where the match ends with carriage returns: after so many other bytes.
        place = next((match.end() for match in islice(re.finditer(rb"[^\r]", self._window), end - 1, None)), 0) if end else 0
        position = Position(self._next.instance, self._next.offset - len(self._window) + place)
        return Found(line.decode(errors="replace"), shown[start:end].decode(errors="replace"), position)


@dataclass(frozen=True)
class Target:
    """A console, and how to come to it."""

    address: str
    """Of vio_service."""
    vm: str
    unit_address: int
    """0: the VM's first."""
    force: bool = False
    """Takes the writer's place from another one."""
    wait_seconds: float = WAIT_SECONDS

    def link(self, notify: Callable[[str], None], *, writer: bool, replay: bool, after: Position | None = None) -> ConsoleLink:
        """Make a link that is not running yet."""
        opening = pb.ConsoleOpen(
            vm=self.vm, unit_address=self.unit_address, writer=writer, force=self.force, client_name=own_name(), replay=replay
        )
        resume = (after.instance, after.offset) if after is not None else (0, 0)
        return ConsoleLink(self.address, opening, wait_seconds=self.wait_seconds, notify=notify, resume=resume)


async def send_text(target: Target, data: bytes, notify: Callable[[str], None], timeout: float) -> Position | None:
    """Type a text. Returns the position before it; None when the console ended or was taken over before all was typed.

    Raises TerminalError, and TimeoutError after timeout seconds.
    """
    link = target.link(notify, writer=True, replay=False)

    async def typed() -> Position | None:
        await link.opened.wait()
        before = Position(*link.position)
        await link.type(data)
        await link.drained()
        return before if link.is_writer else None

    return await _first(link, typed(), timeout)


async def expect_text(
    target: Target,
    search: Search,
    notify: Callable[[str], None],
    *,
    timeout: float,
    new: bool = False,
    after: Position | None = None,
    send: bytes = b"",
) -> Found | None:
    """Return what is found first; None when the console ends without it.

    Args:
        target: the console.
        search: what is looked for, in the newest WINDOW_BYTES; it is closed.
        notify: gets remarks for people.
        timeout: seconds.
        new: True: only what comes from now on counts, not the replay.
        after: only what comes after this position counts, and all of that.
        send: typed first.

    Raises TerminalError, SearchError, and TimeoutError after timeout seconds.
    """
    link = target.link(notify, writer=bool(send), replay=not new, after=after)
    expectation = Expectation(search)

    async def found() -> Found | None:
        await search.start()
        await link.opened.wait()
        if after is not None:
            _check(after, Position(*link.position))
        await link.type(send)
        while True:
            position = Position(*link.position)
            data = await link.read()
            if not data:
                return None
            result = await expectation.feed(position, data)
            if result is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        await link.drained()
                return result

    try:
        return await _first(link, found(), timeout)
    finally:
        search.close()


def _check(wanted: Position, given: Position) -> None:
    """Raise TerminalError when a console cannot go on at a position."""
    if given.instance != wanted.instance:
        raise TerminalError("the position is of an earlier life of this console; leave it out, or begin with a new one")
    if given.offset < wanted.offset:
        raise TerminalError(f"the position is {wanted.offset - given.offset} bytes after all that the console has shown")


async def _first(link: ConsoleLink, work: Coroutine[Any, Any, _T], timeout: float) -> _T | None:
    """Run the link until the work is done; what the link raises counts. An ended link lets the work read what is left.

    Raises TimeoutError; TerminalError instead when there is no connection at that moment.
    """
    loop = asyncio.get_running_loop()
    running: asyncio.Task[TerminalEnd] = loop.create_task(link.run())
    working = loop.create_task(work)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.wait({running, working}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                await asyncio.wait({working}, timeout=1.0)
            return working.result() if working.done() else None
    except TimeoutError:
        if link.is_connected:
            raise
        raise TerminalError(link.unreachable(timeout)) from None
    finally:
        running.cancel()
        working.cancel()
        await asyncio.gather(running, working, return_exceptions=True)
