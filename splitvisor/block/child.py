# SPDX-License-Identifier: GPL-2.0-or-later
"""A program as a child process that the event loop watches.

It is started by vfork(2), as subprocess does and the event loops do not: fork(2) would run what gRPC has for that case, which
cannot work while its threads run, and says so on stderr. It has a session of its own, so that ^C on a terminal is not for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

SAID_BYTES = 2000
"""Of what it says, kept from the beginning."""
_READ_BYTES = 4096


class Child:
    """A process.

    Args:
        command: the program and its arguments.
        stdin: a descriptor that it gets.
        says: is called with what it writes to stderr.

    Raises OSError when it cannot be started.
    """

    def __init__(self, command: Sequence[str], stdin: int, says: Callable[[bytes], None]) -> None:
        self._says = says
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        assert self._process.stderr is not None
        self._output = self._process.stderr
        os.set_blocking(self._output.fileno(), False)
        self._ended = os.pidfd_open(self._process.pid)
        self.ended = asyncio.Event()
        """Whether it has ended, and all that it said is in `said`."""
        self.said = b""
        self._loop.add_reader(self._output.fileno(), self._read)
        self._loop.add_reader(self._ended, self._end)

    async def end(self, seconds: float) -> None:
        """Ask it to end, and kill it when that takes too long."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _read(self) -> bool:
        """Take what it says, so that it never waits for that. Returns whether there may be more."""
        with suppress(BlockingIOError):
            data = self._output.read(_READ_BYTES)
            if data:
                self.said = (self.said + data)[:SAID_BYTES]
                self._says(data)
                return True
            if data is not None:
                self._loop.remove_reader(self._output.fileno())
        return False

    def _end(self) -> None:
        self._loop.remove_reader(self._ended)
        os.close(self._ended)
        self._process.wait()
        while self._read():
            pass
        self._loop.remove_reader(self._output.fileno())
        self._output.close()
        self.ended.set()
