# SPDX-License-Identifier: GPL-2.0-or-later
"""The native part of the engine's hook does what Python would have done, or nothing at all."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, MutableSequence
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpu_service.engine import native
from cpu_service.engine.engine import MSR_DR, MSR_IR, MSR_ME, MSR_PR, MSR_SF
from cpu_service.engine.fast_path import HOOK, RUN, FastPath
from cpu_service.hypercalls.hash_page_table import (
    ANDCOND,
    AVPN,
    BULK_END,
    BULK_FLAGS_SHIFT,
    BULK_REQUEST,
    BULK_RESPONSE,
    EXACT,
    LARGE,
    VALID,
    ZERO_PAGE,
    HashPageTable,
)
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from tests import ppc
from tests.amounts import examples
from tests.fake_machine import FakeVcpu, make_ram

SHIFT = 18
ENTRIES = 1 << SHIFT - 4
RAM = 4 << 20
MASK = (1 << 64) - 1
SYSTEM_CALL, DATA_STORAGE, HYPERCALL = 8, 2, 1
MODES = 0b1011
SLB_VALID = 1 << 27
SECONDARY = 2

_Hook = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(FastPath))
_Run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(FastPath))
_OnCpu = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_OnPage = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint16)
_EmuStart = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint64] * 4)


class Native:
    """The code with everything around it in sight."""

    def __init__(self) -> None:
        self.gpr = cast(MutableSequence[int], (ctypes.c_uint64 * 32)())
        self.msr, self.nip = ctypes.c_uint64(), ctypes.c_uint64(0x1004)
        self.error_code, self.exception_index = ctypes.c_int32(HYPERCALL), ctypes.c_int32()
        self.table = (ctypes.c_ubyte * (1 << SHIFT))()
        self.slb = cast(MutableSequence[int], (ctypes.c_uint64 * (64 * 3))())
        self.descriptions = (ctypes.c_uint64 * (10 * 4))(*[7] * 40)
        self.events: list[tuple[object, ...]] = []
        self.starts: list[int] = []
        """What uc_emu_start returns, in turn."""
        self._callbacks: tuple[Any, ...] = (
            _OnCpu(lambda cpu: self.events.append(("deliver", cpu))),
            _OnCpu(lambda cpu: self.events.append(("flush", cpu))),
            _OnPage(lambda cpu, address, modes: self.events.append(("page", address, modes))),
            _Hook(lambda uc, number, _data: self.events.append(("slow", uc, number))),
            _EmuStart(self._emu_start),
        )
        deliver, flush, page, slow, emu_start = (ctypes.cast(each, ctypes.c_void_p).value for each in self._callbacks)
        self.block = FastPath(
            gpr=ctypes.addressof(cast(Any, self.gpr)), msr=ctypes.addressof(self.msr), nip=ctypes.addressof(self.nip),
            error_code=ctypes.addressof(self.error_code), exception_index=ctypes.addressof(self.exception_index), cpu=77,
            do_interrupt=deliver, tlb_flush=flush, tlb_flush_page=page, slow=slow, emu_start=emu_start, uc=55,
            slb=ctypes.addressof(cast(Any, self.slb)), tlb_descriptions=ctypes.addressof(self.descriptions),
            tlb_description_size=32, modes=MODES, table=ctypes.addressof(self.table), entries=ENTRIES, ram_bytes=RAM, enabled=1,
        )  # fmt: skip
        self.hook: Callable[[int, int, Any], None] = _Hook(native.address(HOOK))
        self.run: Callable[[Any], int] = _Run(native.address(RUN))

    def _emu_start(self, uc: int, begin: int, *rest: int) -> int:
        self.events.append(("run", uc, begin, *rest))
        return self.starts.pop(0)

    def call(self, token: int, *arguments: int) -> bool:
        """Make a hypercall; False when the slow path got it."""
        self.gpr[3] = token
        for number, value in enumerate(arguments, 4):
            self.gpr[number] = value
        self.hook(55, SYSTEM_CALL, self.block)
        return ("slow", 55, SYSTEM_CALL) not in self.events


class Python:
    """The same table in Python's hands."""

    def __init__(self) -> None:
        self.table = bytearray(1 << SHIFT)
        self.hpt = HashPageTable(self.table, SHIFT, make_ram(RAM), lambda: None)
        self.handlers = {call.token: call.handler for call in self.hpt.calls()}
        self.vcpu = FakeVcpu()

    def call(self, token: int, *arguments: int) -> int:
        for number, value in enumerate(arguments, 4):
            self.vcpu.gpr[number] = value
        return self.handlers[Hcall(token)](self.vcpu)


indexes = st.one_of(st.integers(0, 24), st.integers(ENTRIES - 2, ENTRIES + 2), st.just(MASK))
highs = st.builds(
    lambda avpn, low, size: size << 62 | avpn << 7 | low, st.integers(0, 3), st.integers(0, 127), st.sampled_from([0, 0, 1, 2, 3])
)
lows = st.builds(
    lambda page, rest, top: top | page << 12 | rest,
    st.integers(0, (RAM >> 12) + 20),
    st.sampled_from([0x10, 0x10, 0x12, 0x190, 0x197, 0x00, 0x30]),
    st.sampled_from([0, 1 << 63]),
)  # fmt: skip
enters = st.tuples(
    st.just(Hcall.H_ENTER), st.sampled_from([0, EXACT, ZERO_PAGE, EXACT | 1]), indexes, highs.map(lambda high: high | 1), lows
)
removes = st.tuples(st.just(Hcall.H_REMOVE), st.sampled_from([0, AVPN, ANDCOND, AVPN | ANDCOND]), indexes, highs, st.just(0))
protects = st.tuples(st.just(Hcall.H_PROTECT), st.integers(0, (1 << 64) - 1), indexes, highs, st.just(0))
requests = st.builds(
    lambda kind, rest, flags, index: kind | rest << 58 | flags << BULK_FLAGS_SHIFT | index & (1 << 56) - 1,
    st.sampled_from([BULK_REQUEST, BULK_REQUEST, BULK_REQUEST, BULK_REQUEST, BULK_END, BULK_RESPONSE, 0]),
    st.sampled_from([0, 0, 0, 15]),
    st.sampled_from([0, AVPN, ANDCOND, AVPN | ANDCOND]),
    indexes,
)
bulk_removes = st.builds(
    lambda pairs: (Hcall.H_BULK_REMOVE, *(word for pair in pairs for word in pair)),
    st.lists(st.tuples(requests, highs), min_size=4, max_size=4),
)
NATIVE = (Hcall.H_ENTER, Hcall.H_REMOVE, Hcall.H_PROTECT, Hcall.H_BULK_REMOVE)


def _bulk(*indexes: int) -> tuple[int, ...]:
    return (Hcall.H_BULK_REMOVE, *(word for index in indexes for word in (BULK_REQUEST | index, 0)), BULK_END)


@settings(max_examples=examples(150))
@given(st.lists(st.one_of(enters, enters, enters, removes, protects, bulk_removes), max_size=40))
@example([(Hcall.H_ENTER, 0, 3, 0x81, 0x10)] * 9 + [(Hcall.H_REMOVE, AVPN, 5, 0x80, 0)])
@example([(Hcall.H_ENTER, 0, 3, 0x81, 0x10), (Hcall.H_PROTECT, MASK, 0, 0x80, 0), _bulk(0, 0, 1)])
@example([(Hcall.H_ENTER, 0, 3, 0x81, 0x10)] * 8 + [_bulk(7, 5, 3), (Hcall.H_PROTECT, AVPN | 3, 1, 0x80, 0), _bulk(0, ENTRIES)])
def test_calls_leave_the_same_table_and_registers_as_python_does(calls: list[tuple[int, ...]]) -> None:
    native, python = Native(), Python()
    accepted = dict.fromkeys(NATIVE, 0)
    for token, *arguments in calls:
        native.events.clear()
        before = bytes(native.table)
        expected = python.call(token, *arguments)
        if native.call(token, *arguments):
            assert expected == H.SUCCESS == native.gpr[3]
            assert list(native.gpr[4:12]) == list(python.vcpu.gpr[4:12])
            accepted[Hcall(token)] += 1
        else:
            assert bytes(native.table) == before, "what is refused has changed nothing"
            assert list(native.gpr[3 : 4 + len(arguments)]) == [token, *arguments]
            ctypes.memmove(native.table, bytes(python.table), len(native.table))
            native.gpr[4:12] = list(python.vcpu.gpr[4:12])
        assert bytes(native.table) == bytes(python.table)
    block = native.block
    assert (block.entered, block.removed, block.protections, block.bulk_removals) == tuple(accepted[token] for token in NATIVE)


def test_common_calls_are_not_refused() -> None:
    native = Native()
    assert native.call(Hcall.H_ENTER, 0, 0x45, 0x81, 0x1000 | 0x190)
    assert native.call(Hcall.H_ENTER, EXACT, 0x80, 0x85, 0x2_0000 | 0x1000 | 0x190), "64 KiB"
    assert native.call(Hcall.H_REMOVE, AVPN, 0x40, 0x80)
    assert native.call(Hcall.H_PROTECT, AVPN | 0x203, 0x80, 0x80)
    assert bytes(native.table)[0x80 * 16 + 8 : 0x81 * 16] == (0x2_0000 | 0x1000 | 0x393).to_bytes(8, "big")
    assert native.call(Hcall.H_REMOVE, ANDCOND, 0x80, 0)
    assert native.call(Hcall.H_ENTER, 0, 0x45, 0x81, 0x1000 | 0x190)
    assert native.call(*_bulk(0x40, 0x41))
    assert bytes(native.table) == bytes(1 << SHIFT)


@settings(max_examples=examples(400))
@given(
    call=st.sampled_from(NATIVE[1:]),
    terabyte=st.booleans(), large=st.booleans(), secondary=st.booleans(), vsid=st.integers(0, (1 << 37) - 1),
    esid=st.integers(0, (1 << 24) - 1), page=st.integers(0, (1 << 28) - 1), slot=st.integers(0, 63), present=st.booleans(),
)  # fmt: skip
def test_a_changed_page_and_no_other_is_flushed_where_its_segment_has_it(
    call: Hcall, terabyte: bool, large: bool, secondary: bool, vsid: int, esid: int, page: int, slot: int, present: bool
) -> None:
    """The entry's place comes from the address as the Power ISA (5.7.7.3) has it; the code must find the way back."""
    native = Native()
    segment, shift = (40, 16 if large else 12) if terabyte else (28, 16 if large else 12)
    page &= (1 << segment - shift) - 1
    digest = vsid ^ page ^ (vsid << 25 if terabyte else 0)
    group = (~digest if secondary else digest) & ENTRIES // 8 - 1
    virtual = vsid << segment | page << shift
    high = terabyte << 62 | virtual >> 23 << 7 | (SECONDARY if secondary else 0) | (LARGE if large else 0) | VALID
    low = 0x1_0000 | (0x1000 if large else 0) | 0x190
    assert native.call(Hcall.H_ENTER, EXACT, group * 8 + 3, high, low)
    other = (slot + 1) % 64
    native.slb[3 * other : 3 * other + 2] = [SLB_VALID | 5 << 40, (vsid + 1) << (24 if terabyte else 12) | terabyte << 62]
    native.slb[3 * slot] = esid << segment & MASK | (SLB_VALID if present else 0) | slot
    native.slb[3 * slot + 1] = terabyte << 62 | vsid << (24 if terabyte else 12) | 0x500
    index = group * 8 + 3
    assert native.call(*(_bulk(index, index, index) if call is Hcall.H_BULK_REMOVE else (call, 0, index, 0)))
    if not present:
        assert native.events == [("flush", 77)]
        return
    address = (esid << segment & MASK) + (page << shift)
    assert native.events == [("page", address + piece, MODES) for piece in range(0, 1 << shift, 0x1000)]
    assert [native.descriptions[4 * mode : 4 * mode + 4] for mode in range(4)] == [
        [MASK, MASK, 7, 7], [MASK, MASK, 7, 7], [7, 7, 7, 7], [MASK, MASK, 7, 7]
    ]  # fmt: skip


def test_all_translations_go_once_when_pages_of_segments_that_are_gone_are_removed() -> None:
    native = Native()
    for _ in range(3):
        assert native.call(Hcall.H_ENTER, 0, 0, 0x81, 0x1190)
    assert native.call(*_bulk(0, 1, 2))
    assert native.events == [("flush", 77)]
    native.events.clear()
    assert native.call(*_bulk(0, 1, 2))
    assert native.events == [], "nothing was there any more"


def test_exceptions_are_delivered_at_the_instruction_that_caused_them() -> None:
    native = Native()
    native.error_code.value = 0
    native.hook(55, DATA_STORAGE, native.block)
    assert (native.nip.value, native.exception_index.value, native.events) == (0x1000, DATA_STORAGE, [("deliver", 77)])


@pytest.mark.parametrize(
    ("number", "error", "msr", "token", "enabled"),
    [
        (SYSTEM_CALL, HYPERCALL, MSR_PR, Hcall.H_ENTER, 1),
        (SYSTEM_CALL, HYPERCALL, 0, Hcall.H_ENTER, 0),
        (SYSTEM_CALL, HYPERCALL, 0, Hcall.H_READ, 1),
    ],
    ids=["problem state", "disabled", "another call"],
)
def test_what_needs_python_gets_python(number: int, error: int, msr: int, token: int, enabled: int) -> None:
    native = Native()
    native.msr.value, native.error_code.value, native.block.enabled = msr, error, enabled
    native.gpr[3:8] = [token, 0, 0, 0x81, 0x1190]
    native.hook(55, number, native.block)
    assert native.events == [("slow", 55, number)]
    assert native.nip.value == 0x1004
    assert bytes(native.table) == bytes(1 << SHIFT)


def test_a_system_call_of_the_guest_to_itself_is_delivered() -> None:
    native = Native()
    native.error_code.value = 0
    native.hook(55, SYSTEM_CALL, native.block)
    assert native.events == [("deliver", 77)]


def test_run_goes_on_when_unicorn_returns_until_hints_are_used_up_stopped_or_in_error() -> None:
    for starts, stopping, result, left in (([0, 0, 0], 0, 0, 0), ([0, 9, 0], 0, 9, 2), ([0, 0, 0], 1, 0, 3)):
        native = Native()
        native.starts, native.block.stopping, native.block.hints_left = list(starts), stopping, 3
        assert native.run(native.block) == result
        assert native.block.hints_left == left
        assert set(native.events) == {("run", 55, 0x1004, 0, 0, 0)}


def test_a_page_that_was_made_read_only_is_so_at_once() -> None:
    """On the real engine: a store that went through faults after H_PROTECT, with the page in the TLB."""
    machine = ppc.BareMachine()
    machine.engine.answer_page_table_calls(native=True)
    index = 0
    for page in (0, 1, 0x200):
        index = ((0x123 ^ page) & len(machine.table) // 128 - 1) * 8
        high, low = (0x123 << 28 | page << 12) >> 23 << 7 | VALID, (page if page < 2 else 0x80) << 12 | 0x192
        machine.table[index * 16 : index * 16 + 16] = high.to_bytes(8, "big") + low.to_bytes(8, "big")
    machine.place(0x300, *machine.END)
    protect = *ppc.li64(3, Hcall.H_PROTECT), *ppc.li64(4, 3), *ppc.li64(5, index)
    machine.execute(
        *ppc.li64(8, 0x123 << 12), *ppc.li64(9, SLB_VALID), ppc.slbmte(8, 9), ppc.ISYNC,
        *ppc.li64(10, MSR_SF | MSR_ME | MSR_IR | MSR_DR), ppc.mtmsrd(10), ppc.ISYNC,
        *ppc.li64(11, 0x20_0000), ppc.li(12, 7), ppc.std(12, 0, 11), *protect, ppc.SC1, ppc.ld(13, 0, 11), ppc.std(12, 8, 11),
    )  # fmt: skip
    assert len(machine.hypercalls) == 1, "the call was native"
    assert machine.engine.fast_path.protections == 1
    assert machine.gpr[13] == 7
    assert (machine.engine.state.spr[19], machine.engine.state.spr[18]) == (0x20_0008, 0x0A00_0000), "a protected store"
    assert machine.ram[0x8_0008:0x8_0010] == bytes(8)


@pytest.mark.parametrize("large", [False, True], ids=["4 KiB", "64 KiB"])
def test_the_engine_finds_an_entered_page_and_loses_it_when_it_is_removed(large: bool) -> None:
    """On the real engine, calls made by the guest; what another page has stays."""
    machine = ppc.BareMachine()
    machine.engine.answer_page_table_calls(native=True)
    vsid, shift = 0x123, 16 if large else 12
    lp, flag = (0x1000, LARGE) if large else (0, 0)

    def entry(effective: int) -> tuple[int, int]:
        page = effective >> shift
        return ((vsid ^ page) & len(machine.table) // 128 - 1) * 8, (vsid << 28 | effective) >> 23 << 7 | flag | VALID

    for effective in (0, 0x3_0000):  # The code, and what stays.
        index, high = entry(effective)
        low = effective | lp | 0x192
        machine.table[index * 16 : index * 16 + 16] = high.to_bytes(8, "big") + low.to_bytes(8, "big")
    if not large:
        index, high = entry(0x1000)
        machine.table[index * 16 : index * 16 + 16] = high.to_bytes(8, "big") + (0x1192).to_bytes(8, "big")
    index, high = entry(0x20_0000)
    machine.ram[0x8_0000:0x8_0008] = (99).to_bytes(8, "big")
    machine.ram[0x3_0000:0x3_0008] = (11).to_bytes(8, "big")
    machine.place(0x300, *machine.END)  # Taken in real mode.
    arguments = (Hcall.H_ENTER, EXACT, index, high, 0x8_0000 | lp | 0x192)
    enter = [word for register, value in enumerate(arguments, 3) for word in ppc.li64(register, value)]
    remove = *ppc.li64(3, Hcall.H_REMOVE), *ppc.li64(4, 0), *ppc.li64(5, index)
    machine.execute(
        *ppc.li64(8, vsid << 12 | (0x110 if large else 0)), *ppc.li64(9, SLB_VALID), ppc.slbmte(8, 9), ppc.ISYNC,
        *ppc.li64(10, MSR_SF | MSR_ME | MSR_IR | MSR_DR), ppc.mtmsrd(10), ppc.ISYNC,
        *ppc.li64(11, 0x20_0000), *ppc.li64(12, 0x3_0000), ppc.ld(20, 0, 12),
        *enter, ppc.SC1, ppc.ld(13, 0, 11), *remove, ppc.SC1, ppc.ld(14, 0, 12), ppc.ld(15, 0, 11),
    )  # fmt: skip
    assert len(machine.hypercalls) == 1, "both calls were native"
    assert (machine.engine.fast_path.entered, machine.engine.fast_path.removed) == (1, 1)
    assert (machine.gpr[13], machine.gpr[14], machine.gpr[15], machine.gpr[20]) == (99, 11, 0, 11)
    assert machine.engine.state.spr[19] == 0x20_0000, "DAR: after its removal it faults"
