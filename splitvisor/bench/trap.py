# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench trap`: what one synchronous trap costs, against a bare exchange over a unix socket.

A real guest on the real engine makes two hypercalls in turn. One is owned by a back end in another process and goes the
way of every trap: router, stream, session, reply. The other is answered inside the same hook by a peer process over a plain
unix socket, with fixed-size messages: the floor for leaving the process at all.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import uvloop

from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.machine.board import Board
from cpu_service.vcpus.vcpu import Vcpu
from splitvisor.backend import Call, Hypercall, Posted, Result, Session
from splitvisor.papr.codes import H
from splitvisor.process.logging import LogLevel, configure
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.trap.server import TrapServicer

TOKEN_STREAM, TOKEN_RAW, TOKEN_POSTED = 0xF100, 0xF104, 0xF108
WARM_UP = 300
READY_TIMEOUT_S = 20.0
MESSAGE = struct.Struct("<8Q")
_GUEST_BASE = 0x1_0000
# li r3,stream; sc 1; li r3,raw; sc 1; b to the start.
_GUEST_CODE = struct.pack(">9I", 0x3C60_0000, 0x6063_F100, 0x3880_0007, 0x4400_0022, 0x3C60_0000, 0x6063_F104, 0x3880_0007,
                          0x4400_0022, 0x4BFF_FFE0)  # fmt: skip


@dataclass(frozen=True)
class Latency:
    """One way's times, in microseconds."""

    median: float
    p99: float
    count: int

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Summarise; the first WARM_UP are left out."""
        kept = sorted(seconds[WARM_UP:])
        return cls(statistics.median(kept) * 1e6, kept[int(len(kept) * 0.99)] * 1e6, len(kept))


@dataclass(frozen=True)
class TrapFigures:
    """What the benchmark measured."""

    trap: Latency
    raw_socket: Latency

    @property
    def ratio(self) -> float:
        """Median of a trap over median of a raw exchange."""
        return self.trap.median / self.raw_socket.median


class EchoSession(Session):
    """Owns a hypercall that answers its argument, and one that is posted."""

    def echo(self, call: Call) -> Result:
        """Return r4 in r4."""
        return Result(outputs=(call.arguments[0],))

    def take(self, _call: Call) -> int:
        """Do nothing."""
        return H.SUCCESS

    calls = (
        Hypercall(TOKEN_STREAM, echo, arguments=1, section="splitvisor bench trap", name="H_BENCH_ECHO"),
        Hypercall(
            TOKEN_POSTED,
            take,
            arguments=2,
            section="splitvisor bench all",
            posted=Posted(64 << 10, key_argument=0, size_argument=1, max_size=16, key_values=lambda _session: (0,)),
            name="H_BENCH_POSTED",
        ),
    )


class _Bench:
    """The guest's machine and its two peers."""

    def __init__(self, board: Board, raw: socket.socket, count: int) -> None:
        self._board, self._raw, self._wanted = board, raw, count + WARM_UP
        self.trap_seconds: list[float] = []
        self.raw_seconds: list[float] = []

    def run(self) -> TrapFigures:
        board = self._board
        board.registry.add_local([LocalHypercall(TOKEN_RAW, self._exchange, "splitvisor bench trap")])
        board.attach()
        assert board.router is not None
        board.engine.on_hypercall = self._timed(board.router.dispatch)
        board.power_on()
        board.ram.write(_GUEST_BASE, _GUEST_CODE)
        board.scheduler.reset(_GUEST_BASE, {}, 1 << 63 | 1 << 12)
        board.scheduler.run()
        return TrapFigures(Latency.of(self.trap_seconds), Latency.of(self.raw_seconds))

    def _timed(self, dispatch: Callable[[], None]) -> Callable[[], None]:
        gpr = self._board.scheduler.loaded.gpr

        def timed() -> None:
            token = gpr[3]
            began = time.perf_counter()
            dispatch()
            took = time.perf_counter() - began
            if gpr[3] or gpr[4] != 7:
                raise RuntimeError(f"hypercall {token:#x} answered r3={gpr[3]:#x} r4={gpr[4]:#x}")
            (self.trap_seconds if token == TOKEN_STREAM else self.raw_seconds).append(took)
            if len(self.raw_seconds) >= self._wanted:
                self._board.scheduler.end()

        return timed

    def _exchange(self, vcpu: Vcpu) -> int:
        self._raw.sendall(MESSAGE.pack(vcpu.gpr[4], 0, 0, 0, 0, 0, 0, 0))
        vcpu.gpr[4] = MESSAGE.unpack(self._raw.recv(MESSAGE.size, socket.MSG_WAITALL))[0]
        return 0


class _Events:
    """What the board may tell; nothing of it belongs to a benchmark."""

    def action(self, action: pb.MachineAction) -> None:
        """Nothing asks for one here."""
        raise RuntimeError(f"unexpected machine action: {action.reason}")

    def connection_changed(self, link: object) -> None:
        """Connections do not change the figures."""


def measure_traps(count: int) -> TrapFigures:
    """Time count traps and as many raw exchanges, in turn. Raises RuntimeError when a peer does not start."""
    with peers() as (directory, _):
        config = mpb.MachineConfig(
            name="bench-trap",
            memory_mib=256,
            vcpus=1,
            backends=[mpb.BackendAddress(name="bench", address=f"unix:{directory}/backend.sock")],
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(str(directory / "raw.sock"))
            board = Board(config, 1, directory, _Events())
            try:
                return _Bench(board, raw, count).run()
            finally:
                board.close("benchmark is over")


@contextmanager
def peers() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A process that serves both peers."""
    directory = Path(tempfile.mkdtemp(prefix="splitvisor-bench-"))
    peer = subprocess.Popen([sys.executable, "-m", __name__, str(directory)], stdout=subprocess.PIPE)
    try:
        assert peer.stdout is not None
        if peer.stdout.readline() != b"ready\n":
            raise RuntimeError("the benchmark's peer process did not start")
        yield directory, peer
    finally:
        peer.terminate()
        peer.wait(READY_TIMEOUT_S)
        if peer.stdout is not None:
            peer.stdout.close()
        shutil.rmtree(directory, ignore_errors=True)


async def _serve(directory: Path) -> None:
    """The peer process: the echo back end and the raw socket."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(directory / "raw.sock"))
    listener.listen(1)
    threading.Thread(target=_echo_raw, args=(listener,), daemon=True).start()
    server = grpc.aio.server()
    trap_pb2_grpc.add_TrapServiceServicer_to_server(TrapServicer("bench", EchoSession), server)
    server.add_insecure_port(f"unix:{directory}/backend.sock")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def _echo_raw(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    while message := connection.recv(MESSAGE.size, socket.MSG_WAITALL):
        connection.sendall(message)


if __name__ == "__main__":
    configure(LogLevel.WARNING, "bench")
    uvloop.run(_serve(Path(sys.argv[1])))
