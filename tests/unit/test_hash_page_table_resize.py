# SPDX-License-Identifier: GPL-2.0-or-later
"""A page table of another size has every bolted entry where the processor's own hash looks for it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_service.hypercalls.hash_page_table import HashPageTable
from cpu_service.hypercalls.hash_page_table_resize import HashPageTableResizing
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from tests.fake_machine import FakeVcpu, hypercall, make_ram

SHIFT = 18
VALID, SECONDARY, LARGE, BOLTED = 1, 2, 4, 0x10
PAGES = ((12, 0, None), (12, 16, 7), (16, 16, 1), (12, 24, 0x38), (16, 24, 8), (24, 24, 0))
"""Base page shift, page shift when the page is a large one, and its encoding."""


class Machine:
    def __init__(self, shift: int = SHIFT, room: int = SHIFT + 1) -> None:
        self.table = bytearray(1 << room)
        self.sizes: list[int] = []
        self.hpt = HashPageTable(self.table, shift, make_ram(), lambda: None, self.sizes.append)
        self.created: list[int] = []
        self.memory = True
        self.resizing = HashPageTableResizing(self.hpt, self.create)
        self.vcpu = FakeVcpu()

    def create(self, size: int) -> bytearray:
        if not self.memory:
            raise OSError
        self.created.append(size)
        return bytearray(size)

    def prepare(self, shift: int, flags: int = 0) -> int:
        return hypercall(self.resizing.calls(), Hcall.H_RESIZE_HPT_PREPARE, self.vcpu, flags, shift)

    def commit(self, shift: int, flags: int = 0) -> int:
        return hypercall(self.resizing.calls(), Hcall.H_RESIZE_HPT_COMMIT, self.vcpu, flags, shift)

    def put(self, index: int, high: int, low: int = 0x190) -> None:
        struct.pack_into(">QQ", self.table, 16 * index, high, low)

    def entries(self) -> dict[int, tuple[int, int]]:
        found = {}
        for index in range(self.hpt.bytes // 16):
            high, low = struct.unpack_from(">QQ", self.table, 16 * index)
            if high or low:
                found[index] = (high, low)
        return found


def hashed(vsid: int, offset: int, *, terabyte: bool, base: int, secondary: bool, shift: int) -> int:
    """The group that the Power ISA (book III, 5.7.7.3) has the processor look in, for a table of 2**shift bytes."""
    page = offset >> base
    value = (vsid & (1 << 39) - 1) ^ page
    if terabyte:
        value = (vsid & (1 << 24) - 1) << 25 ^ vsid ^ page
    if secondary:
        value = ~value
    return value & (1 << shift - 7) - 1


@given(
    vsid=st.integers(0, (1 << 38) - 1),
    offset=st.integers(0, (1 << 40) - 1),
    terabyte=st.booleans(),
    page=st.sampled_from(PAGES),
    secondary=st.booleans(),
    slot=st.integers(0, 7),
    shifts=st.sampled_from(((18, 19), (19, 18), (20, 18), (18, 18))),
)
def test_an_entry_is_where_the_processor_looks(
    vsid: int, offset: int, terabyte: bool, page: tuple[int, int, int | None], secondary: bool, slot: int, shifts: tuple[int, int]
) -> None:
    base, size, encoding = page
    segment = 40 if terabyte else 28
    offset &= (1 << segment) - (1 << max(base, size))
    vsid &= (1 << 62 + 23 - 7 - segment) - 1
    old, new = shifts
    machine = Machine(old, 20)
    virtual = vsid << segment | offset
    high = int(terabyte) << 62 | virtual >> 23 << 7 | VALID | BOLTED | secondary * SECONDARY | (encoding is not None) * LARGE
    low = (encoding or 0) << 12 | 0x190

    def index(shift: int) -> int:
        return hashed(vsid, offset, terabyte=terabyte, base=base, secondary=secondary, shift=shift) * 8 + slot

    machine.put(index(old), high, low)
    assert (machine.prepare(new), machine.commit(new)) == (H.SUCCESS, H.SUCCESS)
    assert machine.entries() == {index(new): (high, low)}


def test_only_bolted_entries_are_kept_and_the_size_is_told() -> None:
    machine = Machine()
    machine.put(0, 0x80 | VALID)
    machine.put(1, 0x80 | VALID | BOLTED)
    machine.put(2, 0x80 | BOLTED)
    assert machine.prepare(SHIFT + 1) == H.SUCCESS
    assert machine.commit(SHIFT + 1) == H.SUCCESS
    assert len(machine.entries()) == 1
    assert machine.sizes == [2 << SHIFT]
    machine.hpt.reset()
    assert machine.sizes == [2 << SHIFT, 1 << SHIFT]
    assert not any(machine.table)


def test_a_smaller_table_that_is_too_small_changes_nothing() -> None:
    machine = Machine(19, 19)
    vsid_low, vsid_high = 0, 1 << 11  # The same group in 2**18 bytes, another in 2**19.
    for vsid in (vsid_low, vsid_high):
        machine.put((vsid & 0xFFF) * 8, vsid << 12 | VALID | BOLTED)
    before = bytes(machine.table)
    assert machine.prepare(18) == H.SUCCESS
    assert machine.commit(18) == H.PTEG_FULL
    assert (bytes(machine.table), machine.hpt.shift) == (before, 19)
    assert machine.commit(18) == H.CLOSED, "what was prepared is gone"


@pytest.mark.parametrize(
    ("flags", "shift", "result"),
    [(1, 18, H.PARAMETER), (0, 17, H.PARAMETER), (0, 47, H.PARAMETER), (0, 1 << 63, H.PARAMETER), (0, 20, H.RESOURCE)],
)
def test_both_calls_refuse_the_same_arguments(flags: int, shift: int, result: int) -> None:
    machine = Machine()
    assert machine.prepare(shift, flags) == result
    assert machine.commit(shift, flags) == result
    assert machine.created == []


def test_a_commit_needs_a_table_of_that_size() -> None:
    machine = Machine()
    assert machine.commit(19) == H.CLOSED
    assert machine.prepare(19) == H.SUCCESS
    assert machine.prepare(19) == H.SUCCESS
    assert machine.created == [1 << 19]
    assert machine.commit(18) == H.CLOSED
    assert machine.prepare(18) == H.SUCCESS
    assert machine.prepare(0) == H.SUCCESS
    assert machine.commit(18) == H.CLOSED
    assert machine.commit(0) == H.CLOSED


def test_there_may_be_no_memory() -> None:
    machine = Machine()
    machine.memory = False
    assert machine.prepare(19) == H.NO_MEM
    assert machine.commit(19) == H.CLOSED


def test_a_saved_size_must_fit() -> None:
    machine = Machine()
    machine.resizing.restore(19, 18)
    assert (machine.hpt.shift, machine.resizing.prepared_shift) == (19, 18)
    for wrong in ((20, 0), (17, 0), (0, 20)):
        with pytest.raises(ValueError, match="page table cannot have"):
            Machine().resizing.restore(*wrong)


def test_clear_leaves_no_entry_and_the_size_that_the_tree_says() -> None:
    machine = Machine()
    machine.put(5, VALID | BOLTED)
    assert (machine.prepare(SHIFT + 1), machine.commit(SHIFT + 1)) == (H.SUCCESS, H.SUCCESS)
    assert len(machine.entries()) == 1
    assert hypercall(machine.hpt.calls(), Hcall.H_CLEAR_HPT, machine.vcpu) == H.SUCCESS
    assert not any(machine.table)
    assert (machine.hpt.shift, machine.sizes) == (SHIFT, [2 << SHIFT, 1 << SHIFT])
