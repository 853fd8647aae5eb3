# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest stops between two blocks, at once and exactly, in whatever way its blocks follow one another."""

from __future__ import annotations

import ctypes
import random
import threading

import pytest

from cpu_service.engine import exit_check, native
from cpu_service.engine.code_tracking import SCRATCH
from cpu_service.engine.engine import MSR_ME, MSR_SF
from cpu_service.engine.layout import UnsupportedEngineError
from tests import ppc
from tests.amounts import examples

PLACES = [0x1000, 0x1800, 0x3000, 0x3FF8, 0x5004]
"""Of blocks: of one page and of several, at the beginning, at the end and in the middle."""
MTCTR_R9, BCTR = ppc.mtspr(ppc.SPR_CTR, 9), 0x4E80_0420


def _checks() -> int:
    return ctypes.c_uint64.from_address(native.address("checks_in_line")).value


def _ring(machine: ppc.BareMachine, through_registers: bool) -> None:
    """Blocks in a ring, each of which adds 1 to r4 and 1 to r5."""
    for place, target in zip(PLACES, (*PLACES[1:], PLACES[0]), strict=True):
        far = 0x6000 + 0x100 * PLACES.index(place)
        machine.place(place, ppc.addi(4, 4, 1), ppc.branch(far - place - 4))
        way = (*ppc.li64(9, target), MTCTR_R9, BCTR) if through_registers else ()
        machine.place(far, ppc.addi(5, 5, 1), *(way or (ppc.branch(target - far - 4),)))


@pytest.mark.parametrize("through_registers", [False, True], ids=["chained", "through ctr"])
def test_stops_from_another_thread_are_exact(through_registers: bool) -> None:
    machine = ppc.BareMachine()
    _ring(machine, through_registers)
    state = machine.engine.state
    state.nip.value = PLACES[0]
    machine.engine.set_msr(MSR_SF | MSR_ME)
    starts = {*PLACES, *(0x6000 + 0x100 * number for number in range(len(PLACES)))}
    places: set[int] = set()
    for _ in range(examples(100)):
        returned = threading.Event()

        def stop(wait_s: float, returned: threading.Event) -> None:
            while not returned.wait(wait_s):  # One that comes before the engine runs is lost.
                machine.engine.stop()

        stopper = threading.Thread(target=stop, args=(random.uniform(1e-5, 1e-3), returned))
        stopper.start()
        machine.engine.run(1 << 30)
        returned.set()
        stopper.join()
        place = state.nip.value
        places.add(place)
        assert place in starts, "at the start of a block"
        assert state.gpr[4] - state.gpr[5] == (place not in PLACES), "no block was left out or ran twice"
    assert state.gpr[4] > 10_000
    assert len(places) > 1


def test_the_check_is_in_line_in_each_block() -> None:
    machine = ppc.BareMachine()
    before = _checks()
    for length in range(1, 21):
        machine.execute(*[ppc.addi(4, 4, 1)] * length, ppc.branch(4))
    assert _checks() - before >= 40


def test_a_translation_that_a_page_fault_ends_leaves_nothing_behind() -> None:
    """The block's first part is translated; then its next page cannot be fetched. RAM ends there."""
    machine = ppc.BareMachine()
    end = len(machine.ram)
    machine.place(0x200, ppc.li(6, 7), *machine.END)
    machine.place(end - 8, ppc.addi(4, 4, 1), ppc.addi(4, 4, 1))
    for turn in range(1, 4):
        machine.run(end - 8)
        assert machine.hypercalls[-1][1] == 2 * turn
        assert machine.hypercalls[-1][3] == 7
        machine.engine.invalidate_code(end - 8, 8)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((ppc.addi(5, 5, 1), ppc.NOP, ppc.add(10, 10, 11)), "does not stop"),
        ((ppc.addi(5, 5, 1), ppc.stw(8, 0, 10), ppc.NOP), "go on"),
    ],
)
def test_an_engine_that_stops_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, words: tuple[int, ...], what: str) -> None:
    """In place of an engine that misses the flag, a program that does not set it, or one that ends with other registers."""
    program = dict(exit_check.PROGRAM)
    changed = bytearray(program[SCRATCH])
    changed[4:16] = ppc.pack(words)
    program[SCRATCH] = bytes(changed)
    monkeypatch.setattr(exit_check, "PROGRAM", program)
    if what == "go on":
        monkeypatch.setattr(exit_check, "REGISTERS", {**exit_check.REGISTERS, 5: 3, 10: exit_check.WATCHED})
    with pytest.raises(UnsupportedEngineError, match=what):
        ppc.BareMachine()


def test_the_proof_leaves_ram_as_it_was() -> None:
    machine = ppc.BareMachine()
    assert machine.ram[:].count(0) == len(machine.ram)
