# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench many`: one vio_service for many guests at a time, and whether it starves one of them.

Each guest is a trap stream of its own with a terminal of its own, held by a few client processes. A guest does what Linux does
when it prints: some posted H_PUT_TERM_CHAR, then an H_GET_TERM_CHAR whose answer it waits for, again and again. No guest
computes, so all the time is the clients' and vio_service's.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvloop

from cpu_service.link.grpc_stream import GrpcStream
from cpu_service.link.wire import PATH
from splitvisor.bench.peers import BenchError
from splitvisor.bench.shell import cpu_seconds
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import trap_pb2 as pb

UNIT_ADDRESS = 0x7100_0000
OUTPUT = (UNIT_ADDRESS, 16, 0x2E2E_2E2E_2E2E_2E2E, 0x2E2E_2E2E_2E2E_2E0A)
"""The arguments of H_PUT_TERM_CHAR for fifteen dots and a line's end."""
START_SECONDS = 60.0
ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Load:
    """What every guest does."""

    guests: int
    seconds: float
    posted: int
    """H_PUT_TERM_CHAR before each H_GET_TERM_CHAR."""


def measure(load: Load, clients: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the load, print the figures, return them. clients: processes that hold the guests. Raises BenchError."""
    clients = min(clients, load.guests)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv-bench-")))
        address = f"unix:{directory}/vio.sock"
        service = [sys.executable, "-m", "splitvisor.service.main", "vio", "--listen", address, "--ready-fd", "1"]
        service += ["--log-level", "warning"]
        vio = stack.enter_context(_process(service))
        _line(vio, "vio_service")
        processes = []
        for number in range(clients):
            numbers = range(load.guests)[number::clients]
            command = [
                sys.executable, "-m", __name__, address, str(numbers.start), str(numbers.stop), str(numbers.step),
                str(load.seconds), str(load.posted),
            ]  # fmt: skip
            processes.append(stack.enter_context(_process(command)))
        for process in processes:
            _line(process, "a client")
        used = cpu_seconds(vio.pid)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        reports = [json.loads(_line(process, "a client", load.seconds)) for process in processes]
        used = cpu_seconds(vio.pid) - used
    figures = _figures(load, [guest for report in reports for guest in report], used)
    say(
        f"{load.guests} guests, {load.posted} posted calls before each one that waits: {figures['traps_per_second']:.0f} traps/s,"
        f" answer p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms"
    )
    say(
        f"fairness: the slowest guest had {figures['least_share']:.2f} of the mean, the fastest {figures['most_share']:.2f};"
        f" vio_service used {figures['cpu_us_per_trap']:.0f} us of CPU a trap"
    )
    return figures


def _figures(load: Load, answers: list[list[float]], cpu: float) -> dict[str, Any]:
    """answers: of each guest, the seconds that each answer took."""
    counts = [len(guest) * (1 + load.posted) for guest in answers]
    if not min(counts):
        raise BenchError("a guest got no answer at all")
    times = sorted(took for guest in answers for took in guest)
    mean = statistics.mean(counts)
    return {
        "guests": load.guests,
        "posted": load.posted,
        "seconds": load.seconds,
        "traps": sum(counts),
        "traps_per_second": sum(counts) / load.seconds,
        "p50_ms": 1000 * statistics.median(times),
        "p99_ms": 1000 * times[int(len(times) * 0.99)],
        "least_share": min(counts) / mean,
        "most_share": max(counts) / mean,
        "cpu_us_per_trap": 1e6 * cpu / sum(counts),
    }


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _line(process: subprocess.Popen[bytes], who: str, seconds: float = 0.0) -> bytes:
    assert process.stdout is not None
    line = process.stdout.readline() if select.select([process.stdout], [], [], seconds + START_SECONDS)[0] else b""
    if not line.endswith(b"\n"):
        raise BenchError(f"{who} of the benchmark ended or did not answer within {seconds + START_SECONDS:.0f} s")
    return line


# A client process.


class _Guest(asyncio.Protocol):
    """One trap stream, spoken as cpu_service speaks it: calls are made one after the other, as one vCPU makes them."""

    def __init__(self, number: int) -> None:
        self._stream = GrpcStream(PATH, "localhost")
        self._transport: asyncio.WriteTransport | None = None
        self._name = f"guest-{number}"
        self._sequence = 0
        self._responses: deque[pb.AttachResponse] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._responses.extend(map(pb.AttachResponse.FromString, self._stream.receive(data)))
        self._flush()
        self._wake()

    def connection_lost(self, _error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stream.cancel()
        self._wake()

    async def attach(self) -> None:
        """Introduce the VM, and reset its devices."""
        devices = [pb.DeviceSpec(kind="vty", unit_address=UNIT_ADDRESS)]
        self._send(
            pb.AttachRequest(
                hello=pb.Hello(
                    vm=self._name,
                    beginning=pb.BEGINNING_RUNNING,
                    incarnation=1,
                    vcpus=1,
                    ram_bytes=1 << 28,
                    devices=devices,
                    slots=pb.SlotRange(count=64),
                )
            )
        )
        async with asyncio.timeout(ANSWER_SECONDS):
            offer = (await self._read()).offer
            tokens = {route.token: index for index, route in enumerate(offer.routes) if route.kind == pb.CALL_KIND_HYPERCALL}
            self._put, self._get = tokens[Hcall.H_PUT_TERM_CHAR], tokens[Hcall.H_GET_TERM_CHAR]
            self._send(pb.AttachRequest(reset=pb.Reset(count=1)))
            while not (await self._read()).HasField("reset_done"):
                pass

    async def run(self, seconds: float, posted: int) -> list[float]:
        """Call for so long; return how long each answer took."""
        answers = []
        deadline = time.perf_counter() + seconds
        async with asyncio.timeout(seconds + ANSWER_SECONDS):
            while (began := time.perf_counter()) < deadline:
                if posted:
                    batch = [self._trap(self._put, OUTPUT) for _ in range(posted)]
                    self._send(pb.AttachRequest(posted=pb.PostedBatch(traps=batch)))
                self._send(pb.AttachRequest(trap=self._trap(self._get, (UNIT_ADDRESS,))))
                while not (response := await self._read()).HasField("reply"):
                    pass
                if response.reply.sequence != self._sequence or response.reply.result:
                    raise RuntimeError(f"{self._name}: H_GET_TERM_CHAR {self._sequence} was answered with {response}")
                answers.append(time.perf_counter() - began)
        return answers

    async def detach(self) -> None:
        """End the VM, and wait until the stream has ended."""
        self._send(pb.AttachRequest(detach=pb.Detach(reason="the benchmark is over")))
        self._stream.finish()
        self._flush()
        async with asyncio.timeout(ANSWER_SECONDS):
            while self._stream.end is None:
                await self._more()
        assert self._transport is not None
        self._transport.close()

    def _trap(self, route: int, arguments: tuple[int, ...]) -> pb.Trap:
        self._sequence += 1
        return pb.Trap(vcpu=0, sequence=self._sequence, route=route, arguments=arguments)

    def _send(self, request: pb.AttachRequest) -> None:
        self._stream.send(request.SerializeToString())
        self._flush()

    def _flush(self) -> None:
        assert self._transport is not None
        while self._stream.output:
            self._transport.write(bytes(self._stream.output))
            self._stream.wrote(len(self._stream.output))

    async def _read(self) -> pb.AttachResponse:
        while not self._responses:
            if self._stream.end is not None:
                raise RuntimeError(f"{self._name}: vio_service ended the stream: {self._stream.end.details}")
            await self._more()
        return self._responses.popleft()

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _client(address: str, numbers: range, seconds: float, posted: int) -> AsyncIterator[str]:
    """Yield a line when the guests are attached, and one with their answers' times."""
    connect = asyncio.get_running_loop().create_unix_connection
    guests = [(await connect(partial(_Guest, number), address.removeprefix("unix:")))[1] for number in numbers]
    await asyncio.gather(*(guest.attach() for guest in guests))
    yield "ready"
    answers = await asyncio.gather(*(guest.run(seconds, posted) for guest in guests))
    await asyncio.gather(*(guest.detach() for guest in guests))
    yield json.dumps(answers)


async def _main(address: str, first: str, stop: str, step: str, seconds: str, posted: str) -> None:
    async for line in _client(address, range(int(first), int(stop), int(step)), float(seconds), int(posted)):
        print(line, flush=True)
        if line == "ready":
            await asyncio.to_thread(os.read, 0, 16)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
