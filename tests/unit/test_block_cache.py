# SPDX-License-Identifier: GPL-2.0-or-later
"""Translated blocks are found again after a flush of the TLB, and never when they are no longer right."""

from __future__ import annotations

from cpu_service.engine.engine import MSR_ME, MSR_SF
from tests import ppc

ROUNDS = 20
FUNCTION = 0x3000


def calling(address: int) -> tuple[int, ...]:
    """Call a function by a branch whose target is not known when it is translated."""
    return *ppc.li64(12, address), ppc.mtspr(ppc.SPR_CTR, 12), ppc.BCTRL


def returning(value: int) -> tuple[int, ...]:
    return ppc.li(4, value), ppc.BLR


def test_blocks_are_found_again_after_a_flush_of_the_tlb() -> None:
    machine = ppc.BareMachine()
    machine.place(FUNCTION, *returning(1))
    machine.during = machine.engine.flush_tlb
    call = *calling(FUNCTION), ppc.li(3, 0), ppc.SC1
    machine.execute(*call * ROUNDS)
    assert [r4 for _, r4, *_ in machine.hypercalls[:ROUNDS]] == [1] * ROUNDS
    assert machine.engine.fast_path.blocks_found >= ROUNDS - 2  # Once to be translated, once to be remembered.


def test_a_block_whose_code_has_changed_is_not_found() -> None:
    machine = ppc.BareMachine()
    machine.place(FUNCTION, *returning(1))

    def change() -> None:
        machine.place(FUNCTION, *returning(len(machine.hypercalls) + 1))
        machine.engine.invalidate_code(FUNCTION, 8)
        machine.engine.flush_tlb()

    machine.during = change
    machine.execute(*(*calling(FUNCTION), ppc.li(3, 0), ppc.SC1) * ROUNDS)
    assert [r4 for _, r4, *_ in machine.hypercalls[:ROUNDS]] == list(range(1, ROUNDS + 1))


def test_a_block_is_not_found_after_all_were_dropped() -> None:
    """What was translated later than it is still there, in memory that is no longer a block's."""
    machine = ppc.BareMachine()
    machine.during = machine.engine.flush_tlb
    for number in range(ROUNDS):
        machine.place(FUNCTION, *returning(number))
        earlier = (ppc.branch(4),) * 10 * (ROUNDS - number)
        machine.execute(*earlier, *(*calling(FUNCTION), ppc.li(3, 0), ppc.SC1) * 3)
        assert [r4 for _, r4, *_ in machine.hypercalls[-4:-1]] == [number] * 3
        machine.engine.reset()


def test_a_block_of_another_machine_is_not_found() -> None:
    """Two engines of one process have their code at the same addresses."""
    machines = ppc.BareMachine(), ppc.BareMachine()
    for _ in range(2):
        for number, machine in enumerate(machines):
            machine.place(FUNCTION, *returning(number))
            machine.engine.flush_tlb()
            machine.execute(*calling(FUNCTION), ppc.li(3, 0), ppc.SC1)
            assert machine.hypercalls[-2][1] == number


def test_one_page_at_two_addresses_has_blocks_of_its_own_for_each() -> None:
    """A block knows its virtual address: one that computes it from the next instruction's would be wrong elsewhere."""
    machine = ppc.BareMachine()
    link = ppc.mfspr(5, ppc.SPR_LR), ppc.BL_NEXT, ppc.mfspr(4, ppc.SPR_LR), ppc.mtspr(ppc.SPR_LR, 5), ppc.BLR
    machine.place(FUNCTION, *link)
    alias = FUNCTION | 1 << 60  # Real mode ignores the four highest bits.
    for address in (FUNCTION, alias, FUNCTION, alias):
        machine.engine.flush_tlb()
        machine.execute(*calling(address), ppc.li(3, 0), ppc.SC1, msr=MSR_SF | MSR_ME)
        assert machine.hypercalls[-2][1] == address + 8
