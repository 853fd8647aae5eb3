# SPDX-License-Identifier: GPL-2.0-or-later
"""Back ends under test: served in the test's own process, which can inspect them, or programs in any language."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import grpc.aio

from splitvisor.backend import Backend, Session
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.service.serve import SERVER_OPTIONS
from splitvisor.testing.loop import DEADLINE_S, LoopThread
from splitvisor.testing.trap_log import Traps, recording
from splitvisor.trap.server import TrapServicer

POLL_S = 0.01
SHOWN_BYTES = 4000
"""Size of a failed program's output in messages."""


@dataclass(frozen=True)
class BackendProgram:
    """A back end in a program of its own; it must accept `--listen unix:/path` and stop on SIGTERM."""

    name: str
    command: Sequence[str | Path]
    """Without --listen, which is added."""


class ServedBackend:
    """A back end that this process serves on a unix socket.

    Args:
        backend: what to serve.
        directory: where the socket goes.
        loop: runs its handlers.
        traps: gets the calls.
    """

    def __init__(self, backend: Backend, directory: Path, loop: LoopThread, traps: Traps) -> None:
        self.name = backend.name
        self.address = f"unix:{directory}/{backend.name}.sock"
        self._backend = Backend(backend.name, recording(backend.name, backend.factory, traps))
        self._loop = loop
        self._server: grpc.aio.Server | None = None
        self._servicer: TrapServicer | None = None
        self.start()

    def start(self) -> None:
        """Serve; after stop(), with new sessions at the same address, like a restarted back end."""
        self._loop.run(self._start())

    async def _start(self) -> None:
        self._servicer = self._backend.servicer()
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        trap_pb2_grpc.add_TrapServiceServicer_to_server(self._servicer, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    def session(self, vm: str) -> Session:
        """Return a VM's session, for inspection. Raises AssertionError if that VM is not attached within 30 s."""
        assert self._servicer is not None, f"{self.name} is not served"
        session = self._loop.run(self._servicer.wait_for_session(vm, DEADLINE_S), 2 * DEADLINE_S)
        assert session is not None, f"VM {vm} is not attached to {self.name}"
        return session

    def stop(self) -> None:
        """Stop serving, like a process that ends: its sessions are closed."""
        self._loop.run(self._stop())

    async def _stop(self) -> None:
        if self._server is not None and self._servicer is not None:
            await self._servicer.close()
            await self._server.stop(0)
            self._server = self._servicer = None


class RunningProgram:
    """A back end program, started and listening.

    Args:
        program: what to start.
        directory: where its socket and its output go.

    Raises AssertionError if it ends, or does not listen within 30 s.
    """

    def __init__(self, program: BackendProgram, directory: Path) -> None:
        self.name = program.name
        self._socket = directory / f"{program.name}.sock"
        self.address = f"unix:{self._socket}"
        self._command = [*program.command, "--listen", self.address]
        self._output = directory / f"{program.name}.log"
        self._process: subprocess.Popen[bytes]
        self.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._output.open("ab") as output:
            self._process = self._launch(output)
        pause = threading.Event()
        deadline = time.monotonic() + DEADLINE_S
        while not self._listens():
            assert self._process.poll() is None, f"{self.name} ended with {self._process.returncode}:\n{self.output()}"
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self.name} does not listen at {self.address}:\n{self.output()}")
            pause.wait(POLL_S)

    def _launch(self, output: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(os.fsencode(self._socket)) == 0

    def output(self) -> str:
        """Return the end of its output."""
        return self._output.read_bytes()[-SHOWN_BYTES:].decode(errors="replace")

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        self._socket.unlink(missing_ok=True)

    def stop(self) -> int:
        """End it with SIGTERM, or SIGKILL after 30 s; return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode


def serve(
    backends: Sequence[Backend | BackendProgram], directory: Path, loop: LoopThread, traps: Traps
) -> list[ServedBackend | RunningProgram]:
    """Serve or start back ends; if one fails, stop those already started."""
    served: list[ServedBackend | RunningProgram] = []
    try:
        for backend in backends:
            if isinstance(backend, Backend):
                served.append(ServedBackend(backend, directory, loop, traps))
            else:
                served.append(RunningProgram(backend, directory))
    except BaseException:
        for started in served:
            started.stop()
        raise
    return served
