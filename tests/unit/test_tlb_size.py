# SPDX-License-Identifier: GPL-2.0-or-later
"""TLBs grow with the pages that a guest uses, and what they hold stays right."""

from __future__ import annotations

import ctypes

import pytest

from cpu_service.engine.engine import MSR_DR, MSR_IR, MSR_ME, MSR_SF
from cpu_service.engine.layout import UnsupportedEngineError, pointer_to
from tests import ppc

PAGE = 0x1000
FIRST = 16
"""Pages before it hold code."""
VSID = 0x123
REAL = MSR_SF | MSR_ME
TRANSLATED = REAL | MSR_IR | MSR_DR
SUPERVISOR, SUPERVISOR_REAL = 1, 3


def _machine(pages: int) -> ppc.BareMachine:
    """RAM whose pages have their numbers as their first doubleword, mapped to themselves."""
    machine = ppc.BareMachine(16 << 20)
    for page in range(FIRST + pages):
        place = next(
            16 * (((VSID ^ page) & len(machine.table) // 128 - 1) * 8 + slot)
            for slot in range(8)
            if not machine.table[16 * (((VSID ^ page) & len(machine.table) // 128 - 1) * 8 + slot) + 7]
        )
        high, low = (VSID << 28 | page << 12) >> 23 << 7 | 1, page << 12 | 0x192
        machine.table[place : place + 16] = high.to_bytes(8, "big") + low.to_bytes(8, "big")
        if page >= FIRST:
            machine.ram[page * PAGE : page * PAGE + 8] = page.to_bytes(8, "big")
    return machine


def _sum_pages(machine: ppc.BareMachine, pages: int, rounds: int, msr: int) -> int:
    """Let the guest add up the pages' numbers; returns the last round's sum. Misses of the last round are those since then."""
    loop = (ppc.ld(20, 0, 11), ppc.add(9, 9, 20), ppc.add(11, 11, 13), ppc.bdnz(-12))
    once = (*ppc.li64(11, FIRST * PAGE), ppc.li(9, 0), ppc.mtspr(ppc.SPR_CTR, 12), *loop)
    machine.execute(
        *ppc.li64(8, VSID << 12), *ppc.li64(7, 1 << 27), ppc.slbmte(8, 7), ppc.ISYNC,
        *ppc.li64(10, msr), ppc.mtmsrd(10), ppc.ISYNC,
        *ppc.li64(12, pages), *ppc.li64(13, PAGE), *(once * rounds), ppc.mr(4, 9),
    )  # fmt: skip
    return machine.hypercalls[-1][1]


def _size(machine: ppc.BareMachine, mode: int) -> int:
    return int(ctypes.c_uint64.from_address(machine.engine.fast_path.fast_tlbs + 16 * mode).value) // 64 + 1


@pytest.mark.parametrize(("msr", "mode"), [(TRANSLATED, SUPERVISOR), (REAL, SUPERVISOR_REAL)], ids=["translated", "real"])
def test_a_tlb_grows_until_the_pages_in_use_fit(msr: int, mode: int) -> None:
    pages = 1500
    machine = _machine(pages)
    fast_path = machine.engine.fast_path
    assert _sum_pages(machine, pages, 12, msr) == sum(range(FIRST, FIRST + pages))
    assert fast_path.enlargements >= 3
    assert _size(machine, mode) >= 2048
    misses = list(fast_path.misses)
    assert _sum_pages(machine, pages, 3, msr) == sum(range(FIRST, FIRST + pages))
    assert fast_path.misses[mode] - misses[mode] < pages // 10, "nearly all are there"


def test_a_tlb_stays_small_for_few_pages() -> None:
    machine = _machine(100)
    assert _sum_pages(machine, 100, 60, TRANSLATED) == sum(range(FIRST, FIRST + 100))
    assert machine.engine.fast_path.enlargements == 0


def test_a_tlb_does_not_grow_without_end() -> None:
    """In real mode, from where all of RAM's addresses 16 times over: 65,536 pages, by the four bits that it ignores."""
    machine = ppc.BareMachine(16 << 20)
    loop = (ppc.ld(20, 0, 11), ppc.add(11, 11, 13), ppc.bdnz(-8))
    body = [
        word
        for high in range(16)
        for word in (*ppc.li64(11, high << 60), *ppc.li64(12, 4096), ppc.mtspr(ppc.SPR_CTR, 12), *loop)
    ]  # fmt: skip
    machine.execute(*ppc.li64(13, PAGE), *body * 2)
    assert 1024 <= _size(machine, SUPERVISOR_REAL) <= 8192


def test_a_function_that_the_engine_does_not_point_to_is_refused() -> None:
    machine = ppc.BareMachine()
    with pytest.raises(UnsupportedEngineError, match="has the address of a function 0 times"):
        pointer_to(machine.engine.fast_path.uc, 0x1234_5678_9ABC_DEF0)


def test_what_is_behind_ram_is_asked_once() -> None:
    machine = _machine(8)
    assert _sum_pages(machine, 8, 1, TRANSLATED) == sum(range(FIRST, FIRST + 8))
    known = machine.engine.fast_path.ram_section, machine.engine.fast_path.ram_region
    assert all(known)
    assert _sum_pages(machine, 8, 1, REAL) == sum(range(FIRST, FIRST + 8))
    assert (machine.engine.fast_path.ram_section, machine.engine.fast_path.ram_region) == known
