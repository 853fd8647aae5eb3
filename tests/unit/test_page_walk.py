# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses that the native part looks up in the page table lead where Unicorn's own look-up leads, or to the same exception."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpu_service.engine import page_walk
from cpu_service.engine.engine import MSR_DR, MSR_IR, MSR_ME, MSR_PR, MSR_SF
from cpu_service.engine.layout import UnsupportedEngineError
from tests import ppc
from tests.amounts import examples

SPR_DSISR, SPR_DAR, SPR_AMR, SPR_IAMR = 18, 19, 29, 61
CODE, REAL = 0x2000, 0x4_0000
CODE_VSID = 0x777
SLB_VALID, TERABYTE = 1 << 27, 1 << 62
VECTORS = (0x300, 0x380, 0x400, 0x480, 0x600, 0x700)
LOAD, STORE, FETCH = (ppc.ld(4, 0, 20),), (ppc.std(21, 0, 20),), (ppc.mtspr(ppc.SPR_CTR, 20), 0x4E80_0420)
SHIFTS = {0: 12, 0x110: 16, 0x100: 24}
TARGET = (ppc.li(4, 0x77), *ppc.BareMachine.END)


@dataclass(frozen=True)
class Entry:
    """An entry for the page, or one that differs from it: in bits of its first doubleword."""

    slot: int
    secondary: bool
    low: int
    differs: int = 0
    large: bool | None = None
    """None: as the segment's pages are."""


@dataclass(frozen=True)
class Case:
    """One access."""

    words: tuple[int, ...]
    problem: bool
    vsid: int
    terabyte: bool
    size: int
    flags: int
    page: int
    entries: tuple[Entry, ...]
    amr: int = 0
    iamr: int = 0

    @property
    def shift(self) -> int:
        return SHIFTS[self.size]

    @property
    def segment_shift(self) -> int:
        return 40 if self.terabyte else 28

    @property
    def offset(self) -> int:
        """Of the page in its segment."""
        return self.page << self.shift & (1 << self.segment_shift) - 1

    @property
    def address(self) -> int:
        return (1 << self.segment_shift) + self.offset + (REAL if self.shift == 24 else 0)

    @property
    def slb(self) -> tuple[int, int]:
        vsid = self.vsid << (24 if self.terabyte else 12) & (1 << 62) - 1
        return 1 << self.segment_shift | SLB_VALID, vsid | (TERABYTE if self.terabyte else 0) | self.size | self.flags

    def table(self, size: int) -> bytes:
        """The page table: the code's page, and the entries."""
        table = bytearray(size)
        _put(table, CODE_VSID ^ CODE >> 12, 0, False, CODE_VSID << 28 | CODE, 0, CODE | 0x192)
        number = self.slb[1] >> (24 if self.terabyte else 12) & (1 << (38 if self.terabyte else 50)) - 1
        hash_ = number ^ (number << 25 if self.terabyte else 0) ^ self.offset >> self.shift
        virtual = number << self.segment_shift | self.offset
        lp = {12: 0, 16: 0x1000, 24: 0}[self.shift]
        real = 0 if self.shift == 24 else REAL
        for entry in self.entries:
            large = self.shift > 12 if entry.large is None else entry.large
            first = (TERABYTE if self.terabyte else 0) | (4 if large else 0) | entry.differs
            _put(table, hash_, entry.slot, entry.secondary, virtual, first, real | lp | entry.low)
        return bytes(table)


def _put(table: bytearray, hash_: int, slot: int, secondary: bool, virtual: int, first: int, low: int) -> None:
    group = (~hash_ if secondary else hash_) & len(table) // 128 - 1
    high = (virtual >> 23 << 7 & (1 << 62) - 1 | 1 | (2 if secondary else 0)) ^ first
    at = (group * 8 + slot) * 16
    table[at : at + 16] = high.to_bytes(8, "big") + low.to_bytes(8, "big")


class Cpu:
    """A machine that makes accesses, with either look-up."""

    def __init__(self) -> None:
        self.machine = ppc.BareMachine()
        self.page_sizes = self.machine.engine.learn_page_sizes()
        for vector in VECTORS:
            self.machine.place(vector, *self.machine.END)

    def outcome(self, case: Case, own_walk: bool) -> tuple[object, ...]:
        """Everything that an access leaves behind."""
        machine, engine = self.machine, self.machine.engine
        state = engine.state
        machine.table[:] = case.table(len(machine.table))
        machine.place(CODE, *case.words, *machine.END)
        machine.place(REAL, *TARGET)
        engine.reset()
        engine.fast_path.own_walk = own_walk
        code = SLB_VALID, CODE_VSID << 12
        for index, (esid, vsid) in enumerate((code, case.slb)):
            state.slb[3 * index : 3 * index + 3] = esid, vsid, self.page_sizes[vsid & 0x130]
        state.spr[SPR_AMR], state.spr[SPR_IAMR] = case.amr, case.iamr
        state.spr[SPR_DAR] = state.spr[SPR_DSISR] = 0
        state.gpr[20], state.gpr[21] = case.address, 0x1234_5678
        machine.hypercalls.clear()
        machine.run(CODE, msr=MSR_SF | MSR_ME | MSR_IR | MSR_DR | (MSR_PR if case.problem else 0))
        spr = state.spr
        registers = list(state.gpr), state.nip.value, spr[26], spr[27], spr[SPR_DAR], spr[SPR_DSISR]
        return *registers, machine.ram[REAL : REAL + 16], bytes(machine.table)


@cache
def cpu() -> Cpu:
    return Cpu()


lows = st.builds(
    lambda pp, pp0, key_high, key_low, no_execute, guarded, used: (
        pp | pp0 << 63 | key_high << 60 | key_low << 9 | no_execute << 2 | guarded << 3 | used | 0x10
    ),
    st.integers(0, 3), st.integers(0, 1), st.integers(0, 3), st.integers(0, 7), st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 0, 0, 1]), st.sampled_from([0x180, 0x180, 0x180, 0x100]),
)  # fmt: skip
entries = st.builds(
    Entry, st.integers(0, 7), st.booleans(), lows, st.sampled_from([0, 0, 0, 0, 0, 1, 2, 0x10, 0x80, 1 << 61, TERABYTE]),
    st.sampled_from([None, None, None, None, True, False]),
)  # fmt: skip
keys = st.one_of(st.just(0), st.integers(0, (1 << 64) - 1))
cases = st.builds(
    Case, st.sampled_from([LOAD, STORE, FETCH]), st.booleans(), st.integers(0, (1 << 38) - 1), st.booleans(),
    st.sampled_from(list(SHIFTS)), st.sampled_from([0, 0, 0x80, 0x200, 0x400, 0x800, 0xC00]), st.integers(0, (1 << 28) - 1),
    st.lists(entries, min_size=1, max_size=3).map(tuple), keys, keys,
)  # fmt: skip


@settings(max_examples=examples(250))
@given(cases)
@example(Case(LOAD, False, 5, False, 0, 0, 3, ()))
@example(Case(FETCH, True, 5, True, 0x100, 0xC00, 3, (Entry(2, True, 0x192),)))
def test_an_access_ends_as_with_unicorns_own_look_up(case: Case) -> None:
    assert cpu().outcome(case, own_walk=True) == cpu().outcome(case, own_walk=False)


@pytest.mark.parametrize("words", [LOAD, STORE, FETCH], ids=["load", "store", "fetch"])
@pytest.mark.parametrize("size", SHIFTS)
@pytest.mark.parametrize("terabyte", [False, True])
@pytest.mark.parametrize("secondary", [False, True])
def test_common_pages_are_found_without_unicorn(words: tuple[int, ...], size: int, terabyte: bool, secondary: bool) -> None:
    case = Case(words, False, 0x12345, terabyte, size, 0, 9, (Entry(3, secondary, 0x192),))
    fast_path = cpu().machine.engine.fast_path
    before = fast_path.walks
    outcome = cpu().outcome(case, own_walk=True)
    assert fast_path.walks == before + 2, "the code's page, and this"
    assert (outcome[4], outcome[5]) == (0, 0)
    if words is STORE:
        assert cpu().machine.ram[REAL : REAL + 8] == (0x1234_5678).to_bytes(8, "big")
    else:
        assert cpu().machine.gpr[4] == (0x77 if words is FETCH else int.from_bytes(ppc.pack(TARGET[:2]), "big"))


def test_an_engine_whose_look_up_leads_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_walk, "ENTRY", (page_walk.ENTRY[0], page_walk.ENTRY[1] + 0x1000))
    with pytest.raises(UnsupportedEngineError, match="it does not find pages where the page table has them"):
        ppc.BareMachine()


def test_the_proof_leaves_the_page_table_empty() -> None:
    assert ppc.BareMachine().table[:].strip(b"\0") == b""
