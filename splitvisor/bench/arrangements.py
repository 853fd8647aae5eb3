# SPDX-License-Identifier: GPL-2.0-or-later
"""What leaving the process costs, by arrangement: bare sockets on one core and on two, a trap that waits, traps that are posted.

There is no guest and no engine here: the calls are made in a loop, so that the ways are compared and nothing else. What a guest
waits, `splitvisor bench trap` tells.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cpu_service.engine.ram import GuestRam
from cpu_service.link.backend_link import BackendLink
from cpu_service.link.events import LinkStatus
from splitvisor.bench.peers import BenchError
from splitvisor.bench.trap import MESSAGE, READY_TIMEOUT_S, TOKEN_POSTED, TOKEN_STREAM, WARM_UP, Latency, peers
from splitvisor.rpc import trap_pb2 as pb

TWO_CORES, WAITING = "raw unix socket, two cores", "trap stream, waiting"
"""Arrangements that are compared."""
POSTED_TOGETHER = 64
"""Posted calls before one that waits for them."""
_RAM_BYTES = 4 << 20


class _Events:
    """What a link may tell; an echo tells nothing that matters here."""

    def interrupt(self, source: int) -> None:
        """Nothing pulses."""

    def action(self, action: pb.MachineAction) -> None:
        """Nothing acts."""

    def memory_written(self, address: int, length: int) -> None:
        """Nothing writes."""

    def connection_changed(self, link: LinkStatus) -> None:
        """The first call that fails says so."""

    def offer_changed(self, link: LinkStatus, *, attached_anew: bool) -> None:
        """An echo owns its calls whatever their arguments."""

    def put_entries(self, link: LinkStatus, entries: pb.CrqEntries) -> None:
        """An echo has no queue."""

    def open_queues(self, link: LinkStatus) -> tuple[pb.OpenQueue, ...]:
        """As above."""
        return ()

    def window(self, link: LinkStatus, liobn: int) -> None:
        """An echo has no DMA window."""


def measure_arrangements(count: int) -> dict[str, Latency]:
    """Time count exchanges of each arrangement, by its name; of a posted call, its part of a batch. Raises BenchError."""
    figures = {}
    with peers() as (directory, peer):
        cores = sorted(os.sched_getaffinity(0))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(str(directory / "raw.sock"))

            def exchange() -> None:
                raw.sendall(MESSAGE.pack(7, 0, 0, 0, 0, 0, 0, 0))
                raw.recv(MESSAGE.size, socket.MSG_WAITALL)

            with _held({os.getpid(): cores[0], peer.pid: cores[0]}):
                figures["raw unix socket, one core"] = _timed(exchange, count)
            if len(cores) > 1:
                with _held({os.getpid(): cores[0], peer.pid: cores[1]}):
                    figures[TWO_CORES] = _timed(exchange, count)
        hello = pb.Hello(vm="bench", beginning=pb.BEGINNING_RUNNING, incarnation=1, vcpus=1, ram_bytes=_RAM_BYTES)
        with mmap.mmap(-1, _RAM_BYTES) as area:
            link = BackendLink("bench", f"unix:{directory}/backend.sock", hello, GuestRam(area), _Events())
            link.begin()
            try:
                figures.update(_stream(link, count))
            finally:
                link.close("the benchmark is over")
    return figures


def _stream(link: BackendLink, count: int) -> dict[str, Latency]:
    routes = {route.token: index for index, route in enumerate(link.wait_attached(READY_TIMEOUT_S).routes)}

    def no_invoke(invoke: pb.Invoke) -> pb.InvokeResult:
        raise BenchError(f"the echo made a hypercall of its own: {invoke.token:#x}")

    def call() -> None:
        if link.trap(routes[TOKEN_STREAM], 0, (7,), 0, (), READY_TIMEOUT_S, no_invoke) is None:
            raise BenchError("the echo did not answer")

    def post() -> None:
        for _ in range(POSTED_TOGETHER):
            while not link.post(routes[TOKEN_POSTED], 0, (0, 16), (), 16):
                link.wait_for_credit(READY_TIMEOUT_S)
        call()

    waiting = _timed(call, count)
    return {WAITING: waiting, f"trap stream, {POSTED_TOGETHER} posted": _timed(post, count, POSTED_TOGETHER + 1)}


def _timed(action: Callable[[], None], count: int, calls: int = 1) -> Latency:
    """Do it count times after as many as Latency leaves out; calls: made by one action."""
    seconds = []
    for _ in range(count + WARM_UP):
        began = time.perf_counter()
        action()
        seconds.append((time.perf_counter() - began) / calls)
    return Latency.of(seconds)


@contextmanager
def _held(cores: dict[int, int]) -> Iterator[None]:
    """Keep all threads of each process on one core for a while."""
    before = {thread: os.sched_getaffinity(thread) for pid in cores for thread in _threads(pid)}
    try:
        for pid, core in cores.items():
            for thread in _threads(pid):
                os.sched_setaffinity(thread, {core})
        yield
    finally:
        for thread, allowed in before.items():
            if Path(f"/proc/{thread}").exists():
                os.sched_setaffinity(thread, allowed)


def _threads(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
