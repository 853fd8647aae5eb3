# SPDX-License-Identifier: GPL-2.0-or-later
"""The page table holds what the guest entered, and nothing that its flags or the size of RAM forbid."""

from __future__ import annotations

import struct

import pytest

from cpu_service.hypercalls.hash_page_table import (
    ANDCOND,
    AVPN,
    EXACT,
    READ_4,
    ZERO_PAGE,
    HashPageTable,
    large_page_size,
    table_shift,
)
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from tests.fake_machine import FakeVcpu, hypercall, make_ram

SHIFT = 18
ENTRIES = 1 << SHIFT - 4
RAM = 32 << 20
HIGH = 0x5554_0000_0000_0080 | 1
LOW = 0x10_0000 | 0x10 | 0x2
USED = 0x180


class Machine:
    def __init__(self) -> None:
        self.table = bytearray(1 << SHIFT)
        self.flushes = 0
        self.ram = make_ram(RAM)
        self.hpt = HashPageTable(self.table, SHIFT, self.ram, self.flush)
        self.vcpu = FakeVcpu()

    def flush(self) -> None:
        self.flushes += 1

    def call(self, token: int, *arguments: int) -> int:
        return hypercall(self.hpt.calls(), token, self.vcpu, *arguments)

    def enter(self, ptex: int, high: int = HIGH, low: int = LOW, flags: int = 0) -> int:
        return self.call(Hcall.H_ENTER, flags, ptex, high, low)

    def entry(self, ptex: int) -> tuple[int, int]:
        high, low = struct.unpack_from(">QQ", self.table, 16 * ptex)
        return high, low


def test_enter_takes_the_first_free_slot_of_the_group() -> None:
    machine = Machine()
    slots = []
    for _ in range(8):
        assert machine.enter(0x45) == H.SUCCESS
        slots.append(machine.vcpu.gpr[4])
    assert slots == list(range(0x40, 0x48))
    before = bytes(machine.table)
    assert machine.enter(0x45) == H.PTEG_FULL
    assert machine.table == before
    assert machine.call(Hcall.H_REMOVE, 0, 0x43, 0) == H.SUCCESS
    assert machine.enter(0x45) == H.SUCCESS
    assert machine.vcpu.gpr[4] == 0x43


def test_exact_takes_that_slot_or_none() -> None:
    machine = Machine()
    assert machine.enter(0x45, flags=EXACT) == H.SUCCESS
    assert machine.vcpu.gpr[4] == 0x45
    assert machine.entry(0x40) == (0, 0)
    assert machine.enter(0x45, flags=EXACT) == H.PTEG_FULL


def test_an_entry_is_stored_referenced_and_changed_without_software_bits() -> None:
    machine = Machine()
    machine.enter(0x10, high=HIGH | 0x60)
    assert machine.entry(0x10) == (HIGH & ~0x60, LOW | USED)


@pytest.mark.parametrize(
    ("high", "low"),
    [
        pytest.param(HIGH, RAM | 0x10, id="beyond RAM"),
        pytest.param(HIGH, RAM | 0x28, id="no device memory"),
        pytest.param(HIGH, 0x10_0000 | 0x28, id="RAM as device memory"),
        pytest.param(HIGH, 0x10_0000 | 0x50, id="RAM written through"),
        pytest.param(HIGH | 4, 0x2000 | 0x10, id="unknown large page"),
        pytest.param(HIGH | 4, 0x0FFF_FFFF_FF00_0010, id="16 MiB at the end of the address space"),
        pytest.param(HIGH | 4, RAM | 0x1010, id="64 KiB beyond RAM"),
    ],
)
def test_enter_refuses_what_it_cannot_map(high: int, low: int) -> None:
    machine = Machine()
    assert machine.enter(0, high, low) == H.PARAMETER
    assert not any(machine.table)


def test_a_large_page_must_be_ram_to_its_end() -> None:
    table = bytearray(1 << SHIFT)
    hpt = HashPageTable(table, SHIFT, make_ram(24 << 20), lambda: None)
    vcpu = FakeVcpu()
    for low, expected in (
        ((0 << 20) | 0x10, H.SUCCESS),  # 16 MiB
        ((16 << 20) | 0x10, H.PARAMETER),
        ((24 << 20) - 0x10000 | 0x1010, H.SUCCESS),  # 64 KiB
        ((24 << 20) | 0x1010, H.PARAMETER),
    ):
        assert hypercall(hpt.calls(), Hcall.H_ENTER, vcpu, 0, 0, HIGH | 4, low) == expected


@pytest.mark.parametrize(
    ("number", "size"),
    [(1, 1 << 16), (0xFF1, 1 << 16), (7, 1 << 16), (0, 1 << 24), (8, 1 << 24), (0x38, 1 << 24), (0x18, 0), (3, 0), (0x10, 0)],
)
def test_large_page_encodings_are_power8s(number: int, size: int) -> None:
    assert large_page_size(number) == size


def test_zero_page_clears_the_page_that_it_maps_and_no_other() -> None:
    machine = Machine()
    machine.ram.write(0x10_0000 - 1, b"\xff" * 0x1002)
    assert machine.enter(0, flags=ZERO_PAGE) == H.SUCCESS
    assert machine.ram.read(0x10_0000 - 1, 0x1002) == b"\xff" + bytes(0x1000) + b"\xff"


@pytest.mark.parametrize(
    "token", [Hcall.H_ENTER, Hcall.H_REMOVE, Hcall.H_PROTECT, Hcall.H_READ, Hcall.H_CLEAR_MOD, Hcall.H_CLEAR_REF]
)
@pytest.mark.parametrize("ptex", [ENTRIES, 1 << 60, (1 << 64) - 1])
def test_an_index_beyond_the_table_is_a_parameter_error(token: int, ptex: int) -> None:
    machine = Machine()
    assert machine.call(token, 0, ptex, HIGH, LOW) == H.PARAMETER
    assert not any(machine.table)


def test_remove_returns_the_entry_and_drops_translations() -> None:
    machine = Machine()
    machine.enter(0x20)
    assert machine.flushes == 0
    assert machine.call(Hcall.H_REMOVE, AVPN, 0x20, HIGH & ~0x7F) == H.SUCCESS
    assert list(machine.vcpu.gpr[4:6]) == [HIGH, LOW | USED]
    assert machine.entry(0x20) == (0, 0)
    assert machine.flushes == 1


@pytest.mark.parametrize(("flags", "value"), [(AVPN, 0x80), (ANDCOND, 0x1)])
def test_remove_keeps_an_entry_whose_condition_fails(flags: int, value: int) -> None:
    machine = Machine()
    machine.enter(0x20)
    assert machine.call(Hcall.H_REMOVE, flags, 0x20, value) == H.NOT_FOUND
    assert machine.entry(0x20) == (HIGH, LOW | USED)
    assert machine.flushes == 0


def test_remove_of_a_free_slot_finds_nothing() -> None:
    machine = Machine()
    assert machine.call(Hcall.H_REMOVE, 0, 0x20, 0) == H.NOT_FOUND


def test_bulk_remove_answers_each_request_up_to_the_end_mark() -> None:
    machine = Machine()
    for ptex in (8, 16, 24):
        machine.enter(ptex)
    request, end = 1 << 62, 3 << 62
    arguments = (request | 8, 0, request | 9, 0, request | 2 << 56 | 16, HIGH & ~0x7F, end, 0)
    assert machine.call(Hcall.H_BULK_REMOVE, *arguments) == H.SUCCESS
    removed = 2 << 62 | 3 << 58
    assert machine.vcpu.gpr[4] == removed | 8
    assert machine.vcpu.gpr[6] == 2 << 62 | 1 << 60 | 9
    assert machine.vcpu.gpr[8] == removed | 2 << 56 | 16
    assert machine.vcpu.gpr[10] == end
    assert [machine.entry(ptex)[0] for ptex in (8, 16, 24)] == [0, 0, HIGH]
    assert machine.flushes == 1


@pytest.mark.parametrize(
    ("bad", "answer"),
    [
        pytest.param(1 << 62 | ENTRIES, 2 << 62 | 2 << 60 | ENTRIES, id="beyond the table"),
        pytest.param(1 << 62 | 3 << 56 | 8, 2 << 62 | 2 << 60 | 3 << 56 | 8, id="both conditions"),
        pytest.param(2 << 62 | 8, 2 << 62 | 8, id="a response"),
        pytest.param(8, 8, id="no type"),
    ],
)
def test_bulk_remove_stops_at_a_bad_request_and_keeps_what_it_did(bad: int, answer: int) -> None:
    machine = Machine()
    machine.enter(8)
    machine.enter(16)
    assert machine.call(Hcall.H_BULK_REMOVE, 1 << 62 | 16, 0, bad, 0, 1 << 62 | 8, 0, 3 << 62, 0) == H.PARAMETER
    assert machine.vcpu.gpr[6] == answer
    assert machine.entry(16) == (0, 0)
    assert machine.entry(8)[0] == HIGH
    assert machine.flushes == 1


def test_protect_changes_protection_and_keys_only() -> None:
    machine = Machine()
    machine.enter(0x20)
    flags = 1 << 8 | 0x3000 | 0xE00 | 0x7
    assert machine.call(Hcall.H_PROTECT, AVPN | flags, 0x20, HIGH & ~0x7F) == H.SUCCESS
    assert machine.entry(0x20) == (HIGH, 1 << 63 | 3 << 60 | 0x10_0000 | 0xE00 | USED | 0x10 | 0x7)
    assert machine.flushes == 1
    assert machine.call(Hcall.H_PROTECT, 0, 0x20, 0) == H.SUCCESS
    assert machine.entry(0x20) == (HIGH, 0x10_0000 | USED | 0x10)
    assert machine.call(Hcall.H_PROTECT, AVPN, 0x20, 0) == H.NOT_FOUND
    assert machine.call(Hcall.H_PROTECT, 0, 0x21, 0) == H.NOT_FOUND


def test_read_returns_one_entry_or_the_aligned_four() -> None:
    machine = Machine()
    for slot in range(0x20, 0x24):
        machine.enter(slot, low=LOW + (slot << 12), flags=EXACT)
    assert machine.call(Hcall.H_READ, 0, 0x22) == H.SUCCESS
    assert list(machine.vcpu.gpr[4:6]) == [*machine.entry(0x22)]
    assert machine.call(Hcall.H_READ, READ_4, 0x22) == H.SUCCESS
    assert list(machine.vcpu.gpr[4:12]) == [word for slot in range(0x20, 0x24) for word in machine.entry(slot)]
    assert machine.call(Hcall.H_READ, READ_4, ENTRIES - 1) == H.SUCCESS


@pytest.mark.parametrize("token", [Hcall.H_CLEAR_MOD, Hcall.H_CLEAR_REF])
def test_clearing_used_bits_reports_them_and_leaves_the_entry(token: int) -> None:
    machine = Machine()
    machine.enter(0x20)
    assert machine.call(token, 0, 0x20) == H.SUCCESS
    assert machine.vcpu.gpr[4] == LOW | USED
    assert machine.entry(0x20) == (HIGH, LOW | USED)
    assert machine.call(token, 0, 0x21) == H.NOT_FOUND


def test_clear_empties_the_table() -> None:
    machine = Machine()
    machine.enter(ENTRIES - 1)
    machine.hpt.clear()
    assert not any(machine.table)
    assert machine.flushes == 1


@pytest.mark.parametrize(("ram", "shift"), [(256 << 20, 21), (512 << 20, 22), (512 << 20 | 1 << 20, 23), (16 << 30, 27), (1, 18)])
def test_the_table_is_a_128th_of_ram(ram: int, shift: int) -> None:
    assert table_shift(ram) == shift


def test_a_table_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="hash page table"):
        HashPageTable(bytearray(100), SHIFT, make_ram(), lambda: None)
