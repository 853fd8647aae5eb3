# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that makes every hypercall with senseless arguments, against the real back ends: each call returns, nothing breaks."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cpu_service.engine.engine import MSR_ME, MSR_SF
from cpu_service.link.events import LinkStatus
from cpu_service.machine.board import MIB, Board
from cpu_service.machine.boot import load_guest
from cpu_service.machine.crash_report import crash_report
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import TOKENS
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.service.names import SERVICE_NAMES
from tests import ppc

CALLS = 100_000
SEED = 0x5EED
DEADLINE_S = 60.0
RAM_BYTES = 256 * MIB
TABLE = 16 * MIB
"""The guest's list of calls: r3 to r12 of each."""
SANDBOX, SANDBOX_BYTES = 64 * MIB, 1 * MIB
"""Where arguments point that are addresses: parameter blocks of RTAS calls and client services, and names."""
PROGRAM = 128 * MIB
TOKEN_SPACE = (*range(0x501), *range(0xF000, 0xF011))
END_TOKEN = 0xFFFF
RECORD = struct.Struct(">10Q")
MASK = (1 << 64) - 1
OWNED_SHARE = 0.25
"""How many calls have a token that somebody owns, beside those of the plain passes."""
REFILL_CALLS = 500
UNITS = (0, 1, 0x3000_0000, 0x7100_0000, 0x7100_0001, 0x7100_0002)
CLIENT_SERVICES = (
    "test", "peer", "child", "parent", "getprop", "getproplen", "nextprop", "setprop", "canon", "finddevice", "package-to-path",
    "instance-to-path", "instance-to-package", "call-method", "open", "close", "read", "write", "seek", "claim", "release",
    "boot", "enter", "exit", "chain", "interpret", "milliseconds", "quiesce", "nonsense",
)  # fmt: skip
NAMES = (*CLIENT_SERVICES, "/", "/chosen", "/memory@0", "/vdevice", "reg", "name", "ibm,client-architecture-support", "")
DECREMENTER_TICKS = 25_600
"""50 us: what ends H_CEDE."""
ENDIAN_PROBE = 0x0800_0048
"""Does nothing in big endian, skips the next instruction in little endian, which H_SET_MODE asks for."""


class IgnoredActions:
    """Power-off, reboot and crash by request of the guest change nothing here."""

    def __init__(self) -> None:
        self.actions = 0

    def action(self, action: pb.MachineAction) -> None:
        assert action.kind
        self.actions += 1

    def connection_changed(self, link: LinkStatus) -> None:
        """Looked at when all is over."""


class Service:
    """A back end as a process; ends with this one."""

    def __init__(self, command: str, package: str, directory: Path) -> None:
        self.package, self.address = package, f"unix:{directory}/{command}.sock"
        arguments = {"hcall": ["--store", ":memory:"], "of-client": ["--device-tree", f"unix:{directory}/hcall.sock"]}
        ready, ready_write = os.pipe()
        parent_read, self._parent = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "splitvisor.service.main", command, "--listen", self.address, "--log-level", "error",
                "--ready-fd", str(ready_write), "--parent-fd", str(parent_read), *arguments.get(command, []),
            ],
            pass_fds=(ready_write, parent_read),
        )  # fmt: skip
        os.close(ready_write)
        os.close(parent_read)
        self._ready = ready

    def wait_ready(self) -> None:
        with open(self._ready, "rb") as ready:
            assert json.loads(ready.readline())["pid"] == self.process.pid

    def healthy(self) -> bool:
        with grpc.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            status = check(health_pb2.HealthCheckRequest(service="splitvisor.trap.v1.TrapService"), timeout=5).status
        return bool(status == health_pb2.HealthCheckResponse.SERVING) and self.process.poll() is None

    def stop(self) -> None:
        os.close(self._parent)
        try:
            self.process.wait(10)
        finally:
            self.process.kill()


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="sv"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def services(directory: Path) -> Iterator[list[Service]]:
    started = [Service(name.command, name.package, directory) for name in SERVICE_NAMES if name.command != "cpu"]
    for service in started:
        service.wait_ready()
    yield started
    for service in started:
        service.stop()


def argument(source: random.Random) -> int:
    """One of what a fuzzer would pass: nonsense, small numbers, addresses that mean something, device units, edges."""
    match source.randrange(10):
        case 0 | 1:
            return source.getrandbits(64)
        case 2 | 3:
            return source.randrange(0x2000)
        case 4 | 5 | 6:
            return SANDBOX + source.randrange(SANDBOX_BYTES // 64) * 64
        case 7:
            return source.choice(UNITS)
        case 8:
            return source.choice((RAM_BYTES - 4, RAM_BYTES, 1 << 60, 1 << 63, MASK, MASK - 7, 0xC000_0000_0000_0000 | SANDBOX))
        case _:
            return 1 << source.randrange(64)


def calls(source: random.Random, owned: list[int]) -> list[tuple[int, ...]]:
    """Every token first; then again and again, with more of those that somebody owns."""
    made: list[tuple[int, ...]] = []
    while len(made) < CALLS:
        for token in TOKEN_SPACE:
            chosen = source.choice(owned) if len(made) >= len(TOKEN_SPACE) and source.random() < OWNED_SHARE else token
            arguments = [argument(source) for _ in range(9)]
            if chosen == Hcall.H_CONFER and arguments[0] == 0:
                arguments[0] = 1  # To itself would be for ever: nobody is there to wake it.
            if chosen in (Hcall.H_RTAS, Hcall.H_OF_CLIENT) and source.random() < 0.7:
                arguments[0] = SANDBOX + SANDBOX_BYTES // 2 + source.randrange(SANDBOX_BYTES // 128) * 64
            made.append((chosen, *arguments))
    return made[:CALLS]


def sandbox(source: random.Random, rtas_tokens: list[int]) -> bytes:
    """Names in the first half; in the second, parameter blocks of RTAS calls and of client services that point anywhere."""
    count = SANDBOX_BYTES // 128
    names = [source.choice(NAMES).encode().ljust(64, b"\0") for _ in range(count)]
    blocks = []
    for _ in range(count):
        first = source.choice(rtas_tokens) if source.random() < 0.5 else SANDBOX + 64 * source.randrange(count)
        words = [first, source.randrange(8), source.randrange(6), *(argument(source) & 0xFFFF_FFFF for _ in range(13))]
        blocks.append(struct.pack(">16I", *words))
    return b"".join(names + blocks)


def program() -> tuple[int, ...]:
    """For each record of the table (r14), CTR of them: arm the decrementer, load r3 to r12, `sc 1`; then the end."""
    load = [ppc.ld(3 + number, 8 * number, 14) for number in range(10)]
    body = (ppc.mtspr(ppc.SPR_DEC, 15), *load, ppc.addi(14, 14, RECORD.size), ppc.SC1)
    return *body, ppc.bdnz(-4 * len(body)), *ppc.li64(3, END_TOKEN), ppc.SC1


def handler() -> bytes:
    """Return with interrupts disabled: r16 is the mask for SRR1. In both endiannesses."""
    words = ppc.mfspr(13, ppc.SPR_SRR1), ppc.and_(13, 13, 16), ppc.mtspr(ppc.SPR_SRR1, 13), ppc.RFID
    big = ppc.pack(words)
    skip = ppc.pack([ppc.branch(4 + len(big))])
    # Big endian: probe, branch over the little-endian copy; little endian: probe, then that copy.
    return ppc.pack([ENDIAN_PROBE]) + skip + b"".join(word.to_bytes(4, "little") for word in words) + big


def test_every_hypercall_with_senseless_arguments_returns(services: list[Service], directory: Path) -> None:
    source = random.Random(SEED)
    config = mpb.MachineConfig(
        name="hostile",
        memory_mib=RAM_BYTES // MIB,
        vcpus=1,
        devices=[pb.DeviceSpec(kind="vty"), pb.DeviceSpec(kind="nvram")],
        backends=[mpb.BackendAddress(name=service.package, address=service.address) for service in services],
    )
    events = IgnoredActions()
    board = Board(config, 1, directory, events)
    try:
        board.attach()
        board.power_on()
        load_guest(config, board)
        for link in board.links:
            link.reset(1, DEADLINE_S)
        # Half of the calls that somebody owns are of those with a world behind them.
        owned = list(board.registry.hypercalls())
        owned += [Hcall.H_RTAS, Hcall.H_OF_CLIENT] * (len(owned) // 2)
        made = calls(source, owned)
        assert set(TOKEN_SPACE) <= {token for token, *_ in made}
        board.ram.write(TABLE, b"".join(RECORD.pack(*call) for call in made))
        # It would stop for ever, and have its system resets end anywhere.
        tokens = [token for token in TOKENS.values() if token not in (TOKENS["stop-self"], TOKENS["ibm,nmi-register"])]
        code = {0x100: handler(), 0x500: handler(), 0x900: handler(), PROGRAM: ppc.pack(program())}
        returned, ended, slowest = run(board, code, sandbox(source, tokens))
        assert ended, f"it hangs after {returned} calls"
        native = sum(board.engine.native_calls().values())
        assert returned + native == CALLS
        assert slowest < 10, "a guest can make a call last"
        assert board.router is not None
        assert sum(board.router.counts.values()) + native == CALLS + 1
        assert len(board.router.rtas_counts) > 20, "hardly any RTAS call was one"
        assert sum(board.router.rtas_counts.values()) > 500
        assert events.actions > 0, "nothing did anything"
        report = crash_report("asked for", board).splitlines()
        assert report[0] == "asked for"
        assert report[report.index("last traps, the newest first:") + 1].startswith(f"  vCPU 0 hypercall {END_TOKEN:#x}")
        for service in services:
            assert service.healthy(), service.package
        for link in board.links:
            assert link.attached, link.name
            assert link.reconnects == 0, link.name
    finally:
        board.close("the test is over")


def run(board: Board, code: dict[int, bytes], blocks: bytes) -> tuple[int, bool, float]:
    """Run the guest to its end: how many calls returned, whether it came there, and the seconds of the slowest call.

    What the guest's own calls overwrote is put back, so that it can go on: code after each call, parameter blocks now and then.
    """
    scheduler, router = board.scheduler, board.router
    assert router is not None
    dispatch, gpr, memory = router.dispatch, scheduler.loaded.gpr, board.ram.map
    returned, ended, slowest = 0, False, 0.0

    def hypercall() -> None:
        nonlocal returned, ended, slowest
        token = gpr[3]
        owned = token in board.registry.local or token in board.registry.remote or token == Hcall.H_RTAS
        began = time.monotonic()
        dispatch()
        slowest = max(slowest, time.monotonic() - began)
        assert owned or gpr[3] == H.FUNCTION & MASK, f"nobody owns {token:#x}"
        if returned % REFILL_CALLS == 0:
            memory[SANDBOX : SANDBOX + SANDBOX_BYTES] = blocks
        for address, words in code.items():
            if memory[address : address + len(words)] != words:
                board.ram.write(address, words)
        if token == END_TOKEN:
            ended = True
            scheduler.end()
        else:
            returned += 1

    for address, words in code.items():
        board.ram.write(address, words)
    board.engine.on_hypercall = hypercall
    registers = {14: TABLE, 15: DECREMENTER_TICKS, 16: MASK & ~(1 << 15)}
    scheduler.reset(PROGRAM - 4 * 6, registers, MSR_SF | MSR_ME)
    board.ram.write(PROGRAM - 4 * 6, ppc.pack((*ppc.li64(3, CALLS), ppc.mtspr(ppc.SPR_CTR, 3))))
    watchdog = threading.Timer(DEADLINE_S, scheduler.end)
    watchdog.start()
    try:
        scheduler.run()
    finally:
        watchdog.cancel()
        watchdog.join()
    return returned, ended, slowest
