# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that take turns on the real engine: interrupts, waiting, pausing, and an end that comes whenever it likes."""

from __future__ import annotations

import itertools
import mmap
import select
import struct
import threading
import time
from collections.abc import Callable

import pytest

from cpu_service.engine import layout
from cpu_service.engine.engine import MSR_ME, MSR_SF, Engine, GuestFaultError
from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.hash_page_table import MIN_SHIFT
from cpu_service.vcpus.context import VcpuContext
from cpu_service.vcpus.scheduler import VcpuScheduler
from cpu_service.vcpus.timebase import Timebase
from cpu_service.vcpus.vcpu import RunState, Vcpu
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.processor import TIMEBASE_HZ
from tests import ppc

MSR_EE = 1 << 15
ENABLED = MSR_SF | MSR_ME | MSR_EE
REPORT, END, START, LOWER = 0xE00, 0xE04, 0xE08, 0xE0C
DEADLINE_S = 20.0
"""After which a test that hangs is ended and fails."""
LATE_S = 0.5
"""More than any wait of a loaded test host, less than the second after which idle threads look by themselves."""


def call(token: int) -> tuple[int, int]:
    return ppc.li(3, token), ppc.SC1


def set_decrementer(seconds: float) -> tuple[int, ...]:
    return *ppc.li64(9, int(seconds * TIMEBASE_HZ)), ppc.mtspr(ppc.SPR_DEC, 9)


class Rig:
    """A scheduler over RAM, with hypercalls for tests: report r4, end, start vCPU r4 at r5, lower the interrupt line."""

    def __init__(self, vcpus: int = 1) -> None:
        self.ram = GuestRam(mmap.mmap(-1, 1 << 20))
        self.engine = Engine(self.ram.map, mmap.mmap(-1, 1 << MIN_SHIFT))
        self.ram.on_write = self.engine.invalidate_code
        self.timebase = Timebase(self.engine)
        self.scheduler = VcpuScheduler(self.engine, self.timebase, vcpus)
        self.engine.on_hypercall = self._dispatch
        self.reports: list[tuple[int, int, float]] = []
        """vCPU, r4, monotonic time."""
        self.reported = threading.Event()
        self._calls: dict[int, Callable[[VcpuContext], None]] = {
            REPORT: self._report,
            END: lambda _vcpu: self.scheduler.end(),
            START: lambda vcpu: self.scheduler.start(self.scheduler.vcpus[vcpu.gpr[4]], vcpu.gpr[5], vcpu.gpr[6], vcpu),
            LOWER: lambda vcpu: self.scheduler.line(vcpu.index, False),
            Hcall.H_CEDE: self._cede,
            Hcall.H_SIGNAL_SYS_RESET: lambda vcpu: self.scheduler.system_reset(self.scheduler.vcpus[vcpu.gpr[4]]),
        }
        self.place(0x500, *call(REPORT), *call(LOWER), *call(END))
        self.place(0x900, *call(REPORT), *call(END))

    def _report(self, vcpu: VcpuContext) -> None:
        self.reports.append((vcpu.index, vcpu.gpr[4], time.monotonic()))
        self.reported.set()

    def _cede(self, vcpu: VcpuContext) -> None:
        vcpu.msr |= MSR_EE
        self.scheduler.halt(vcpu, RunState.CEDED)

    def _dispatch(self) -> None:
        vcpu = self.scheduler.current
        self._calls[vcpu.gpr[3]](vcpu)
        vcpu.gpr[3] = 0
        if self.scheduler.attention:
            self.scheduler.attend()

    def place(self, address: int, *words: int) -> None:
        self.ram.write(address, ppc.pack(words))

    def word(self, address: int) -> int:
        value: int = struct.unpack_from(">Q", self.ram.map, address)[0]
        return value

    def begin(self, *words: int, msr: int = ENABLED) -> None:
        """Put a program at 0x1000 and make vCPU 0 ready to run it."""
        self.place(0x1000, *words)
        self.scheduler.reset(0x1000, {}, msr)

    def run(self) -> None:
        """Run until the end; fails the test when that does not come."""
        returned, late = threading.Event(), threading.Event()

        def watch() -> None:
            if not returned.wait(DEADLINE_S):
                late.set()
                while not returned.wait(0.01):
                    self.scheduler.end()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self.scheduler.run()
        finally:
            returned.set()
            watcher.join()
        assert not late.is_set(), "the guest did not end"

    def run_with(self, other: Callable[[], None]) -> None:
        """Run while another thread does something; what that raises is raised here."""
        errors: list[BaseException] = []

        def act() -> None:
            try:
                other()
            except BaseException as error:
                errors.append(error)
                self.scheduler.end()

        thread = threading.Thread(target=act)
        thread.start()
        self.run()
        thread.join()
        if errors:
            raise errors[0]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S / 2
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"it never happened: {what}"
        pause.wait(0.001)


@pytest.mark.parametrize("delay", [0.001, 0.02, 0.1])
def test_decrementer_interrupts_a_loop_without_hypercalls_on_time(delay: float) -> None:
    rig = Rig()
    rig.begin(*call(REPORT), *set_decrementer(delay), ppc.branch(0))
    rig.run()
    (_, _, armed), (_, _, came) = rig.reports
    assert came - armed > delay - 0.001
    assert came - armed < delay + LATE_S
    assert rig.scheduler.contexts[0].spr[layout.SPR_SRR0] == 0x1000 + 4 * 8


def test_every_one_of_many_decrementers_comes_in_time() -> None:
    rig = Rig()
    count = 400
    # At each interrupt: report, count down in CTR, arm the next.
    loop = ppc.branch(0)
    rig.begin(*ppc.li64(7, count), ppc.mtspr(ppc.SPR_CTR, 7), *set_decrementer(0.0005), loop)
    rig.place(0x900, *call(REPORT), ppc.mtspr(ppc.SPR_DEC, 9), ppc.bdnz(12), *call(END), ppc.RFID)
    rig.run()
    assert len(rig.reports) == count
    times = [when for _, _, when in rig.reports]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) < LATE_S, "a timer that sleeps through an alarm wakes a second later"


def test_negative_decrementer_interrupts_at_once() -> None:
    rig = Rig()
    rig.begin(*call(REPORT), ppc.li(9, -1), ppc.mtspr(ppc.SPR_DEC, 9), ppc.branch(0))
    rig.run()
    assert rig.reports[1][2] - rig.reports[0][2] < LATE_S


def test_interrupt_line_raised_by_another_thread_interrupts_a_loop() -> None:
    rig = Rig()
    rig.place(0x500, ppc.li(4, 0x500), *call(REPORT), *call(LOWER), *call(END))
    rig.begin(*call(REPORT), ppc.branch(0))

    def raise_line() -> None:
        assert rig.reported.wait(DEADLINE_S)
        rig.scheduler.line(0, True)

    rig.run_with(raise_line)
    assert [value for _, value, _ in rig.reports] == [0, 0x500]


def test_lowered_line_does_not_interrupt() -> None:
    rig = Rig()
    rig.scheduler.line(0, True)
    rig.scheduler.line(0, False)
    rig.place(0x900, ppc.li(4, 0x900), *call(REPORT), *call(END))
    rig.begin(*set_decrementer(0.01), ppc.branch(0))
    rig.run()
    assert [value for _, value, _ in rig.reports] == [0x900]


def test_an_idle_vcpu_waits_where_it_may_until_it_is_called_or_its_decrementer_is_due() -> None:
    rig = Rig()
    rig.place(0x500, ppc.li(4, 0x500), *call(REPORT), *call(LOWER), ppc.RFID)
    cede = call(Hcall.H_CEDE)
    rig.begin(*set_decrementer(0.2), *cede, *cede, ppc.branch(0), msr=MSR_SF | MSR_ME)
    rig.place(0x900, ppc.li(4, 0x900), *call(REPORT), *call(END))
    waits: list[tuple[bool, float]] = []
    is_idle = threading.Event()

    def on_idle(done: Callable[[], bool], deadline: float, nudge: int) -> bool:
        is_idle.set()
        nudged, _, _ = select.select([nudge], [], [], max(0.0, deadline - time.monotonic()))
        waits.append((bool(nudged), deadline))
        assert bool(nudged) == done()
        return True

    rig.scheduler.on_idle = on_idle

    def raise_line() -> None:
        assert is_idle.wait(DEADLINE_S)
        rig.scheduler.line(0, True)

    rig.run_with(raise_line)
    assert [value for _, value, _ in rig.reports] == [0x500, 0x900]
    assert [nudged for nudged, _ in waits] == [True, False]
    assert rig.reports[-1][2] >= waits[-1][1], "it was woken when the decrementer was due"


def test_ceded_vcpu_sleeps_until_its_decrementer() -> None:
    rig = Rig()
    rig.begin(*set_decrementer(0.5), *call(REPORT), *call(Hcall.H_CEDE), ppc.branch(0), msr=MSR_SF | MSR_ME)
    before = time.process_time()
    rig.run()
    used = time.process_time() - before
    assert 0.49 < rig.reports[1][2] - rig.reports[0][2] < 0.5 + LATE_S
    assert used < 0.1, "it spun"


def test_decrementer_that_was_not_written_interrupts_again() -> None:
    rig = Rig()
    rig.place(0x900, *call(REPORT), ppc.addi(4, 4, 1), ppc.mtspr(ppc.SPR_SRR1, 7), ppc.RFID)
    registers = ppc.li(4, 1), *ppc.li64(6, ENABLED), *ppc.li64(7, MSR_SF | MSR_ME)
    enable = ppc.mtmsrd(6)
    rig.begin(*registers, *set_decrementer(-1), enable, enable, *set_decrementer(3), enable, *call(END), msr=MSR_SF | MSR_ME)
    rig.run()
    assert [value for _, value, _ in rig.reports] == [1, 2]


def test_ceded_vcpu_is_not_dispatched_until_it_goes_on() -> None:
    rig = Rig()
    told: list[tuple[int, bool]] = []
    rig.begin(*set_decrementer(0.05), *call(Hcall.H_CEDE), *call(END))
    rig.scheduler.on_dispatch = lambda vcpu, running: told.append((vcpu.index, running))
    rig.run()
    assert told == [(0, False), (0, True)]


def test_ceded_vcpu_sleeps_until_its_line_rises() -> None:
    rig = Rig()
    rig.begin(*call(REPORT), *call(Hcall.H_CEDE), ppc.branch(0), msr=MSR_SF | MSR_ME)
    used = 0.0

    def raise_line() -> None:
        nonlocal used
        assert rig.reported.wait(DEADLINE_S)
        wait_until(lambda: rig.scheduler.contexts[0].run_state is RunState.CEDED, "H_CEDE")
        rig.scheduler.raise_attention()  # Nothing to wake it for; it sleeps again.
        before = time.process_time()
        threading.Event().wait(0.5)
        used = time.process_time() - before
        rig.scheduler.line(0, True)

    rig.run_with(raise_line)
    assert len(rig.reports) == 2
    assert used < 0.01, "somebody polls"
    assert rig.reports[1][2] - rig.reports[0][2] < 0.5 + LATE_S


def test_vcpu_that_cedes_with_an_interrupt_pending_takes_it_at_once() -> None:
    rig = Rig()
    pending = ppc.li(9, -1), ppc.mtspr(ppc.SPR_DEC, 9)
    rig.begin(*pending, *call(REPORT), *call(Hcall.H_CEDE), ppc.branch(0), msr=MSR_SF | MSR_ME)
    rig.run()
    assert rig.reports[1][2] - rig.reports[0][2] < LATE_S


def test_pause_freezes_the_guest_and_its_clock() -> None:
    rig = Rig()
    # Stores the time base at 0x8000 again and again.
    rig.begin(*ppc.li64(5, 0x8000), ppc.mfspr(4, ppc.SPR_TB), ppc.std(4, 0, 5), ppc.branch(-8))
    stood = 0.3

    def pause_and_resume() -> None:
        wait_until(lambda: rig.word(0x8000) != 0, "the guest runs")
        rig.scheduler.pause()
        began = time.monotonic()

        def frozen() -> bool:
            before = rig.timebase.read(), rig.word(0x8000)
            threading.Event().wait(0.002)
            return (rig.timebase.read(), rig.word(0x8000)) == before

        wait_until(frozen, "time stands still")
        assert time.monotonic() - began < LATE_S, "a pause takes effect at once"
        stopped, stored = rig.timebase.read(), rig.word(0x8000)
        threading.Event().wait(stood)
        assert (rig.timebase.read(), rig.word(0x8000)) == (stopped, stored)
        rig.scheduler.resume()
        resumed = time.monotonic()
        wait_until(lambda: rig.word(0x8000) != stored, "the guest goes on")
        passed = (rig.word(0x8000) - stored) / TIMEBASE_HZ
        assert passed < time.monotonic() - resumed + 0.1, "what it stood does not count"
        rig.scheduler.end()

    rig.run_with(pause_and_resume)


def test_pause_moves_the_decrementer() -> None:
    rig = Rig()
    rig.begin(*call(REPORT), *set_decrementer(0.2), ppc.branch(0))

    def pause_and_resume() -> None:
        assert rig.reported.wait(DEADLINE_S)
        rig.scheduler.pause()
        threading.Event().wait(0.4)
        assert len(rig.reports) == 1, "no interrupt while paused"
        rig.scheduler.resume()

    rig.run_with(pause_and_resume)
    assert 0.55 < rig.reports[1][2] - rig.reports[0][2] < 0.6 + LATE_S


def test_paused_machine_uses_no_time_of_the_host_and_can_be_ended() -> None:
    rig = Rig()
    rig.begin(*call(REPORT), ppc.branch(0))
    used = 0.0

    def pause_and_end() -> None:
        nonlocal used
        assert rig.reported.wait(DEADLINE_S)
        rig.scheduler.pause()
        threading.Event().wait(0.1)
        before = time.process_time()
        threading.Event().wait(0.4)
        used = time.process_time() - before
        rig.scheduler.end()

    rig.run_with(pause_and_end)
    assert used < 0.01


COUNTING = (ppc.addi(4, 4, 1), ppc.std(4, 0, 3), ppc.branch(-8))
"""A vCPU that counts at the address in r3."""


def start_vcpu(index: int) -> tuple[int, ...]:
    return ppc.li(4, index), ppc.li(5, 0x3000), *ppc.li64(6, 0x8000 + 8 * index), *call(START)


@pytest.mark.parametrize("spinning", [False, True], ids=["counting", "with hints"])
def test_vcpus_share_the_engine(spinning: bool) -> None:
    rig = Rig(4)
    body = (ppc.addi(4, 4, 1), ppc.std(4, 0, 3), ppc.HMT_LOW, ppc.branch(-12)) if spinning else COUNTING
    rig.place(0x3000, *body)
    first = *start_vcpu(1), *start_vcpu(2), *start_vcpu(3), ppc.li(4, 0), *ppc.li64(3, 0x8000)
    rig.begin(*first, ppc.branch(0x3000 - 0x1000 - 4 * len(first)))
    alone: list[int] = []

    def read() -> list[int]:
        return [rig.word(0x8000 + 8 * index) for index in range(4)]

    def watch() -> None:
        wait_until(lambda: all(read()), "all four run")
        alone.extend(read())
        threading.Event().wait(0.3)
        rig.scheduler.end()

    rig.run_with(watch)
    counts = [after - before for before, after in zip(alone, read(), strict=True)]
    assert max(counts) < 10 * min(counts), f"unfair: {counts}"
    assert [context.spr[layout.SPR_PIR] for context in rig.scheduler.contexts] == [0, 1, 2, 3]


def test_vcpus_that_only_look_at_memory_leave_the_engine_to_the_one_they_wait_for() -> None:
    rig = Rig(4)
    flag, steps = 0x8000, 100_000_000
    # Until the flag is 1, without a hint: a loop as Linux has in stop_machine() while it changes the kernel's mapping.
    rig.place(0x3000, ppc.ld(7, 0, 3), ppc.mtspr(ppc.SPR_CTR, 7), ppc.bdnz(-8), *call(REPORT), ppc.li(3, Hcall.H_CEDE), ppc.SC1)
    starts = [(ppc.li(4, index), ppc.li(5, 0x3000), *ppc.li64(6, flag), *call(START)) for index in (1, 2, 3)]
    count = *ppc.li64(9, steps), ppc.mtspr(ppc.SPR_CTR, 9), ppc.bdnz(0)
    rig.begin(*itertools.chain(*starts), *count, *ppc.li64(3, flag), ppc.li(4, 1), ppc.std(4, 0, 3), *call(Hcall.H_CEDE))
    loaded_s, since = [0.0] * 4, 0.0

    def dispatched(vcpu: Vcpu, running: bool) -> None:
        nonlocal since
        if not running and not rig.word(flag):
            loaded_s[vcpu.index] += time.thread_time() - since  # Of the vCPUs' thread: the host may be busy.
        since = time.thread_time()

    rig.scheduler.on_dispatch = dispatched

    def watch() -> None:
        wait_until(lambda: len(rig.reports) == 3, "all three see the flag")
        rig.scheduler.end()

    rig.run_with(watch)
    assert sorted(vcpu for vcpu, _, _ in rig.reports) == [1, 2, 3]
    assert loaded_s[0] > 0.4 * sum(loaded_s), f"turns alone would give it a quarter: {loaded_s}"


def test_stopped_vcpu_runs_only_once_started() -> None:
    rig = Rig(2)
    rig.place(0x3000, ppc.mr(4, 3), *call(REPORT), *call(END))
    # vCPU 0 runs alone for 20 ms; the decrementer lets it start the other one.
    rig.begin(*set_decrementer(0.02), ppc.branch(0))
    rig.place(0x900, ppc.li(4, 7), *call(REPORT), *start_vcpu(1), ppc.branch(0))
    rig.run()
    assert [(vcpu, value) for vcpu, value, _ in rig.reports] == [(0, 7), (1, 0x8008)]
    started = rig.scheduler.contexts[1]
    assert started.msr == MSR_SF | MSR_ME, "real mode, interrupts disabled"


def test_interrupt_goes_to_the_vcpu_whose_line_rises() -> None:
    rig = Rig(2)
    rig.place(0x3000, *ppc.li64(6, ENABLED), ppc.mtmsrd(6), *call(REPORT), ppc.branch(0))
    rig.place(0x500, ppc.li(4, 5), *call(REPORT), *call(LOWER), *call(END))
    rig.begin(*start_vcpu(1), ppc.branch(0))

    def raise_line() -> None:
        assert rig.reported.wait(DEADLINE_S)
        rig.scheduler.line(1, True)

    rig.run_with(raise_line)
    assert [(vcpu, value) for vcpu, value, _ in rig.reports][1:] == [(1, 5)]


@pytest.mark.parametrize("words", [(ppc.branch(0),), (ppc.HMT_LOW, ppc.branch(-4))], ids=["loop", "loop with hints"])
def test_end_is_never_lost(words: tuple[int, ...]) -> None:
    rig = Rig()
    rig.begin(*words)
    for round_number in range(200):
        delay = round_number % 20 * 50e-6
        asked = 0.0

        def end(delay: float = delay) -> None:
            nonlocal asked
            threading.Event().wait(delay)
            asked = time.monotonic()
            rig.scheduler.end()

        rig.run_with(end)
        assert time.monotonic() - asked < LATE_S


def test_end_before_run_lets_run_return_at_once() -> None:
    rig = Rig()
    rig.begin(ppc.branch(0))
    rig.scheduler.end()
    rig.run()
    rig.begin(*call(END), ppc.branch(0))
    rig.run()


def test_attention_between_turns_is_never_lost() -> None:
    rig = Rig(2)
    rig.place(0x3000, *COUNTING)
    rig.begin(*start_vcpu(1), *ppc.li64(3, 0x8000), ppc.branch(0x3000 - 0x1000 - 4 * (len(start_vcpu(1)) + 5)))
    noticed = threading.Event()
    rig.scheduler.on_attention = noticed.set

    def raise_often() -> None:
        for round_number in range(500):
            noticed.clear()
            rig.scheduler.raise_attention()
            assert noticed.wait(LATE_S), f"round {round_number}"
        rig.scheduler.end()

    rig.run_with(raise_often)


def test_fault_of_the_guest_comes_out_of_run() -> None:
    rig = Rig()
    rig.begin(*ppc.li64(5, 1 << 40), ppc.ld(4, 0, 5))
    with pytest.raises(GuestFaultError, match="at 0x1014"):
        rig.run()


def test_reset_after_a_run_starts_all_over() -> None:
    rig = Rig(2)
    rig.place(0x3000, *call(END), ppc.branch(0))
    rig.begin(*set_decrementer(10), *start_vcpu(1), ppc.branch(0))
    rig.run()
    assert rig.scheduler.contexts[1].run_state is RunState.RUNNING
    rig.begin(ppc.mfspr(4, ppc.SPR_SPRG1), *call(REPORT), *call(END))
    assert [context.run_state for context in rig.scheduler.contexts] == [RunState.RUNNING, RunState.STOPPED]
    assert rig.scheduler.contexts[0].decrementer_ns is None
    rig.run()
    assert [vcpu for vcpu, _, _ in rig.reports] == [0]


def test_a_system_reset_interrupts_a_loop_with_interrupts_disabled_which_goes_on_after_it() -> None:
    rig = Rig()
    rig.place(0x100, ppc.li(4, 0x100), *call(REPORT), ppc.li(8, 1), ppc.mtspr(ppc.SPR_SRR0, 9), ppc.RFID)
    rig.begin(*ppc.li64(9, 0x1000 + 4 * 8), *call(REPORT), ppc.branch(0), *call(REPORT), *call(END))
    msr = MSR_SF | MSR_ME
    rig.scheduler.contexts[0].start_msr = None
    rig.engine.set_msr(msr)

    def interrupt() -> None:
        assert rig.reported.wait(DEADLINE_S)
        rig.scheduler.system_reset(rig.scheduler.vcpus[0])

    rig.run_with(interrupt)
    assert [r4 for _, r4, _ in rig.reports] == [0, 0x100, 0x100]
    assert rig.scheduler.contexts[0].spr[layout.SPR_SRR1] == msr


def test_a_system_reset_of_the_caller_comes_after_its_hypercall() -> None:
    rig = Rig()
    rig.place(0x100, ppc.mfspr(4, ppc.SPR_SRR0), *call(REPORT), ppc.mr(4, 3), *call(REPORT), *call(END))
    rig.begin(ppc.li(4, 0), *call(Hcall.H_SIGNAL_SYS_RESET), ppc.branch(0))
    rig.run()
    assert [r4 for _, r4, _ in rig.reports] == [0x1000 + 4 * 3, 0]


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.CEDED, RunState.WAITING])
def test_a_vcpu_that_is_not_loaded_takes_its_system_reset_first(state: RunState) -> None:
    rig = Rig(vcpus=2)
    rig.place(0x100, ppc.mfspr(4, ppc.SPR_SRR0), *call(REPORT), *call(END))
    rig.begin(ppc.li(4, 1), *call(Hcall.H_SIGNAL_SYS_RESET), ppc.branch(0))
    other = rig.scheduler.contexts[1]
    other.run_state = state
    other.saved.nip.value = 0x2000
    rig.place(0x2000, ppc.branch(0))
    rig.run()
    assert [(vcpu, r4) for vcpu, r4, _ in rig.reports] == [(1, 0x2000)]
    assert other.run_state is RunState.RUNNING


def test_a_stopped_vcpu_gets_no_system_reset() -> None:
    rig = Rig(vcpus=2)
    rig.begin(ppc.li(4, 1), *call(Hcall.H_SIGNAL_SYS_RESET), *call(END))
    rig.run()
    assert rig.scheduler.contexts[1].run_state is RunState.STOPPED
    assert not rig.scheduler.contexts[1].system_reset


@pytest.mark.parametrize("wait", [(ppc.branch(0),), (*call(Hcall.H_CEDE), ppc.branch(0))], ids=["running", "idle"])
def test_an_alarm_rings_in_time_whatever_the_guest_does(wait: tuple[int, ...]) -> None:
    rig = Rig()
    rig.begin(*wait)
    began, rang = time.monotonic(), []

    def ring() -> None:
        rang.append(time.monotonic())
        rig.scheduler.end()

    rig.scheduler.alarms.set(1, 50_000_000, ring)
    rig.run()
    assert 0.05 <= rang[0] - began < 0.05 + LATE_S


def test_an_alarm_does_not_ring_while_the_machine_is_paused() -> None:
    rig = Rig()
    rig.begin(ppc.branch(0))
    rang: list[int] = []

    def ring() -> None:
        rang.append(rig.timebase.now_ns())
        rig.scheduler.end()

    rig.scheduler.alarms.set(1, 20_000_000, ring)
    began = time.monotonic_ns()
    rig.scheduler.pause()

    def resume() -> None:
        threading.Event().wait(0.1)
        assert rang == []
        rig.scheduler.resume()

    rig.run_with(resume)
    assert rang[0] - began >= 100_000_000
