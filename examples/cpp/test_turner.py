# SPDX-License-Identifier: GPL-2.0-or-later
"""The device with a queue in C++: what a guest sees of it is what it sees of the one in Python."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from examples.cpp.conftest import Connect, Connection
from examples.crq_device.crq_device import ENTRY, FORMAT
from examples.crq_device.test_crq_device import (  # noqa: F401  # the same driver, and what must hold of both
    DATA_IOBA,
    UNIT,
    Driver,
    driver,
    test_a_killed_process_is_one_transport_event,
    test_a_large_queue_that_is_not_looked_at_loses_nothing,
    test_a_reset_takes_queue_and_window_away,
    test_bytes_are_turned_round_across_pages,
    test_only_what_the_guest_has_mapped_is_reached,
    test_the_queue_goes_round,
    test_with_a_bypass_addresses_are_those_of_memory,
)
from splitvisor.backend.vio import COMMAND, INITIALIZE, INITIALIZED
from splitvisor.machine.config import Device, MachineConfig
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.testing import SCRIPTED, BackendProgram, RunningMachine, ScriptedGuest

pytest_plugins = ["splitvisor.testing"]

REGISTER, FREE, SEND = range(3)
"""Places of its routes."""
SLOTS = pb.SlotRange(first=60, count=4)


@pytest.fixture
def backends(built: Path) -> Sequence[BackendProgram]:
    return [BackendProgram("turner_cpp", [built / "turner"])]


@pytest.fixture
def machine_config() -> MachineConfig:
    return replace(SCRIPTED, devices=(*SCRIPTED.devices, Device("turner", unit_address=UNIT, backend="turner_cpp")))


def test_a_firmware_that_ends_ends_the_queue(driver: Driver) -> None:  # noqa: F811
    driver.guest.rtas("quiesce")
    assert driver.send(INITIALIZE) == H.CLOSED
    driver.begin()
    assert driver.turn(b"part") == 4


def test_calls_that_never_travel(driver: Driver, machine: RunningMachine) -> None:  # noqa: F811
    owners = {call.name: call.owner for call in machine.status().calls}
    assert (owners["H_PUT_TCE"], owners["H_VIO_SIGNAL"]) == ("local", "local")
    assert (owners["H_REG_CRQ"], owners["H_SEND_CRQ"]) == ("turner_cpp", "turner_cpp")


def test_its_node_is_that_of_a_device_with_a_window(guest: ScriptedGuest) -> None:
    window = guest.property(f"/vdevice/turner@{UNIT:x}", "ibm,my-dma-window")
    assert window == struct.pack(">IQQ", UNIT, 0, 256 << 20)
    assert guest.hcall(Hcall.H_SEND_CRQ, UNIT + 1, 0, 0).result == H.PARAMETER


def trap(sequence: int, route: int, *arguments: int) -> pb.Trap:
    return pb.Trap(sequence=sequence, route=route, arguments=[UNIT, *arguments])


def entry(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:8]), int.from_bytes(data[8:])


def begin(connection: Connection) -> None:
    """Have an offer, and a registered queue."""
    transport = connection.receive().offer.transports[0]
    assert (transport.has_queue, transport.queue_open) == (True, False)
    connection.send(trap=trap(1, REGISTER, 0, 4096))
    assert connection.receive().reply.result == H.SUCCESS


def test_what_is_posted_while_it_waits_for_memory_is_not_lost(connect: Connect) -> None:
    connection = connect(slots=SLOTS)
    begin(connection)
    connection.send(posted=pb.PostedBatch(traps=[trap(2, SEND, *entry(ENTRY.pack(COMMAND, FORMAT, 5, 4, DATA_IOBA)))]))
    read = connection.receive().memory_read
    assert (read.liobn, read.range.address, read.range.length) == (UNIT, DATA_IOBA, 4)
    connection.send(posted=pb.PostedBatch(traps=[trap(3, SEND, *entry(INITIALIZE))]))
    connection.send(memory_result=pb.MemoryResult(id=read.id, ok=True, data=b"edit"))
    write = connection.receive().memory_write
    assert (write.liobn, write.block.address, write.block.data) == (UNIT, DATA_IOBA, b"tide")
    connection.send(memory_result=pb.MemoryResult(id=write.id, ok=True))
    first = connection.receive().crq_entries
    assert (first.unit_address, first.position, first.entries) == (UNIT, 0, ENTRY.pack(COMMAND, FORMAT, 5, 4, DATA_IOBA))
    assert connection.receive().acknowledge.sequence == 2
    second = connection.receive().crq_entries
    assert (second.position, second.entries) == (1, INITIALIZED)
    assert connection.receive().acknowledge.sequence == 3


def test_entries_that_got_lost_are_said_again(connect: Connect) -> None:
    connection = connect(slots=SLOTS)
    begin(connection)
    count = 600
    connection.send(posted=pb.PostedBatch(traps=[trap(2 + number, SEND, *entry(INITIALIZE)) for number in range(count)]))
    while connection.receive().acknowledge.sequence != count + 1:
        pass
    connection.end()
    connection = connect(slots=SLOTS, open_queues=[pb.OpenQueue(unit_address=UNIT, entries=1)])
    assert connection.receive().offer.transports[0].queue_open
    again = [connection.receive().crq_entries for _ in range(3)]
    assert [each.position for each in again] == [1, 257, 513]
    assert b"".join(each.entries for each in again) == INITIALIZED * (count - 1)


def test_a_queue_that_was_freed_meanwhile_is_closed(connect: Connect) -> None:
    connection = connect(slots=SLOTS)
    begin(connection)
    connection.end()
    connection = connect(slots=SLOTS)
    assert not connection.receive().offer.transports[0].queue_open
    connection.send(trap=trap(2, SEND, *entry(INITIALIZE)))
    assert connection.receive().reply.result == H.CLOSED


@pytest.mark.parametrize("hello", [{}, {"slots": SLOTS, "devices": [pb.DeviceSpec(kind="disk")]}])
def test_a_vm_that_it_cannot_serve_is_refused(connect: Connect, hello: dict[str, object]) -> None:
    assert connect(**hello).fails_with() is grpc.StatusCode.INVALID_ARGUMENT
