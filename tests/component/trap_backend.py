# SPDX-License-Identifier: GPL-2.0-or-later
"""A small trap back end for tests of the stream: in a thread of this process, or a child that can be killed and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from splitvisor.backend import Call, Hypercall, Mirrored, Posted, Result, RtasCall, Session, Vm
from splitvisor.declarations.state import StateError
from splitvisor.net.tls_files import TlsFiles
from splitvisor.net.tls_server import server_credentials
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.service.serve import SERVER_OPTIONS
from splitvisor.trap.server import TrapServicer

UNIT = 0x7100_0000
CREDIT, MAX_SIZE = 64, 16
DEADLINE_S = 20.0
H_ADD, H_LOG, H_LOG_HELD, H_HELD, H_READ, H_WRITE, H_INVOKE, H_FAIL = range(0xF100, 0xF120, 4)


class RecordingSession(Session):
    """Remembers what it was asked for. Held calls wait for `gate`; in a child, for a file."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.value = 0
        self.log: list[int] = []
        self.gate = asyncio.Event()
        self.started = 0
        self.resets = 0
        self.saves = self.resumes = self.attachments = 0
        self.was_replaced = False
        self.filler = ""
        """Makes the state large."""
        self.array = bytearray(b"mirrored")
        self.fetches = 0
        """Reads of the array that came here."""

    async def attached(self) -> None:
        self.attachments += 1

    async def reset(self) -> None:
        self.resets += 1

    def add(self, call: Call) -> Result:
        self.value += call.arguments[0]
        return Result(outputs=(self.value,))

    def append(self, call: Call) -> int:
        self.log.append(call.arguments[2])
        return H.SUCCESS

    async def append_held(self, call: Call) -> int:
        await self.gate.wait()
        return self.append(call)

    async def held(self, _call: Call) -> Result:
        self.started += 1
        await self.gate.wait()
        self.value += 1
        return Result(outputs=(self.value,))

    async def read(self, call: Call) -> Result:
        address, length = call.arguments
        data = await self.vm.memory.read(address, length)
        return Result(outputs=(int.from_bytes(data[:8], "big"), int.from_bytes(data[-8:], "big"), len(data)))

    async def write(self, call: Call) -> int:
        address, value = call.arguments
        await self.vm.memory.write(address, value.to_bytes(8, "big"))
        return H.SUCCESS

    async def invoke(self, call: Call) -> Result:
        result, outputs = await self.vm.invoke(*call.arguments)
        return Result(result, outputs)

    def fail(self, _call: Call) -> int:
        raise RuntimeError("on purpose")

    async def save(self) -> bytes:
        self.saves += 1
        state = json.dumps({"value": self.value, "log": self.log, "array": self.array.decode(), "filler": ""}).encode()
        # json takes a second over a large one, on a busy host more than a peer may be silent for.
        return state.removesuffix(b'"}') + self.filler.encode() + b'"}'

    async def resumed(self) -> None:
        self.resumes += 1

    async def restore(self, state: bytes) -> None:
        try:
            saved = json.loads(state)
            self.value, self.log, self.array = saved["value"], saved["log"], bytearray(saved["array"].encode())
        except ValueError as error:
            raise StateError("the recording is broken") from error

    async def replaced(self) -> None:
        self.was_replaced = True

    def rtas(self, call: Call) -> Result:
        return Result(returns=(0, sum(call.arguments) & 0xFFFF_FFFF))

    async def fetch(self, call: Call) -> Result:
        self.fetches += 1
        offset, address, length = call.arguments
        if offset + length > len(self.array):
            return Result(returns=(RtasStatus.PARAMETER_ERROR, 0))
        await self.vm.memory.write(address, bytes(self.array[offset : offset + length]))
        return Result(returns=(RtasStatus.SUCCESS, length))

    def store(self, call: Call) -> int:
        offset, value = call.arguments
        self.array[offset] = value
        call.mirror_write("test,fetch", offset, bytes((value,)))
        return RtasStatus.SUCCESS

    posted = Posted(CREDIT, key_argument=0, size_argument=1, max_size=MAX_SIZE, key_values=lambda _session: (UNIT,))
    calls: tuple[Hypercall | RtasCall, ...] = (
        Hypercall(H_ADD, add, arguments=1, section="tests", name="H_ADD"),
        Hypercall(H_LOG, append, arguments=3, section="tests", name="H_LOG", posted=posted),
        Hypercall(H_LOG_HELD, append_held, arguments=3, section="tests", name="H_LOG_HELD", posted=posted),
        Hypercall(H_HELD, lambda session, call: session.held(call), arguments=0, section="tests", name="H_HELD"),
        Hypercall(H_READ, read, arguments=2, section="tests", name="H_READ"),
        Hypercall(H_WRITE, write, arguments=2, section="tests", name="H_WRITE"),
        Hypercall(H_INVOKE, invoke, arguments=2, section="tests", name="H_INVOKE"),
        Hypercall(H_FAIL, fail, arguments=0, section="tests", name="H_FAIL"),
        RtasCall("test,sum", rtas, section="tests", arguments=2, returns=2),
        RtasCall(
            "test,fetch", fetch, section="tests", arguments=3, returns=2, mirrored=Mirrored(lambda session: bytes(session.array))
        ),
        RtasCall("test,store", store, section="tests", arguments=2, returns=1),
    )


class OtherSession(RecordingSession):
    """A second back end, for invokes."""

    calls = (Hypercall(0xF200, RecordingSession.add, arguments=1, section="tests", name="H_ADD_2"),)


ROUTES = {call.token: index for index, call in enumerate(RecordingSession.calls) if isinstance(call, Hypercall)}


class ThreadBackend:
    """A real grpc.aio server on a unix socket, behind a proxy that can cut its connections.

    Args:
        directory: for the sockets.
        name: the back end's.
        kind: its sessions.
        certificate: also listen with TLS, at `tls_address`, with this directory's certificate.
    """

    def __init__(
        self, directory: Path, name: str = "backend", kind: type[RecordingSession] = RecordingSession,
        certificate: Path | None = None,
    ) -> None:  # fmt: skip
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.target = f"unix:{directory}/{name}.sock"
        self.address = f"unix:{directory}/{name}.proxy"
        self._name, self._kind = name, kind
        self._connections: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self.connections = 0
        self.tls_address = ""
        self._certificate = certificate
        self.run(self._start())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run in the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE_S)

    async def _start(self) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._stop = await self.add_servicers(self._server)
        self._server.add_insecure_port(self.target)
        if self._certificate is not None:
            files = TlsFiles(*(self._certificate / name for name in ("cert.pem", "key.pem", "ca.pem")))
            self.tls_address = f"tls:127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', server_credentials(files))}"
        await self._server.start()
        self._proxy = await asyncio.start_unix_server(self._accept, self.address.removeprefix("unix:"))

    async def add_servicers(self, server: grpc.aio.Server) -> Callable[[], Awaitable[None]]:
        """Say what is served; returns what ends it."""
        self.servicer = TrapServicer(self._name, self._kind)
        trap_pb2_grpc.add_TrapServiceServicer_to_server(self.servicer, server)
        return self.servicer.close

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self.connections += 1
        far_reader, far_writer = await asyncio.open_unix_connection(self.target.removeprefix("unix:"))
        self._connections |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._connections -= {writer, far_writer}

    def session(self, vm: str = "vm") -> RecordingSession:
        session = self.servicer.session(vm)
        assert isinstance(session, RecordingSession)
        return session

    def open_gate(self) -> None:
        self.loop.call_soon_threadsafe(self.session().gate.set)

    def drop(self, *, refuse: bool = False) -> None:
        """Cut every connection; refuse new ones until allow()."""

        async def cut() -> None:
            self._refusing = refuse
            for writer in self._connections:
                writer.transport.abort()

        self.run(cut())

    def allow(self) -> None:
        """Take connections again."""
        self._refusing = False

    def close(self) -> None:
        async def stop() -> None:
            self._proxy.close()
            for writer in self._connections:
                writer.transport.abort()
            await self._server.stop(0)
            await self._stop()

        self.run(stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


class ChildBackend:
    """The same in a process of its own. Held calls note their start and end in a file and wait for another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.address = f"unix:{directory}/child.sock"
        self.journal = directory / "journal"
        self.journal.touch()
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        read, write = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.component.trap_backend", str(self._directory), str(write)], pass_fds=(write,)
        )
        os.close(write)
        with open(read, "rb") as ready:
            assert ready.readline() == b"ready\n"

    def open_gate(self) -> None:
        (self._directory / "gate").touch()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait()


class JournalSession(RecordingSession):
    """Held calls leave a trace that outlives the process."""

    directory = Path()

    async def held(self, _call: Call) -> Result:
        journal = self.directory / "journal"
        with journal.open("a") as file:
            file.write("started\n")
        while not (self.directory / "gate").exists():
            await asyncio.sleep(0.005)
        with journal.open("a") as file:
            file.write("done\n")
        return Result(outputs=(journal.read_text().count("done"),))


async def _serve_child(directory: Path, ready: int) -> None:
    JournalSession.directory = directory
    server = grpc.aio.server(options=SERVER_OPTIONS)
    trap_pb2_grpc.add_TrapServiceServicer_to_server(TrapServicer("child", JournalSession), server)
    server.add_insecure_port(f"unix:{directory}/child.sock")
    await server.start()
    os.write(ready, b"ready\n")
    os.close(ready)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve_child(Path(sys.argv[1]), int(sys.argv[2])))
