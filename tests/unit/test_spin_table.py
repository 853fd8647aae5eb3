# SPDX-License-Identifier: GPL-2.0-or-later
"""A store to the spin table starts the vCPU of that entry, once, and whatever else the guest writes there harms nobody."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from cpu_service.vcpus.spin_table import TABLE_BYTES, SpinTable, entry_address
from cpu_service.vcpus.vcpu import RunState
from tests.fake_machine import FakeScheduler, make_ram

TABLE = 0x8000
PIR = 0x3FF
VCPUS = 4


class Machine:
    def __init__(self) -> None:
        self.ram = make_ram()
        self.scheduler = FakeScheduler(VCPUS)
        for vcpu in self.scheduler.vcpus[1:]:
            vcpu.run_state = RunState.STOPPED
        self.table = SpinTable(self.ram, self.scheduler, TABLE)
        self.table.fill()

    def write(self, vcpu: int, offset: int, data: bytes) -> list[int]:
        """Store into an entry; return the vCPUs that have been started so far."""
        self.ram.write(entry_address(TABLE, vcpu) + offset, data)
        self.table.stored(self.scheduler.vcpus[0])
        return [index for index, *_ in self.scheduler.starts]


def test_entries_are_as_epapr_says_before_the_guest_writes() -> None:
    machine = Machine()
    for index in range(VCPUS):
        entry = machine.ram.read(TABLE + 32 * index, 32)
        assert entry == struct.pack(">QQIIQ", 1, index, 0, index, 0)
    assert not any(machine.ram.read(TABLE + 32 * VCPUS, TABLE_BYTES - 32 * VCPUS))


def test_a_released_vcpu_begins_at_the_address_with_r3_r7_and_pir() -> None:
    machine = Machine()
    machine.write(2, 8, struct.pack(">Q", 0xABCD_0000_1234))
    machine.write(2, 20, struct.pack(">I", 77))
    assert machine.write(2, 0, struct.pack(">Q", 0x4000)) == [2]
    assert machine.scheduler.starts == [(2, 0x4000, 0xABCD_0000_1234, 0)]
    started = machine.scheduler.vcpus[2]
    assert (started.gpr[7], started.spr[PIR]) == (machine.ram.size, 77)


def test_two_words_release_with_the_second() -> None:
    machine = Machine()
    assert machine.write(1, 0, struct.pack(">I", 0)) == []
    assert machine.write(1, 4, struct.pack(">I", 0x4000)) == [1]
    assert machine.scheduler.starts[0][1] == 0x4000


def test_a_vcpu_is_released_once_also_when_it_has_stopped_since() -> None:
    machine = Machine()
    assert machine.write(1, 0, struct.pack(">Q", 0x4000)) == [1]
    machine.scheduler.vcpus[1].run_state = RunState.STOPPED
    assert machine.write(1, 8, bytes(8)) == [1]
    assert machine.write(2, 0, struct.pack(">Q", 0x4000)) == [1, 2]
    machine.table.fill()
    assert machine.write(1, 0, struct.pack(">Q", 0x4000)) == [1, 2, 1]


def test_one_store_may_release_several() -> None:
    machine = Machine()
    machine.ram.write(TABLE, bytes(TABLE_BYTES))
    machine.table.stored(machine.scheduler.vcpus[0])
    assert [index for index, *_ in machine.scheduler.starts] == [1, 2, 3]


def test_a_restored_table_releases_only_what_was_not_released() -> None:
    machine = Machine()
    machine.write(1, 0, struct.pack(">Q", 0x4000))
    machine.scheduler.starts.clear()
    machine.scheduler.vcpus[1].run_state = RunState.STOPPED
    machine.table = SpinTable(machine.ram, machine.scheduler, TABLE)
    machine.table.resume()
    assert machine.write(3, 0, struct.pack(">Q", 0x4000)) == [3]


@given(st.binary(max_size=32 * VCPUS))
def test_whatever_is_written_starts_at_an_instruction(data: bytes) -> None:
    machine = Machine()
    machine.ram.write(TABLE, data)
    machine.table.stored(machine.scheduler.vcpus[0])
    assert all(0 < index < VCPUS and nip % 4 == 0 for index, nip, *_ in machine.scheduler.starts)
