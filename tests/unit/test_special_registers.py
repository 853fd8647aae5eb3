# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest may do to each of 1,024 special purpose registers: Power ISA 2.07, book III-S, figure 18, below a hypervisor."""

from __future__ import annotations

import random

import pytest

from cpu_service.engine import layout
from cpu_service.engine.engine import MSR_DR, MSR_IR, MSR_ME, MSR_PR, MSR_SF
from cpu_service.hypercalls.hash_page_table import MIN_SHIFT
from tests import ppc

DONE, PRIVILEGED, ILLEGAL, UNAVAILABLE = "done", "privileged instruction", "illegal instruction", "facility unavailable"
NOTHING = "done"  # Of a register that there is not, in supervisor state.

HYPERVISOR = {
    180, 186, 187, 188, 190, 304, 305, 306, 307, 310, 313, 314, 315, 316, 317, 318, 319, 336, 337, 338, 349, 464, 816, 851, 921,
    1008, 25,
}  # fmt: skip
"""DAWR, RPR, CIABR, DAWRX, HFSCR, HSPRG0, HSPRG1, HDSISR, HDAR, HDEC, HRMOR, HSRR0, HSRR1, MMCRH, TFMR, LPCR, LPIDR, HMER, HMEER,
PCR, AMOR, PTCR, ASDR, MMCRC, TSCR, HID0, SDR1."""
READ_ONLY = {268, 269, 284, 285, 286, 287, 308, 309, 446, 848, 849, 1023}
"""TB and TBU (twice: where they are read, and where a hypervisor writes them), TBU40, PVR, SPURR, PURR, TIR, IC, VTB, PIR."""
WRITE_ONLY = {152}
"""CTRL."""
PROGRAMS_TOO = {1, 8, 9, 13, 256, 896}
"""XER, LR, CTR, AMR, VRSAVE, PPR."""
PROGRAMS_READ = {136, 259, 268, 269, 284, 285, *range(768, 783)} - {777, 778}
"""CTRL, SPRG3, TB, TBU, what the performance monitor shows."""
READ_ONLY_ALIASES = {136, 259}
"""Of CTRL and SPRG3."""
BY_FACILITY = {800, 801, 802, 803, 804, 805, 806, 815}
"""Event-based branches and TAR, of which FSCR says whether programs have them."""
TRANSACTIONAL = {128, 129, 130, 131}
"""There is no transactional memory."""
RESERVED_NO_OPS = {808, 809, 810, 811}
EMULATED_ZERO = {0, 4, 5, 6}
"""Numbers that are illegal to read in every state; 0 to write, too."""
PRIVILEGED_ANYWAY = 0x10
"""A bit of the number: problem state has no access, whether there is such a register or not."""


def expected(spr: int, *, write: bool, user: bool, exists: bool) -> str:  # noqa: PLR0911  # A table.
    if spr in TRANSACTIONAL:
        return UNAVAILABLE
    if spr in RESERVED_NO_OPS:
        return DONE
    if not exists and spr not in HYPERVISOR:
        if spr in EMULATED_ZERO and (not write or spr == 0):
            return ILLEGAL
        if user:
            return PRIVILEGED if spr & PRIVILEGED_ANYWAY else ILLEGAL
        return NOTHING
    if spr in HYPERVISOR or (write and spr in READ_ONLY | READ_ONLY_ALIASES) or (not write and spr in WRITE_ONLY):
        return PRIVILEGED
    if not user:
        return DONE
    if spr in BY_FACILITY:
        return UNAVAILABLE
    return DONE if spr in PROGRAMS_TOO or (not write and spr in PROGRAMS_READ) else PRIVILEGED


class Prober:
    """Runs one instruction and tells what became of it."""

    def __init__(self) -> None:
        self.machine = ppc.BareMachine()
        for page in (0, 0x1000):
            group = ((0x123 ^ page >> 12) & (1 << MIN_SHIFT) // 128 - 1) * 128
            words = (0x123 << 28 | page) >> 23 << 7 | 1, page | 0x192
            self.machine.table[group : group + 16] = b"".join(word.to_bytes(8, "big") for word in words)
        self._page_size = self.machine.engine.learn_page_sizes()[0]
        for vector in range(0x100, 0x1000, 0x20):
            self.machine.place(vector, *self.machine.END)

    def outcome(self, word: int, *, user: bool, value: int) -> str:
        engine, machine = self.machine.engine, self.machine
        engine.reset()
        state = engine.state
        state.gpr[4] = value
        state.slb[0:3] = [1 << 27, 0x123 << 12, self._page_size]
        machine.place(0x1000, word, *((ppc.SC,) if user else machine.END))
        machine.run(0x1000, msr=MSR_SF | MSR_ME | (MSR_PR | MSR_IR | MSR_DR if user else 0))
        end = state.nip.value - 8
        if end == (0xC00 if user else 0x1004):
            return DONE
        cause = state.spr[layout.SPR_SRR1] >> 16 & 0xF
        return {(0x700, 4): PRIVILEGED, (0x700, 8): ILLEGAL, (0xF60, 0): UNAVAILABLE}.get((end, cause), f"{end:#x}, {cause}")


@pytest.mark.parametrize("user", [False, True], ids=["supervisor", "problem"])
@pytest.mark.parametrize("write", [False, True], ids=["mfspr", "mtspr"])
def test_each_register_answers_as_the_architecture_says(user: bool, write: bool) -> None:
    prober, chance = Prober(), random.Random(7)
    state = prober.machine.engine.state
    names = [prober.machine.engine.has_register(spr) for spr in range(1024)]
    wrong = {}
    for spr in range(1024):
        prober.machine.engine.reset()
        before = {number: state.spr[number] for number in HYPERVISOR | {layout.SPR_PVR, layout.SPR_PIR}}
        word = ppc.mtspr(spr, 4) if write else ppc.mfspr(4, spr)
        found = prober.outcome(word, user=user, value=chance.getrandbits(64))
        if found != expected(spr, write=write, user=user, exists=names[spr]):
            wrong[spr] = found
        assert {number: state.spr[number] for number in before} == before, f"SPR {spr} changed a hypervisor's register"
    assert wrong == {}


def test_what_power9_added_does_not_exist() -> None:
    engine = ppc.BareMachine().engine
    assert [spr for spr in (48, 144, 855) if engine.has_register(spr)] == []
    assert all(engine.has_register(spr) for spr in (18, 19, 22, 26, 27, 272, 309, 318))
