# SPDX-License-Identifier: GPL-2.0-or-later
"""Two network devices of one guest on a switch: frames go round, and no call harms the service; RAM mapped and by streams."""

from __future__ import annotations

import os
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from splitvisor.machine.config import Device
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.testing import SCRIPTED, RunningMachine, ScriptedGuest, StartMachine

pytest_plugins = ["splitvisor.testing"]

UNITS = (0x7100_0030, 0x7100_0031)
MACS = (0x0200_0000_0001, 0x0200_0000_0002)
VALID = 1 << 63
PAGE = 4096
WINDOW_PAGES = 64
LIST, FILTERS, QUEUE, FRAME, BUFFERS = 0, PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE
ENTRIES, BUFFER, FREE = 20, 2048, 16
SEED = 0x11A
CALLS = int(os.environ.get("SPLITVISOR_RANDOM_CALLS", "10000"))
BATCH = 1000
DEADLINE_S = 30.0
TOKENS = (
    Hcall.H_REGISTER_LOGICAL_LAN, Hcall.H_FREE_LOGICAL_LAN, Hcall.H_ADD_LOGICAL_LAN_BUFFER, Hcall.H_ADD_LOGICAL_LAN_BUFFERS,
    Hcall.H_SEND_LOGICAL_LAN, Hcall.H_MULTICAST_CTRL, Hcall.H_CHANGE_LOGICAL_LAN_MAC, Hcall.H_FREE_LOGICAL_LAN_BUFFER,
    Hcall.H_ILLAN_ATTRIBUTES, Hcall.H_PUT_TCE, Hcall.H_VIO_SIGNAL,
)  # fmt: skip


@pytest.fixture(name="machine", params=[True, False], ids=["mapped", "streams"])
def start(request: pytest.FixtureRequest, start_machine: StartMachine) -> RunningMachine:
    devices = tuple(
        Device("l-lan", unit, {"net": f"switch=c{os.getpid()}", "mac": mac.to_bytes(6, "big").hex(":")})
        for unit, mac in zip(UNITS, MACS, strict=True)
    )
    return start_machine((), replace(SCRIPTED, devices=(*SCRIPTED.devices, *devices), shared_memory=request.param))


def descriptor(ioba: int, length: int) -> int:
    return VALID | length << 32 | ioba


class Port:
    """One of the devices, with memory of its own; its driver is the test."""

    def __init__(self, guest: ScriptedGuest, number: int) -> None:
        self.guest, self.unit, self.mac = guest, UNITS[number], MACS[number]
        self.base = guest.allocate(WINDOW_PAGES * PAGE, PAGE)
        self.map_all()
        self.taken = 0

    def map_all(self) -> None:
        calls = [(Hcall.H_PUT_TCE, self.unit, page * PAGE, self.base + page * PAGE | 3) for page in range(WINDOW_PAGES)]
        assert {each.result for each in self.guest.hcalls(calls)} == {H.SUCCESS}

    def call(self, token: int, *arguments: int) -> int:
        return self.guest.hcall(token, self.unit, *arguments).result

    def open(self) -> None:
        self.guest.memory[self.base + QUEUE : self.base + QUEUE + 16 * ENTRIES] = bytes(16 * ENTRIES)
        registered = self.call(Hcall.H_REGISTER_LOGICAL_LAN, LIST, descriptor(QUEUE, 16 * ENTRIES), FILTERS, self.mac)
        assert registered == H.SUCCESS
        self.taken = 0
        for number in range(FREE):
            self.add(number)

    def add(self, number: int) -> None:
        at = self.base + BUFFERS + number * BUFFER
        self.guest.memory[at : at + 8] = struct.pack(">Q", number)
        assert self.call(Hcall.H_ADD_LOGICAL_LAN_BUFFER, descriptor(BUFFERS + number * BUFFER, BUFFER)) == H.SUCCESS

    def send(self, frame: bytes) -> int:
        self.guest.memory[self.base + FRAME : self.base + FRAME + len(frame)] = frame
        parts = (descriptor(FRAME, 14), descriptor(FRAME + 14, len(frame) - 14))
        return self.call(Hcall.H_SEND_LOGICAL_LAN, *parts, 0, 0, 0, 0, 0, 0)

    def take(self) -> bytes:
        """Return the next frame; its buffer is free again."""
        at = self.base + QUEUE + self.taken % ENTRIES * 16
        toggle = 0x80 if self.taken // ENTRIES % 2 == 0 else 0
        deadline = time.monotonic() + DEADLINE_S
        while self.guest.memory[at : at + 1][0] & 0xC0 != toggle | 0x40:
            assert time.monotonic() < deadline, "no frame comes"
        _, length, number = struct.unpack(">IIQ", self.guest.memory[at : at + 16])
        start = self.base + BUFFERS + number * BUFFER + 8
        frame = self.guest.memory[start : start + length]
        self.taken += 1
        self.add(number)
        return frame


def exchange(ports: Sequence[Port], count: int, source: random.Random) -> None:
    """Send frames each way, which arrive as they were, in order."""
    first, second = ports
    for number in range(count):
        sender, receiver = (first, second) if number % 3 else (second, first)
        addresses = receiver.mac.to_bytes(6, "big") + sender.mac.to_bytes(6, "big")
        frame = addresses + b"\x88\xb5" + source.randbytes(source.randrange(1, 1500))
        assert sender.send(frame) == H.SUCCESS
        assert receiver.take() == frame


def test_frames_go_round_while_the_queue_does(machine: RunningMachine) -> None:
    ports = [Port(machine.guest, number) for number in range(2)]
    for port in ports:
        port.open()
    exchange(ports, 3 * ENTRIES, random.Random(SEED))


ARGUMENTS: tuple[Callable[[random.Random], int], ...] = (
    lambda source: source.getrandbits(64),
    lambda source: source.getrandbits(32),
    lambda source: source.randrange(0x100000),
    lambda source: source.randrange(WINDOW_PAGES + 1) * PAGE,
    lambda source: source.choice((0, *MACS)),
    lambda source: descriptor(source.randrange(WINDOW_PAGES * PAGE), source.randrange(4096)) | source.getrandbits(3) << 56,
    lambda source: descriptor(source.randrange(WINDOW_PAGES) * PAGE, source.choice((0, 16, 80, BUFFER, 0xFFFFFF))),
)


def test_random_calls_return_and_frames_go_round_after_them(machine: RunningMachine) -> None:
    source = random.Random(SEED)
    guest = machine.guest
    ports = [Port(guest, number) for number in range(2)]
    results: Counter[int] = Counter()
    for start in range(0, CALLS, BATCH):
        calls: list[tuple[int, ...]] = []
        for _ in range(min(BATCH, CALLS - start)):
            token = source.choice(TOKENS)
            port = source.choice(ports)
            if token == Hcall.H_PUT_TCE:  # Pages of its own only: what a guest maps, its devices may write.
                page = source.randrange(WINDOW_PAGES)
                calls.append((token, port.unit, page * PAGE, port.base + page * PAGE | source.randrange(4)))
            else:
                calls.append((token, port.unit, *(source.choice(ARGUMENTS)(source) for _ in range(8))))
        results.update(answer.result for answer in guest.hcalls(calls, timeout=120.0))
    assert sum(results.values()) == CALLS
    assert {H.SUCCESS, H.PARAMETER, H.RESOURCE, H.DROPPED} <= results.keys()
    assert H.HARDWARE not in results
    for port in ports:
        port.map_all()
        port.call(Hcall.H_FREE_LOGICAL_LAN)
        port.call(Hcall.H_MULTICAST_CTRL, 0x80000 | 0x20000 | 0x40000 | 3, 0)
        port.open()
    exchange(ports, 2 * ENTRIES, source)
    assert all(each.attached and not each.reconnects for each in machine.status().backends)
