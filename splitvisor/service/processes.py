# SPDX-License-Identifier: GPL-2.0-or-later
"""The services as child processes: started together, watched, their last words kept, stopped with their parent.

Nothing of gRPC is imported here, so the children start before their parent has spent time on that.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, Protocol

from splitvisor.service.fork_server import ForkServer, fork_server

LAST_LINES = 200
"""Log lines of a service that are kept for the case that it fails."""
LINE_BYTES = 4096
"""A longer log line is cut."""
READY_SECONDS = 30.0
STOP_SECONDS = 5.0
"""A service has 3 s for calls under way; one that takes longer than this is killed."""


@dataclass(frozen=True)
class ServiceCommand:
    """A service to start."""

    name: str
    """As `splitvisor service` knows it."""
    package: str
    """As errors call it."""
    address: str
    arguments: Sequence[str] = ()


class ServiceFailedError(Exception):
    """A service ended or did not start. The message has one line; last_lines, what it logged; status, how it exited."""

    def __init__(self, message: str, last_lines: Sequence[str] = (), status: int | None = None) -> None:
        super().__init__(message)
        self.last_lines = last_lines
        self.status = status


class LogSink(Protocol):
    """What gets the services' logs, as they come."""

    def write(self, data: bytes, /) -> object:
        """Take a part of a log."""


def start_forks() -> ForkServer:
    """Return a fork server, which the caller closes. Raises ServiceFailedError where it cannot be started."""
    try:
        return fork_server()
    except OSError as error:
        raise _cannot_start("the services", error) from error


def _cannot_start(what: str, error: OSError) -> ServiceFailedError:
    return ServiceFailedError(f"{what} cannot be started: {error.strerror or error}")


class ServiceProcess:
    """A running service."""

    def __init__(self, command: ServiceCommand, log_level: str, log: LogSink | None, forks: ForkServer) -> None:
        self.command = command
        self._log = log
        self._lines: deque[bytes] = deque(maxlen=LAST_LINES)
        self._partial = b""
        self._status: int | None = None
        arguments = [command.name, "--listen", command.address, "--log-level", log_level, *command.arguments]
        try:
            ready_read, ready_write = os.pipe()
            parent_read, self._parent_write = os.pipe()
            log_read, log_write = os.pipe()
        except OSError as error:
            raise _cannot_start(command.package, error) from error
        try:
            self.pid = forks.start(arguments, log_write, ready_write, parent_read)
            """The process."""
        except OSError as error:
            for descriptor in (ready_read, self._parent_write, log_read):
                os.close(descriptor)
            raise _cannot_start(command.package, error) from error
        finally:
            for descriptor in (ready_write, parent_read, log_write):
                os.close(descriptor)
        self._ready = ready_read
        self._output = log_read
        self._exited = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def running(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._status is None

    def watch(self) -> None:
        """Begin to collect its log and its end; needs the running event loop, and an end of the process that made it."""
        loop = asyncio.get_running_loop()
        os.set_blocking(self._output, False)
        loop.add_reader(self._output, self._read_log)
        descriptor = os.pidfd_open(self.pid)

        def exited() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
            self._exited.set()

        loop.add_reader(descriptor, exited)

    async def wait_ready(self) -> None:
        """Wait until it listens. Raises ServiceFailedError."""
        loop = asyncio.get_running_loop()
        line: asyncio.Future[bytes] = loop.create_future()

        def readable() -> None:
            loop.remove_reader(self._ready)
            if not line.done():
                line.set_result(os.read(self._ready, 4096))

        loop.add_reader(self._ready, readable)
        try:
            async with asyncio.timeout(READY_SECONDS):
                text = await line
        except TimeoutError:
            raise self._failed(f"does not listen after {READY_SECONDS:.0f} s") from None
        finally:
            loop.remove_reader(self._ready)
            os.close(self._ready)
        if not text:
            await self.wait_failed()

    async def wait_failed(self) -> NoReturn:
        """Wait until it ends by itself, then raise ServiceFailedError."""
        await self._exited.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):  # Its last words; a grandchild may keep the pipe open.
                await self._closed.wait()
        status = self._status
        assert status is not None
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise self._failed(how)

    def terminate(self) -> None:
        """Ask it to stop: closes the pipe whose end it watches, and one that does not watch yet ends by the signal."""
        if self._parent_write >= 0:
            os.close(self._parent_write)
            self._parent_write = -1
            if self.running:
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it without asking."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)

    async def wait_stopped(self) -> None:
        """Wait until it has ended, and kill it when that takes too long."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._exited.wait()
        except TimeoutError:
            self.kill()
            await self._exited.wait()
        if not self._closed.is_set():
            self._read_log()
            self._close_log()

    def _failed(self, how: str) -> ServiceFailedError:
        lines = [line.decode(errors="replace") for line in (*self._lines, self._partial) if line]
        return ServiceFailedError(f"{self.command.package} {how}", lines, self._status)

    def _read_log(self) -> None:
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._close_log()
            return
        if self._log is not None:
            self._log.write(data)
        *lines, partial = (self._partial + data).split(b"\n")
        self._lines.extend(line[:LINE_BYTES] for line in lines)
        self._partial = partial[:LINE_BYTES]

    def _close_log(self) -> None:
        if not self._closed.is_set():
            asyncio.get_running_loop().remove_reader(self._output)
            os.close(self._output)
            self._closed.set()


async def stop_all(processes: Sequence[ServiceProcess], *, kill: bool = False) -> None:
    """Stop services together, or kill them, and wait for them."""
    for process in processes:
        process.terminate()
        if kill:
            process.kill()
    await asyncio.gather(*(process.wait_stopped() for process in processes))
