# SPDX-License-Identifier: GPL-2.0-or-later
"""Searches for scripts: a text here, a regular expression in a process that can be killed."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from splitvisor.errors.problem import ProblemError
from splitvisor.terminal import regex_worker
from splitvisor.terminal.regex_worker import LENGTH, MATCH, NONE


class SearchError(ProblemError, ValueError):
    """What is searched cannot be; the message says why."""


Span = tuple[int, int]


class Search(Protocol):
    """Finds something in a text; close() it."""

    async def find(self, text: bytes) -> Span | None:
        """Return where the first match begins and ends. Raises SearchError."""

    async def start(self) -> None:
        """Get ready. Raises SearchError when what is searched cannot be."""

    def close(self) -> None:
        """End whatever is under way; more than once does nothing."""


class TextSearch:
    """Finds a text, of at least a byte. Raises SearchError."""

    def __init__(self, wanted: bytes) -> None:
        if not wanted:
            raise SearchError("an empty TEXT is found at once", "give what the console is to show")
        self._wanted = wanted

    async def start(self) -> None:
        """See Search."""

    async def find(self, text: bytes) -> Span | None:
        """See Search."""
        start = text.find(self._wanted)
        return None if start < 0 else (start, start + len(self._wanted))

    def close(self) -> None:
        """See Search."""


class RegexSearch:
    """Finds a regular expression, in which ^ and $ match at line ends."""

    def __init__(self, wanted: bytes) -> None:
        self._wanted = wanted
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        """See Search."""
        own, other = socket.socketpair()
        with other:
            # Isolated and without site: it needs nothing of ours, and starts in a tenth of the time.
            command = [sys.executable, "-I", "-S", str(Path(regex_worker.__file__)), str(other.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(
                command, pass_fds=(other.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._reader, self._writer = await asyncio.open_unix_connection(sock=own)
        wrong = await self._ask(self._wanted)
        if wrong:
            raise SearchError(wrong.decode(errors="replace"))

    async def find(self, text: bytes) -> Span | None:
        """See Search."""
        if not text:
            return None
        found: Span = MATCH.unpack(await self._ask(text))
        return None if found == NONE else found

    async def _ask(self, message: bytes) -> bytes:
        assert self._writer is not None
        try:
            self._writer.write(LENGTH.pack(len(message)) + message)
            await self._writer.drain()
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise SearchError("the process that searches has ended", "is there enough memory?") from error

    def close(self) -> None:
        """See Search."""
        if self._writer is not None:
            self._writer.transport.abort()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
