# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that is the other end of a wire, as a child process."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from splitvisor.lan.wire import WireError

LAST_LINES = 20
LINE_BYTES = 1000
"""What is kept of what it says, for the case that it fails."""
STOP_S = 2.0
"""A child that has not ended by then is killed."""


def find_program(name: str, package: str) -> str:
    """Return the path of a program. Raises WireError when it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin")
    if found is None:
        raise WireError(f"this network needs {name}, which is not installed", f"apt-get install {package}")
    return found


class Child:
    """A running child.

    Args:
        command: its program and arguments.
        descriptors: of this process that it keeps, under the same numbers.
        noise: beginnings of lines of its that say nothing.
        ended: is called when it has ended, on the event loop.

    Raises WireError when it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        descriptors: Sequence[int],
        noise: tuple[str, ...] = (),
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = os.path.basename(command[0])
        self._noise, self._ended = noise, ended
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._partial = b""
        self.exited = asyncio.Event()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
                # A ^C on the terminal is not for it, and it needs nothing of what the environment says of this process.
                start_new_session=True,
                env={"PATH": os.defpath, "LC_ALL": "C"},
            )
        except OSError as error:
            raise WireError(f"{command[0]} cannot be started ({error.strerror})", "check its package") from None
        assert self._process.stderr is not None
        self._said = self._process.stderr.fileno()
        os.set_blocking(self._said, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._said, self._read)
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The last line that it wrote."""
        return self._lines[-1] if self._lines else f"ended with status {self._process.returncode}"

    async def stop(self) -> None:
        """End it, and wait for that."""
        if self.exited.is_set():
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self.exited.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            await self.exited.wait()

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self._read()
        if self._said >= 0:
            loop.remove_reader(self._said)
            self._close_said()
        self.exited.set()
        self._ended()

    def _read(self) -> None:
        if self._said < 0:
            return
        try:
            data = os.read(self._said, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._said)
            self._close_said()
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[:LINE_BYTES]
        for line in lines:
            text = line[:LINE_BYTES].decode(errors="replace").strip()
            if text and not text.startswith(self._noise):
                self._lines.append(text)

    def _close_said(self) -> None:
        self._said = -1
        assert self._process.stderr is not None
        self._process.stderr.close()
