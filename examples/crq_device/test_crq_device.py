# SPDX-License-Identifier: GPL-2.0-or-later
"""The device with a queue, in a process of its own, and a guest that drives it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from examples.crq_device.crq_device import ENTRY, FORMAT
from splitvisor.backend.vio import COMMAND, INITIALIZE, INITIALIZED, PAGE_BYTES, WINDOW_BYTES
from splitvisor.machine.config import Device, MachineConfig
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.vio import interrupt_source
from splitvisor.testing import SCRIPTED, BackendProgram, RunningMachine, RunningProgram, ScriptedGuest

pytest_plugins = ["splitvisor.testing"]

UNIT = 0x7100_003C
SOURCE = interrupt_source(UNIT)
PROGRAM = Path(__file__).with_name("crq_device.py")
QUEUE_IOBA, DATA_IOBA = 0x10_0000, 0x20_0000
READ_WRITE = 3
TRANSPORT_EVENT = 0xFF


@pytest.fixture
def backends() -> Sequence[BackendProgram]:
    return [BackendProgram("turners", [sys.executable, PROGRAM])]


@pytest.fixture(params=[True, False], ids=["shared-memory", "through-the-stream"])
def machine_config(request: pytest.FixtureRequest) -> MachineConfig:
    devices = (*SCRIPTED.devices, Device("turner", unit_address=UNIT, backend="turners"))
    return replace(SCRIPTED, shared_memory=request.param, devices=devices)


class Driver:
    """A guest's driver for the device.

    Args:
        guest: the guest.
        pages: size of the queue.
    """

    def __init__(self, guest: ScriptedGuest, pages: int = 1) -> None:
        self.guest, self.size = guest, pages * PAGE_BYTES
        self.queue = guest.allocate(self.size, PAGE_BYTES)
        self.data = guest.allocate(4 * PAGE_BYTES, PAGE_BYTES)
        self.next = 0
        guest.route_interrupt(SOURCE)

    def begin(self) -> None:
        """Map queue and data, register, greet."""
        self.map(QUEUE_IOBA, self.queue, self.size)
        self.map(DATA_IOBA, self.data, 4 * PAGE_BYTES)
        self.register(QUEUE_IOBA)

    def register(self, ioba: int) -> None:
        """Register the queue at this address for the device, and greet."""
        self.guest.memory[self.queue : self.queue + self.size] = bytes(self.size)
        self.next = 0
        assert self.guest.hcall(Hcall.H_REG_CRQ, UNIT, ioba, self.size).result == H.SUCCESS
        assert self.guest.hcall(Hcall.H_VIO_SIGNAL, UNIT, 1).result == H.SUCCESS
        assert self.send(INITIALIZE) == H.SUCCESS
        assert self.answer() == INITIALIZED

    def map(self, ioba: int, address: int, size: int, permission: int = READ_WRITE) -> None:
        for page in range(0, size, PAGE_BYTES):
            assert self.guest.hcall(Hcall.H_PUT_TCE, UNIT, ioba + page, address + page | permission).result == H.SUCCESS

    def send(self, entry: bytes) -> int:
        return self.guest.hcall(Hcall.H_SEND_CRQ, UNIT, int.from_bytes(entry[:8]), int.from_bytes(entry[8:])).result

    def peek(self) -> bytes:
        """The next entry, which may not be there."""
        return self.guest.memory[self.queue + self.next : self.queue + self.next + 16]

    def answer(self) -> bytes:
        """Wait for the interrupt if need be, and take the next entry."""
        while not self.peek()[0]:
            assert self.guest.accept_interrupt() == SOURCE
        entry = self.peek()
        self.guest.memory[self.queue + self.next : self.queue + self.next + 1] = b"\0"
        self.next = (self.next + 16) % self.size
        return entry

    def turn(self, data: bytes, offset: int = 0, tag: int = 7) -> int:
        """Have bytes turned round. Returns how many were."""
        self.guest.memory[self.data + offset : self.data + offset + len(data)] = data
        assert self.send(ENTRY.pack(COMMAND, FORMAT, tag, len(data), DATA_IOBA + offset)) == H.SUCCESS
        _, _, answered, length, _ = ENTRY.unpack(self.answer())
        assert answered == tag
        return int(length)


@pytest.fixture
def driver(guest: ScriptedGuest) -> Driver:
    driver = Driver(guest)
    driver.begin()
    return driver


def test_bytes_are_turned_round_across_pages(driver: Driver) -> None:
    data = bytes(range(256)) * 33
    offset = PAGE_BYTES - 100
    assert driver.turn(data, offset) == len(data)
    assert driver.guest.memory[driver.data + offset : driver.data + offset + len(data)] == data[::-1]


def test_the_queue_goes_round(driver: Driver) -> None:
    for tag in range(300):
        assert driver.turn(b"stressed", tag=tag) == 8


def test_a_large_queue_that_is_not_looked_at_loses_nothing(guest: ScriptedGuest) -> None:
    driver = Driver(guest, pages=16)
    driver.begin()
    for tag in range(1000):
        assert driver.send(ENTRY.pack(COMMAND, FORMAT, tag, 0, 0)) == H.SUCCESS
        if tag % 50 == 49:  # The device takes 64 at a time.
            assert {ENTRY.unpack(driver.answer())[2] for _ in range(50)} == set(range(tag - 49, tag + 1))


def test_only_what_the_guest_has_mapped_is_reached(driver: Driver) -> None:
    secret = driver.guest.place(b"secret")
    assert driver.turn(b"x" * 16, 4 * PAGE_BYTES - 8) == 0, "the second half is not mapped"
    driver.map(DATA_IOBA, driver.data, PAGE_BYTES, permission=1)
    assert driver.turn(b"abc") == 0, "it may only be read"
    assert driver.guest.memory[driver.data : driver.data + 3] == b"abc"
    for ioba in (secret, WINDOW_BYTES - 1, (1 << 64) - 4):
        assert driver.send(ENTRY.pack(COMMAND, FORMAT, 1, 8, ioba)) == H.SUCCESS
        assert ENTRY.unpack(driver.answer())[3] == 0


def test_with_a_bypass_addresses_are_those_of_memory(guest: ScriptedGuest) -> None:
    secret = guest.place(b"secret")
    driver = Driver(guest)
    assert guest.rtas("ibm,set-tce-bypass", UNIT, 1) == (0,)
    driver.register(driver.queue)
    for address, turned in ((secret, 6), (len(guest.memory) - 3, 0), ((1 << 64) - 4, 0)):
        assert driver.send(ENTRY.pack(COMMAND, FORMAT, 1, 6, address)) == H.SUCCESS
        assert ENTRY.unpack(driver.answer())[3] == turned
    assert guest.memory[secret : secret + 6] == b"terces"


def test_a_killed_process_is_one_transport_event(driver: Driver, backend: RunningProgram) -> None:
    backend.kill()
    result = driver.send(ENTRY.pack(COMMAND, FORMAT, 1, 0, 0))
    while result != H.CLOSED:  # At first it may be back in a moment.
        assert result == H.SUCCESS
        result = driver.send(ENTRY.pack(COMMAND, FORMAT, 1, 0, 0))
    backend.start()
    assert driver.answer()[0] == TRANSPORT_EVENT
    assert driver.send(INITIALIZE) == H.CLOSED
    assert driver.guest.hcall(Hcall.H_FREE_CRQ, UNIT).result == H.SUCCESS
    driver.begin()
    assert driver.turn(b"live") == 4
    assert driver.guest.memory[driver.data : driver.data + 4] == b"evil"


def test_a_snapshot_has_window_queue_and_signal(driver: Driver, machine: RunningMachine) -> None:
    assert driver.turn(b"drawer") == 6
    machine.save_and_restore()
    driver.guest = machine.guest
    assert driver.guest.memory[driver.data : driver.data + 6] == b"reward"
    driver.guest.route_interrupt(SOURCE)
    assert driver.turn(b"diaper") == 6
    assert driver.guest.memory[driver.data : driver.data + 6] == b"repaid"


def test_a_reset_takes_queue_and_window_away(driver: Driver, machine: RunningMachine) -> None:
    machine.reset()
    assert driver.send(INITIALIZE) == H.CLOSED
    assert driver.guest.hcall(Hcall.H_GET_TCE, UNIT, QUEUE_IOBA).outputs[0] == 0
    driver.guest.route_interrupt(SOURCE)
    driver.begin()
    assert driver.turn(b"pots") == 4
