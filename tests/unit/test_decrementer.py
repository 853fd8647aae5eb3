# SPDX-License-Identifier: GPL-2.0-or-later
"""A write to the decrementer in the native part: what it keeps, and when Python has to know."""

from __future__ import annotations

import time

import pytest

from cpu_service.engine import layout
from cpu_service.engine.engine import PENDING_DECREMENTER, PENDING_EXTERNAL
from cpu_service.engine.fast_path import FOREVER_NS
from cpu_service.vcpus.timebase import decrementer_deadline
from tests import ppc

LATER, MUCH_LATER = 0x1000_0000, 0x7FFF_FFFF
"""Half a second, and four."""


def write(value: int, timer_ns: int, pending: int = 0) -> ppc.BareMachine:
    """Let a machine write a value, whose timer thread looks at a time."""
    machine = ppc.BareMachine()
    machine.engine.fast_path.timer_ns = timer_ns
    machine.engine.state.pending_interrupts.value = pending
    machine.execute(*ppc.li64(9, value), ppc.mtspr(ppc.SPR_DEC, 9), ppc.mfspr(4, ppc.SPR_DEC))
    return machine


@pytest.mark.parametrize("value", [0, 1, 63, 64, LATER, MUCH_LATER, 0xABCD_0000_0000_0000 | LATER])
def test_what_is_due_after_the_timer_looks_is_kept_and_needs_no_python(value: int) -> None:
    before = decrementer_deadline(value & 0xFFFF_FFFF)
    machine = write(value, 0)
    after = decrementer_deadline(value & 0xFFFF_FFFF)
    spr = machine.engine.state.spr
    assert machine.decrementers == []
    assert before <= spr[layout.SPR_DECR] <= after
    assert spr[layout.SPR_HDECR] == spr[layout.SPR_DECR] == machine.engine.decrementer_zero_ns.value


def test_a_read_counts_down_from_what_was_written() -> None:
    machine = write(LATER, 0)
    assert LATER - LATER // 4 < machine.hypercalls[-1][1] <= LATER


@pytest.mark.parametrize(("value", "is_told"), [(LATER, True), (MUCH_LATER, False)])
def test_python_knows_of_what_is_due_before_the_timer_looks(value: int, is_told: bool) -> None:
    looks = time.monotonic_ns() + 2_000_000_000
    assert write(value, looks).decrementers == ([value] if is_told else [])


@pytest.mark.parametrize("value", [0x8000_0000, 0xFFFF_FFFF])
def test_python_knows_of_what_is_due_at_once(value: int) -> None:
    assert write(value, 0).decrementers == [value]


def test_python_knows_of_all_while_nobody_waits() -> None:
    assert write(MUCH_LATER, FOREVER_NS).decrementers == [MUCH_LATER]


@pytest.mark.parametrize("other", [0, PENDING_EXTERNAL])
def test_a_write_takes_back_the_interrupt_that_was_not_taken_yet_and_no_other(other: int) -> None:
    machine = write(LATER, 0, PENDING_DECREMENTER | other)
    assert machine.engine.state.pending_interrupts.value == other
