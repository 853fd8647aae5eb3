# SPDX-License-Identifier: GPL-2.0-or-later
"""Consoles for scripts: send a text, wait for one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from splitvisor.rpc import console_pb2 as pb
from splitvisor.terminal.link import ConsoleLink, TerminalEnd, own_name

WINDOW_BYTES = 64 << 10
"""Output that a pattern is looked for in: the newest."""
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


class Expectation:
    """Searches a pattern in output that arrives in pieces. Carriage returns are dropped: lines end with a newline."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self._window = b""

    def feed(self, data: bytes) -> str | None:
        """Take the next output; return the line in which the pattern is found, as far as it is there."""
        self._window = (self._window + data.replace(b"\r", b""))[-WINDOW_BYTES:]
        match = self._pattern.search(self._window)
        if match is None:
            return None
        start = self._window.rfind(b"\n", 0, match.start()) + 1
        end = self._window.find(b"\n", match.end())
        return self._window[start : len(self._window) if end < 0 else end].decode(errors="replace")


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
    wait_seconds: float = 10.0

    def link(self, notify: Callable[[str], None], *, writer: bool, replay: bool) -> ConsoleLink:
        """Make a link that is not running yet."""
        opening = pb.ConsoleOpen(
            vm=self.vm, unit_address=self.unit_address, writer=writer, force=self.force, client_name=own_name(), replay=replay
        )
        return ConsoleLink(self.address, opening, wait_seconds=self.wait_seconds, notify=notify)


async def send_text(target: Target, data: bytes, notify: Callable[[str], None], timeout: float) -> bool:
    """Type a text; True once vio_service has all of it, False when the console ended or was taken over before.

    Raises TerminalError, and TimeoutError after timeout seconds.
    """
    link = target.link(notify, writer=True, replay=False)

    async def typed() -> bool:
        await link.type(data)
        await link.drained()
        return link.is_writer

    async with asyncio.timeout(timeout):
        return await _first(link, typed()) is True


async def expect_text(
    target: Target,
    pattern: re.Pattern[bytes],
    notify: Callable[[str], None],
    *,
    timeout: float,
    new: bool = False,
    send: bytes = b"",
) -> str | None:
    """Return the line in which a pattern appears; None when the console ends without it.

    Args:
        target: the console.
        pattern: looked for in the newest WINDOW_BYTES.
        notify: gets remarks for people.
        timeout: seconds.
        new: True: only what comes from now on counts, not the replay.
        send: typed first.

    Raises TerminalError, and TimeoutError after timeout seconds.
    """
    link = target.link(notify, writer=bool(send), replay=not new)
    expectation = Expectation(pattern)

    async def found() -> str | None:
        await link.opened.wait()
        await link.type(send)
        while data := await link.read():
            line = expectation.feed(data)
            if line is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        await link.drained()
                return line
        return None

    async with asyncio.timeout(timeout):
        result = await _first(link, found())
    return result if isinstance(result, str) else None


async def _first(link: ConsoleLink, work: object) -> object:
    """Run the link until the work is done; what the link raises counts. An ended link lets the work read what is left."""
    loop = asyncio.get_running_loop()
    running: asyncio.Task[TerminalEnd] = loop.create_task(link.run())
    working: asyncio.Task[object] = loop.create_task(work)  # type: ignore[arg-type]
    try:
        await asyncio.wait({running, working}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
            await asyncio.wait({working}, timeout=1.0)
        return working.result() if working.done() else None
    finally:
        running.cancel()
        working.cancel()
        await asyncio.gather(running, working, return_exceptions=True)
