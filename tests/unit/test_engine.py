# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code on the real engine: time, exceptions, translation, and what the owner of an engine may rely on."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import unicorn
from structlog.testing import capture_logs

from cpu_service.engine import layout
from cpu_service.engine.engine import (
    MSR_DR,
    MSR_IR,
    MSR_LE,
    MSR_ME,
    MSR_PR,
    MSR_SF,
    PENDING_DECREMENTER,
    PENDING_EXTERNAL,
    Engine,
    GuestFaultError,
)
from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.hash_page_table import MIN_SHIFT, HashPageTable
from cpu_service.vcpus.timebase import Timebase, decrementer_deadline, ticks
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.processor import PVR_POWER8, TIMEBASE_HZ
from tests import ppc
from tests.fake_machine import FakeVcpu, hypercall

MSR_EE = 1 << 15
EXACT = 1 << 39
VSID = 0x123
SEGMENT_SHIFT = 28
USER = MSR_SF | MSR_ME | MSR_EE | MSR_PR | MSR_IR | MSR_DR


def hash_entry(effective: int, real: int, *, protection: int = 2) -> tuple[int, int, int]:
    """The primary PTEG's first index and the two doublewords of an entry for a 4 KiB page of segment 0 (Power ISA 5.7.7)."""
    page = effective >> 12 & 0xFFFF
    group = (VSID ^ page) & (1 << MIN_SHIFT) // 128 - 1
    high = (VSID << SEGMENT_SHIFT | effective & (1 << SEGMENT_SHIFT) - 1) >> 23 << 7 | 1
    return group * 8, high, real | 0x190 | protection


def translated(*words: int) -> tuple[int, ...]:
    """Enter a segment for the first 256 MiB, turn translation on, go on with words."""
    return (
        *ppc.li64(4, VSID << 12),
        *ppc.li64(5, 1 << 27),
        ppc.slbmte(4, 5),
        ppc.ISYNC,
        *ppc.li64(6, MSR_SF | MSR_ME | MSR_IR | MSR_DR),
        ppc.mtmsrd(6),
        ppc.ISYNC,
        *words,
    )


def enter_page(machine: ppc.BareMachine, effective: int, real: int) -> None:
    """Put an entry into the hash table, as nobody but a hypervisor can."""
    index, high, low = hash_entry(effective, real)
    machine.table[index * 16 : index * 16 + 16] = high.to_bytes(8, "big") + low.to_bytes(8, "big")


def run_as_user(vector: int, *words: int) -> ppc.BareMachine:
    """Run words at 0x1000 in user mode, which has translation on, until what is at vector ends it."""
    machine = ppc.BareMachine()
    enter_page(machine, 0x1000, 0x1000)
    machine.execute(*translated())
    machine.hypercalls.clear()
    machine.place(vector, *machine.END)
    machine.place(0x1000, *words)
    machine.engine.invalidate_code(0x1000, 4 * len(words))
    machine.run(0x1000, msr=USER)
    return machine


def test_time_base_advances_with_the_hosts_clock_at_512_mhz() -> None:
    """Every reading is held between two of the host's, so that it does not matter how long this process waits for a processor."""
    machine = ppc.BareMachine()
    timebase = Timebase(machine.engine)
    readings: list[tuple[int, int, int]] = []

    def read_here() -> None:
        earliest = time.monotonic_ns()
        now = timebase.read()
        readings.append((earliest, now, time.monotonic_ns()))

    machine.during = read_here
    read = (ppc.mfspr(4, ppc.SPR_TB), ppc.li(3, 0), ppc.SC1)
    wait = (*ppc.li64(7, 3_000_000), ppc.mtspr(ppc.SPR_CTR, 7), ppc.bdnz(0))
    read_here()
    machine.execute(*read, *wait, *read)
    first, second = (call[1] for call in machine.hypercalls[:2])
    (_, before, _), (a_from, a_ticks, a_to), (b_from, b_ticks, b_to) = readings[:3]
    assert before <= first <= a_ticks <= second <= b_ticks, "the guest and the host read the same clock"
    assert b_from - a_to > 500_000, "the loop is too short to measure anything"
    elapsed_ns = (b_ticks - a_ticks) * 1_000_000_000 / TIMEBASE_HZ
    assert b_from - a_to - 10 <= elapsed_ns <= b_to - a_from + 10


HALVES = (0, 1, 2, 0x8765_4321, 0xFFFF_FFFF)
"""Upper halves of the time base."""


@pytest.mark.parametrize(("tbl", "tbu"), [(ppc.SPR_TB, ppc.SPR_TBU), (284, 285)], ids=["268 and 269", "284 and 285"])
def test_upper_half_of_the_time_base_counts_the_wraps_of_the_lower(tbl: int, tbu: int) -> None:
    """Firmware puts its time together from two halves, as on a processor of 32 bits: SLOF waits with it."""
    machine = ppc.BareMachine()
    timebase, uppers = Timebase(machine.engine), iter(HALVES)
    machine.during = lambda: timebase.set(next(uppers, 0) << 32)
    call = ppc.li(3, 0), ppc.SC1
    read = ppc.mfspr(4, tbl), ppc.mfspr(5, tbu), ppc.mfspr(6, tbl)
    machine.execute(*call, *(read + call) * len(HALVES))
    readings = [call[1:4] for call in machine.hypercalls[1 : len(HALVES) + 1]]
    assert [upper for _, upper, _ in readings] == list(HALVES)
    assert all(before >> 32 == upper == after >> 32 and before <= after for before, upper, after in readings)


def test_programs_read_the_upper_half_of_the_time_base() -> None:
    earliest = ticks(time.monotonic_ns())
    machine = run_as_user(0xC00, ppc.mfspr(5, ppc.SPR_TBU), ppc.SC)
    assert 0 < earliest >> 32 <= machine.gpr[5] <= ticks(time.monotonic_ns()) >> 32


def test_virtual_time_base_is_the_guests_time() -> None:
    """Not the host's: it stops and moves with the guest."""
    machine = ppc.BareMachine()
    Timebase(machine.engine).set(0x1234_5678 << 32)
    machine.execute(ppc.mfspr(4, ppc.SPR_TB), ppc.mfspr(5, ppc.SPR_VTB), ppc.mfspr(6, ppc.SPR_TB))
    _, before, virtual, after, *_ = machine.hypercalls[0]
    assert 0x1234_5678 << 32 <= before <= virtual <= after


def test_time_base_stands_still_between_stop_and_go() -> None:
    timebase = Timebase(ppc.BareMachine().engine)
    timebase.stop()
    stopped = timebase.read()
    deadline = time.monotonic_ns() + 3_000_000
    while time.monotonic_ns() < deadline:
        assert timebase.read() == stopped
    stood = timebase.go()
    assert stood >= 3_000_000
    assert 0 <= timebase.read() - stopped < TIMEBASE_HZ // 1000 * 3, "what it stood must not count"


@pytest.mark.parametrize("value", [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_decrementer_write_reaches_the_owner_with_its_exact_value(value: int) -> None:
    machine = ppc.BareMachine()
    machine.execute(*ppc.li64(9, 0xABCD_0000_0000_0000 | value), ppc.mtspr(ppc.SPR_DEC, 9))
    assert machine.decrementers == [value]
    assert machine.engine.state.gpr[9] == 0xABCD_0000_0000_0000 | value


def test_decrementer_write_is_understood_in_little_endian_mode() -> None:
    machine = ppc.BareMachine()
    words = (ppc.li(9, 77), ppc.mtspr(ppc.SPR_DEC, 9), *machine.END)
    machine.ram[0x2000 : 0x2000 + 4 * len(words)] = b"".join(word.to_bytes(4, "little") for word in words)
    machine.run(0x2000, msr=MSR_SF | MSR_ME | MSR_LE)
    assert machine.decrementers == [77]


def test_decrementer_counts_down_from_the_deadline_that_the_owner_sets() -> None:
    machine = ppc.BareMachine()

    def written(value: int) -> None:
        machine.engine.decrementer_zero_ns.value = decrementer_deadline(value)

    machine.engine.on_decrementer = written
    read = ppc.mfspr(4, ppc.SPR_DEC), ppc.mfspr(5, ppc.SPR_TB), ppc.li(3, 0), ppc.SC1
    wait = *ppc.li64(7, 1_000_000), ppc.mtspr(ppc.SPR_CTR, 7), ppc.bdnz(0)
    machine.execute(*ppc.li64(9, 0x4000_0000), ppc.mtspr(ppc.SPR_DEC, 9), *read, *wait, *read)
    (_, first, first_tb, *_), (_, second, second_tb, *_) = machine.hypercalls[:2]
    assert second < first <= 0x4000_0000
    assert first - second == pytest.approx(second_tb - first_tb, abs=TIMEBASE_HZ // 200)


def test_decrementer_reads_negative_after_its_deadline() -> None:
    machine = ppc.BareMachine()
    machine.engine.decrementer_zero_ns.value = time.monotonic_ns() - 1_000_000
    machine.execute(ppc.mfspr(4, ppc.SPR_DEC))
    value = machine.hypercalls[-1][1]
    assert value >> 31 == 1, "it has 32 bits, and is not sign-extended"
    assert 1 << 32 > value + 500_000 > value


def test_decrementer_write_in_user_mode_is_a_program_interrupt() -> None:
    machine = run_as_user(0x700, ppc.mtspr(ppc.SPR_DEC, 9))
    spr = machine.engine.state.spr
    assert machine.decrementers == []
    assert spr[layout.SPR_SRR0] == 0x1000
    assert spr[layout.SPR_SRR1] & MSR_PR, "SRR1 has the interrupted MSR"
    assert spr[layout.SPR_SRR1] & 0x4_0000, "a privileged instruction, says SRR1"


def test_system_call_goes_to_the_guests_own_vector() -> None:
    machine = run_as_user(0xC00, ppc.NOP, ppc.SC)
    state = machine.engine.state
    assert len(machine.hypercalls) == 1, "only the one from 0xC00"
    assert state.spr[layout.SPR_SRR0] == 0x1008
    assert state.spr[layout.SPR_SRR1] == USER
    assert state.msr.value & (MSR_EE | MSR_PR) == 0


def test_trap_goes_to_the_program_vector_and_back() -> None:
    machine = ppc.BareMachine()
    skip = ppc.mfspr(8, ppc.SPR_SRR0), ppc.addi(8, 8, 4), ppc.mtspr(ppc.SPR_SRR0, 8), ppc.RFID
    machine.place(0x700, *skip)
    machine.execute(ppc.li(4, 1), ppc.TRAP, ppc.addi(4, 4, 1))
    assert machine.hypercalls[-1][1] == 2


@pytest.mark.parametrize(("pending", "vector"), [(PENDING_EXTERNAL, 0x500), (PENDING_DECREMENTER, 0x900)])
def test_pending_interrupt_waits_until_the_guest_enables_it(pending: int, vector: int) -> None:
    machine = ppc.BareMachine()
    for address in (0x500, 0x900):
        machine.place(address, ppc.li(4, address), *machine.END)
    state = machine.engine.state

    def raise_it() -> None:
        state.pending_interrupts.value |= pending
        machine.engine.notice_interrupts()

    machine.during = raise_it
    enable = *ppc.li64(6, MSR_SF | MSR_ME | MSR_EE), ppc.mtmsrd(6)
    machine.execute(ppc.li(3, 0), ppc.SC1, ppc.li(5, 42), ppc.NOP, *enable, ppc.NOP, ppc.li(5, 43), ppc.branch(0))
    assert machine.hypercalls[-1][1:3] == (vector, 42)
    assert 0x1008 < state.spr[layout.SPR_SRR0] < 0x1030


MSGSNDP_R5, DOORBELL_TO_SELF = 0x7C00_011C | 5 << 11, 5 << 27


def test_a_message_to_itself_interrupts_a_guest_at_0xa00_once_it_enables_interrupts() -> None:
    """It used to corrupt memory, and then to abort the process."""
    machine = ppc.BareMachine()
    machine.place(0xA00, ppc.li(4, 77), *machine.END)
    send = *ppc.li64(5, DOORBELL_TO_SELF), MSGSNDP_R5, ppc.li(6, 1)
    machine.execute(*send, *ppc.li64(7, MSR_SF | MSR_ME | MSR_EE), ppc.mtmsrd(7), ppc.NOP, ppc.branch(0))
    state = machine.engine.state
    assert machine.hypercalls[-1][1:5] == (77, DOORBELL_TO_SELF, 1, MSR_SF | MSR_ME | MSR_EE)
    assert state.spr[layout.SPR_SRR1] == MSR_SF | MSR_ME | MSR_EE
    assert state.pending_interrupts.value == 0
    machine.execute(*ppc.li64(7, MSR_SF | MSR_ME | MSR_EE), ppc.mtmsrd(7), ppc.NOP, ppc.li(4, 3))
    assert machine.hypercalls[-1][1] == 3, "it comes once"


def test_an_external_interrupt_comes_before_a_message() -> None:
    machine = ppc.BareMachine()
    machine.place(0x500, ppc.li(4, 5), *machine.END)
    machine.place(0xA00, ppc.li(4, 10), *machine.END)
    state = machine.engine.state
    state.pending_interrupts.value = PENDING_EXTERNAL
    machine.engine.notice_interrupts()
    send = *ppc.li64(5, DOORBELL_TO_SELF), MSGSNDP_R5
    enable = *ppc.li64(7, MSR_SF | MSR_ME | MSR_EE), ppc.mtmsrd(7), ppc.NOP, ppc.branch(0)
    machine.execute(*send, *enable)
    assert machine.hypercalls[-1][1] == 5
    state.pending_interrupts.value &= ~PENDING_EXTERNAL
    machine.engine.notice_interrupts()
    machine.execute(*enable)
    assert machine.hypercalls[-1][1] == 10


def test_where_the_engine_would_abort_the_guest_ends() -> None:
    """An interrupt that this CPU has not: a guest cannot raise it, and if it could, the process would live."""
    machine = ppc.BareMachine()
    machine.engine.state.pending_interrupts.value = 1 << 11
    machine.engine.notice_interrupts()
    with pytest.raises(GuestFaultError, match=r"the engine cannot go on \(Raised an exception without defined vector .*at 0x"):
        machine.execute(ppc.NOP, msr=MSR_SF | MSR_ME | MSR_EE)


def test_low_priority_hints_are_counted_and_give_the_turn_back() -> None:
    machine = ppc.BareMachine()
    machine.execute(ppc.HMT_LOW, ppc.HMT_MEDIUM, ppc.HMT_VERY_LOW)
    assert machine.engine.hints == 2
    machine.place(0x1000, ppc.HMT_LOW, ppc.HMT_MEDIUM, ppc.branch(-8))
    machine.engine.invalidate_code(0x1000, 12)
    machine.engine.state.nip.value = 0x1000
    machine.engine.run(16)
    assert machine.engine.hints == 18
    assert machine.engine.state.nip.value == 0x1004, "right behind a hint"


def test_a_hint_lets_an_interrupt_in_that_is_pending() -> None:
    """The guest goes on in the next block, which begins with a look at what is pending."""
    machine = ppc.BareMachine()
    machine.place(0x500, *machine.END)

    def interrupt() -> None:
        machine.engine.state.pending_interrupts.value = PENDING_EXTERNAL
        machine.engine.notice_interrupts()

    machine.during = interrupt
    enable = *ppc.li64(10, MSR_SF | MSR_ME | MSR_EE), ppc.mtmsrd(10)
    machine.execute(*enable, ppc.li(3, 0), ppc.SC1, ppc.HMT_LOW, ppc.branch(-4))
    assert machine.engine.state.spr[layout.SPR_SRR0] in (0x1000 + 4 * 8, 0x1000 + 4 * 9)


def test_rewritten_code_is_executed_once_it_was_invalidated() -> None:
    machine = ppc.BareMachine()
    machine.execute(ppc.li(4, 1))
    machine.place(0x1000, ppc.li(4, 2))
    machine.run(0x1000)
    assert machine.hypercalls[-1][1] == 1, "writes from outside go unnoticed: the next assertion would prove nothing"
    machine.engine.invalidate_code(0x1000, 4)
    machine.run(0x1000)
    assert machine.hypercalls[-1][1] == 2


def test_a_guests_own_stores_to_code_are_noticed() -> None:
    machine = ppc.BareMachine()
    machine.place(0x3000, ppc.li(4, 1), ppc.BLR)
    call = ppc.branch(0x3000 - 0x1000) | 1
    store = *ppc.li64(5, ppc.li(4, 2)), *ppc.li64(6, 0x3000), ppc.stw(5, 0, 6)
    again = ppc.branch(0x3000 - (0x1000 + 4 * (2 + len(store)))) | 1
    machine.execute(call, ppc.mr(7, 4), *store, again)
    assert (machine.hypercalls[-1][1], machine.hypercalls[-1][4]) == (2, 1)


def test_access_to_nothing_is_a_fault_with_its_place() -> None:
    machine = ppc.BareMachine()
    with pytest.raises(GuestFaultError, match=r"accessed real address 0x100000008, .* no handler at 0x200: at 0x1014$"):
        machine.execute(*ppc.li64(5, 1 << 32), ppc.ld(4, 8, 5))


LOAD, STORE = ppc.ld(4, 8, 5), ppc.std(4, 8, 5)
FETCH = ppc.mtspr(ppc.SPR_CTR, 5), 0x4E80_0420  # bctr
NOWHERE = 1 << 32


@pytest.mark.parametrize(
    ("words", "place", "cause"),
    [((LOAD,), 0x1014, 0x20_0000), ((STORE,), 0x1014, 0x20_0000), (FETCH, NOWHERE, 0x4_0000)],
    ids=["load", "store", "fetch"],
)
def test_access_to_nothing_is_a_machine_check_that_a_guest_can_take(words: tuple[int, ...], place: int, cause: int) -> None:
    """SRR1 and DSISR tell what POWER8's tell: an error of a load or store (bit 42 of SRR1, 48 of DSISR), or of a fetch."""
    machine = ppc.BareMachine()
    machine.place(0x200, ppc.li(4, 77), *machine.END)
    machine.execute(*ppc.li64(5, NOWHERE), *words)
    state = machine.engine.state
    assert machine.hypercalls[-1][1] == 77
    assert state.spr[layout.SPR_SRR0] == place
    assert state.spr[layout.SPR_SRR1] == MSR_SF | MSR_ME | cause
    assert state.msr.value & MSR_ME == 0, "until the guest has dealt with it"
    if cause == 0x20_0000:
        assert (state.spr[layout.SPR_DAR], state.spr[layout.SPR_DSISR]) == (NOWHERE + 8, 0x8000)
    assert machine.engine.exceptions[1] == 1


def test_a_guest_goes_on_after_a_machine_check() -> None:
    """Firmware probes memory in this way."""
    machine = ppc.BareMachine()
    skip = ppc.mfspr(8, ppc.SPR_SRR0), ppc.addi(8, 8, 4), ppc.mtspr(ppc.SPR_SRR0, 8), ppc.RFID
    machine.place(0x200, *skip)
    machine.execute(*ppc.li64(5, NOWHERE), ppc.li(4, 3), LOAD, ppc.addi(4, 4, 1), LOAD, ppc.addi(4, 4, 1))
    assert machine.hypercalls[-1][1] == 5


def test_machine_checks_are_logged_with_their_addresses_a_few_times() -> None:
    """A guest may do nothing about them, and turn in a circle."""
    machine = ppc.BareMachine()
    skip = ppc.mfspr(8, ppc.SPR_SRR0), ppc.addi(8, 8, 4), ppc.mtspr(ppc.SPR_SRR0, 8), ppc.RFID
    machine.place(0x200, *skip)
    with capture_logs() as logs:
        machine.execute(*ppc.li64(5, NOWHERE), *(LOAD,) * 20)
    assert len(logs) == 8
    assert "accessed real address 0x100000008, where nothing is" in logs[0]["event"]
    assert [logs[0]["at"], logs[1]["at"]] == ["0x1014", "0x1018"]
    machine.engine.reset()
    with capture_logs() as logs:
        machine.execute(*ppc.li64(5, NOWHERE), LOAD)
    assert len(logs) == 1


@pytest.mark.parametrize(("words", "what"), [((LOAD,), "accessed real address 0x100000008"), (FETCH, "fetched an instruction")])
def test_a_machine_check_in_a_machine_check_ends_the_guest_and_names_the_address(words: tuple[int, ...], what: str) -> None:
    machine = ppc.BareMachine()
    machine.place(0x200, *words)
    with pytest.raises(GuestFaultError, match=rf"{what}.*had MSR\[ME\] clear: at 0x"):
        machine.execute(*ppc.li64(5, NOWHERE), *words)


def test_hash_table_above_ram_is_out_of_the_guests_reach() -> None:
    machine = ppc.BareMachine()
    with pytest.raises(GuestFaultError):
        machine.execute(*ppc.li64(5, 1 << 36), ppc.std(4, 0, 5))
    assert machine.table[:64] == bytes(64)


def test_translation_walks_entries_in_the_hash_table() -> None:
    machine = ppc.BareMachine()
    for effective, real in ((0x1000, 0x1000), (0x20_0000, 0x8_0000)):
        enter_page(machine, effective, real)
    machine.ram[0x8_0000:0x8_0008] = (0x1122_3344_5566_7788).to_bytes(8, "big")
    load = *ppc.li64(7, 0x20_0000), ppc.ld(4, 0, 7), ppc.std(7, 8, 7)
    machine.execute(*translated(*load))
    assert machine.hypercalls[-1][1] == 0x1122_3344_5566_7788
    assert machine.ram[0x8_0008:0x8_0010] == (0x20_0000).to_bytes(8, "big")


def test_page_is_found_after_h_enter_and_lost_after_h_remove() -> None:
    machine = ppc.BareMachine()
    calls = HashPageTable(machine.table, MIN_SHIFT, GuestRam(machine.ram), machine.engine.flush_tlb).calls()
    vcpu = FakeVcpu()
    index, high, low = hash_entry(0x1000, 0x1000)
    assert hypercall(calls, Hcall.H_ENTER, vcpu, EXACT, index, high, low) == H.SUCCESS
    index, high, low = hash_entry(0x20_0000, 0x8_0000)
    machine.ram[0x8_0000:0x8_0008] = (99).to_bytes(8, "big")
    machine.place(0x300, *machine.END)  # Taken in real mode.
    steps: Iterator[Callable[[], int]] = iter(
        [
            lambda: hypercall(calls, Hcall.H_ENTER, vcpu, EXACT, index, high, low),
            lambda: hypercall(calls, Hcall.H_REMOVE, vcpu, 0, index, 0),
        ]
    )
    answers: list[int] = []
    machine.during = lambda: answers.extend(step() for step in [next(steps, None)] if step)
    touch = ppc.li(3, 0), ppc.SC1, ppc.ld(4, 0, 7)
    machine.execute(*translated(*ppc.li64(7, 0x20_0000), ppc.li(4, 0), *touch, *touch))
    assert answers == [H.SUCCESS, H.SUCCESS]
    first, second, at_the_end = machine.hypercalls
    assert first[1] == 0
    assert second[1] == 99, "the entered page was read"
    assert at_the_end[0] == (1 << 64) - 1
    assert machine.engine.state.spr[layout.SPR_DAR] == 0x20_0000, "after its removal it faults"
    assert machine.engine.state.msr.value & (MSR_IR | MSR_DR) == 0, "at 0x300"


def test_code_is_invalidated_by_its_real_address_while_translation_is_on() -> None:
    machine = ppc.BareMachine()
    for effective, real in ((0x1000, 0x1000), (0x20_0000, 0x8_0000)):
        enter_page(machine, effective, real)
    machine.place(0x8_0000, ppc.li(4, 1), ppc.BLR)

    def rewrite() -> None:
        machine.place(0x8_0000, ppc.li(4, 2))
        machine.engine.invalidate_code(0x8_0000, 4)

    machine.during = rewrite
    start = translated()

    def call(position: int) -> int:
        return ppc.branch(0x20_0000 - (0x1000 + 4 * position)) | 1

    middle = call(len(start)), ppc.li(3, 0), ppc.SC1
    machine.execute(*start, *middle, call(len(start) + len(middle)))
    assert [values[1] for values in machine.hypercalls] == [1, 2]


def test_reset_returns_to_the_power_on_state() -> None:
    machine = ppc.BareMachine()
    enter_page(machine, 0x1000, 0x1000)
    engine = machine.engine
    sprs = list(engine.state.spr)
    machine.execute(*translated(*ppc.li64(9, 5), ppc.mtspr(ppc.SPR_SPRG1, 9)))
    engine.state.pending_interrupts.value = PENDING_DECREMENTER
    engine.notice_interrupts()
    assert list(engine.state.spr) != sprs
    engine.reset()
    assert machine.gpr == [0] * 32
    assert list(engine.state.spr) == sprs
    assert engine.state.spr[layout.SPR_PVR] == PVR_POWER8
    assert engine.state.pending_interrupts.value == 0
    assert engine.state.msr.value & (MSR_IR | MSR_DR | MSR_PR) == 0
    machine.place(0x1000, ppc.li(4, 3), *machine.END)
    machine.run(0x1000)
    assert machine.hypercalls[-1][1] == 3, "code translated before the reset is gone, and so is its translation of addresses"


SPR_HSPRG0, SPR_LPIDR, SPR_HRMOR, SPR_PTCR = 304, 319, 313, 464


@pytest.mark.parametrize("spr", [layout.SPR_LPCR, SPR_LPIDR, SPR_HRMOR, SPR_HSPRG0, SPR_PTCR, layout.SPR_HDECR])
@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_hypervisors_register_is_privileged(spr: int, write: bool) -> None:
    """LPCR without LPES let the next external interrupt abort the process."""
    machine = ppc.BareMachine()
    machine.place(0x700, ppc.li(4, 77), *machine.END)
    state = machine.engine.state
    before = state.spr[spr]
    machine.execute(ppc.li(4, 1), ppc.mtspr(spr, 4) if write else ppc.mfspr(4, spr))
    assert machine.hypercalls[-1][1] == 77
    assert (state.spr[layout.SPR_SRR0], state.spr[layout.SPR_SRR1] & 0xF_0000) == (0x1004, 0x4_0000), "privileged instruction"
    assert state.spr[spr] == before


def test_hypervisor_mode_does_not_exist() -> None:
    machine = ppc.BareMachine()
    machine.execute(*ppc.li64(6, MSR_SF | MSR_ME | 1 << 60), ppc.mtmsrd(6))
    assert machine.engine.state.msr.value >> 60 & 1 == 0


def test_another_version_of_unicorn_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicorn, "__version__", "2.1.3")
    with pytest.raises(layout.UnsupportedEngineError, match=r"expected 2\.1\.4 on x86_64, found 2\.1\.3.*locked") as raised:
        Engine(mmap.mmap(-1, 1 << 20), mmap.mmap(-1, 1 << MIN_SHIFT))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("offset", "found"),
    [("GPR", "its registers"), ("EXCP_VECTORS", "the system call vector"), ("SPR_CALLBACKS", "the name of the PURR")],
)
def test_a_moved_structure_is_refused(monkeypatch: pytest.MonkeyPatch, offset: str, found: str) -> None:
    monkeypatch.setattr(layout, offset, getattr(layout, offset) + 8)
    with pytest.raises(layout.UnsupportedEngineError, match=found):
        Engine(mmap.mmap(-1, 1 << 20), mmap.mmap(-1, 1 << MIN_SHIFT))


@pytest.mark.parametrize("error", [ValueError("of a handler"), KeyboardInterrupt()])
def test_what_a_hypercall_raises_comes_out_of_run(error: BaseException) -> None:
    machine = ppc.BareMachine()

    def fail() -> None:
        raise error

    machine.during = fail
    with pytest.raises(type(error)) as raised:
        machine.execute(ppc.li(3, 0), ppc.SC1, ppc.branch(0))
    assert raised.value is error
    machine.during = lambda: None
    machine.execute(ppc.li(4, 8))
    assert machine.hypercalls[-1][1] == 8, "the engine goes on"


def stop_until(engine: Engine, returned: threading.Event) -> None:
    """Stop the engine again and again, for a stop may come before it runs."""
    while not returned.wait(0.002):
        engine.stop()


def test_stop_from_another_thread_ends_a_loop_and_the_guest_goes_on_where_it_was() -> None:
    machine = ppc.BareMachine()
    machine.place(0x1000, ppc.addi(4, 4, 1), ppc.addi(5, 5, 1), ppc.branch(-8))
    machine.engine.state.nip.value = 0x1000
    for _ in range(50):
        returned = threading.Event()
        stopper = threading.Thread(target=stop_until, args=(machine.engine, returned))
        stopper.start()
        machine.engine.run(1 << 30)
        returned.set()
        stopper.join()
        assert machine.engine.state.nip.value in (0x1000, 0x1004, 0x1008)
    machine.place(0x1008, *machine.END)
    machine.engine.invalidate_code(0x1000, 12)
    machine.engine.run(1 << 30)
    _, fourth, fifth, *_ = machine.hypercalls[-1]
    assert fourth == fifth > 1000, "no instruction was lost or done twice"
