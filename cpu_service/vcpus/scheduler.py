# SPDX-License-Identifier: GPL-2.0-or-later
"""Several vCPUs on one engine: who runs, for how long, and what wakes who does not.

One instance per vCPU would not do: `stdcx.` is not atomic between Unicorn instances, and one does not see code that another
changed. So vCPUs take turns. All state is changed by the vCPU thread alone; other threads only raise `attention`, and the
timer thread repeats the engine's stop until it was noticed, because a stop that comes just before the engine starts is lost.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from cpu_service.engine import layout
from cpu_service.engine.engine import MSR_ME, MSR_SF, PENDING_DECREMENTER, PENDING_EXTERNAL, Engine
from cpu_service.engine.fast_path import FOREVER_NS
from cpu_service.engine.state import CpuState
from cpu_service.vcpus.alarms import Alarms
from cpu_service.vcpus.context import VcpuContext
from cpu_service.vcpus.timebase import Timebase, decrementer_deadline
from cpu_service.vcpus.vcpu import RunState, Vcpu

TURN_NS = 2_000_000
"""How long a vCPU runs while others wait."""
SUSPECT_TURN_NS = 200_000
"""The same for one that spun in its last turn."""
RETRY_NS = 1_000_000
"""After which a stop that was not noticed is repeated."""
HINTS_PER_TURN = 8
"""HMT hints of a low priority after which a vCPU that spins gives way to others."""
MANY_HINTS = 1 << 30
LONGEST_IDLE_NS = 1_000_000_000
"""After which the vCPU thread looks though nothing is due."""
_SYSTEM_RESET_VECTOR = 0x100
_WAKING = PENDING_EXTERNAL | PENDING_DECREMENTER


class VcpuScheduler:
    """Runs a machine's vCPUs in turn on one engine (see cpu_service.vcpus.vcpu.Scheduler).

    Args:
        engine: the engine; its decrementer hook is taken.
        timebase: the guest's clock.
        count: number of vCPUs.
    """

    def __init__(self, engine: Engine, timebase: Timebase, count: int) -> None:
        self._engine, self._timebase = engine, timebase
        self._native = engine.fast_path
        """Its timer_ns says until when the timer thread does not look by itself."""
        self.loaded = engine.state
        """The registers of whichever vCPU is loaded."""
        self.contexts = [VcpuContext(index) for index in range(count)]
        self.vcpus: Sequence[Vcpu] = list(self.contexts)
        self.current = self.contexts[0]
        """The vCPU whose registers the engine holds."""
        self.attention = False
        """Something waits for the vCPU thread; it looks after each hypercall."""
        self.on_attention: Callable[[], None] = lambda: None
        """Called on the vCPU thread when attention was raised."""
        self.on_dispatch: Callable[[Vcpu, bool], None] = lambda vcpu, running: None
        """Told when a vCPU stops to run, for another or because it ceded (False), and when it goes on (True)."""
        self.on_system_reset: Callable[[Vcpu], int] = lambda vcpu: _SYSTEM_RESET_VECTOR
        """Prepares a vCPU for a system reset interrupt and returns the address of its handler."""
        self.on_watched_store: Callable[[], None] = lambda: None
        """Called when the loaded vCPU has stored into the page that the engine watches."""
        self.on_idle: Callable[[Callable[[], bool], float, int], bool] = lambda done, deadline, nudge: False
        """Called on the vCPU thread while no vCPU can run: may wait usefully until done, or until a time of time.monotonic().
        nudge is a descriptor that can be read when done may have changed. Returns False when there is nothing to do."""
        self.idle_ns = 0
        """How long no vCPU had anything to do, so far."""
        self.alarms = Alarms(timebase.now_ns, self._arm)
        self.decrementer_interrupts = 0
        """That became due, so far."""
        self._next: VcpuContext | None = None
        self._ending = False
        self._running = False
        self._resting = False
        """No vCPU is dispatched, not even the loaded one."""
        self._paused = False
        lock = threading.Lock()
        self._wake = threading.Condition(lock)
        """The vCPU thread waits for it while no vCPU can run."""
        self._timer = threading.Condition(lock)
        """The timer thread waits for it."""
        self._is_waiting = False
        """The vCPU thread waits."""
        self._nudge = os.eventfd(0, os.EFD_NONBLOCK)
        self._is_away = False
        """The vCPU thread is in on_idle, and waits for _nudge instead of _wake."""
        self._is_called = False
        """The vCPU thread was told of the present attention."""
        self._armed_ns: int | None = None
        """When the timer thread stops the engine, beside when the loaded decrementer is due; None: there is nothing to stop."""
        self._thread_id: int | None = None
        engine.on_decrementer = self._decrementer_written

    # What local hypercalls use.

    def halt(self, vcpu: Vcpu, state: RunState) -> None:
        """See Scheduler. With an interrupt pending there is nothing to wait for: the engine delivers it before it stops."""
        if state is RunState.CEDED and self.contexts[vcpu.index].state.pending_interrupts.value & _WAKING:
            return
        vcpu.run_state = state
        if vcpu is self.current:
            self._engine.stop()

    def wake(self, vcpu: Vcpu) -> None:
        """See Scheduler."""
        if vcpu.run_state is not RunState.STOPPED:
            vcpu.run_state = RunState.RUNNING
        self._arm()

    def yield_turn(self, to: Vcpu | None) -> None:
        """See Scheduler."""
        self._next = self.contexts[to.index] if to is not None else None
        self._engine.stop()

    def start(self, vcpu: Vcpu, nip: int, r3: int, starter: Vcpu) -> None:
        """See Scheduler: the starter's SPRs, with everything cleared that is the vCPU's own (PAPR 7.3.7.2)."""
        context = self.contexts[vcpu.index]
        self._power_on(context, self.contexts[starter.index].state, nip)
        context.saved.gpr[3] = r3
        context.run_state = RunState.RUNNING
        self._arm()

    def system_reset(self, vcpu: Vcpu) -> None:
        """See Scheduler; from any thread."""
        self.contexts[vcpu.index].system_reset = True
        self.raise_attention()

    def each_spr(self, number: int, change: Callable[[int], int]) -> None:
        """See Scheduler."""
        for context in self.contexts:
            context.spr[number] = change(context.spr[number])

    # What the machine uses.

    def reset(self, nip: int, gpr: dict[int, int], msr: int) -> None:
        """Bring every vCPU to its power-on state; vCPU 0 will run from nip. Only while run() is not running."""
        self._engine.reset()
        for context in self.contexts:
            context.power_on()
            context.saved.copy_from(self._engine.state)
            self._power_on(context, self._engine.state, nip)
        boot = self.contexts[0]
        for number, value in gpr.items():
            boot.saved.gpr[number] = value
        boot.start_msr = msr
        boot.run_state = RunState.RUNNING
        self._load(boot)

    def _power_on(self, context: VcpuContext, template: CpuState, nip: int) -> None:
        context.saved.copy_from(template)
        for number in range(32):
            context.saved.gpr[number] = 0
        context.saved.spr[layout.SPR_PIR] = context.index
        context.saved.nip.value = nip
        context.saved.pending_interrupts.value = 0
        context.decrementer_ns = None
        context.prodded = context.system_reset = False
        context.start_msr = MSR_SF | MSR_ME

    def start_from(self, current: int, prepare: Callable[[VcpuContext], None]) -> None:
        """Bring every vCPU to its power-on state, let prepare() change what is saved of it, and load one. As reset()."""
        self._engine.reset()
        for context in self.contexts:
            context.power_on()
            context.saved.copy_from(self._engine.state)
            prepare(context)
        self._load(self.contexts[current])

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """The guest's time stands still in this context; only while run() is not running."""
        self._timebase.stop()
        try:
            yield
        finally:
            self._go_on()

    def line(self, server: int, level: bool) -> None:
        """Set the external interrupt line of a vCPU; from any thread."""
        self.contexts[server].external = level
        self.raise_attention()

    def raise_attention(self, *, wakes: bool = True) -> None:
        """Let the vCPU thread look at lines and at what on_attention is for; from any thread.

        wakes: False: it may go on waiting while no vCPU can run; it looks before one does.
        """
        if threading.get_ident() == self._thread_id:
            self.attention = True
            return
        with self._wake:
            self.attention = True
            if self._is_called or (self._is_waiting and not wakes):
                return
            self._is_called = True
            if self._is_away:
                os.eventfd_write(self._nudge, 1)
                return
            if self._is_waiting:
                self._wake.notify()
                return
            self._armed_ns = time.monotonic_ns() + RETRY_NS
            if self._armed_ns < self._native.timer_ns:
                self._timer.notify()
        self._engine.stop()

    def pause(self) -> None:
        """Stop all vCPUs where they are; from any thread."""
        self._paused = True
        self.raise_attention()

    def resume(self) -> None:
        """Let paused vCPUs go on; from any thread."""
        self._paused = False
        self.raise_attention()

    def end(self) -> None:
        """Let run() return, or the next one when none is under way; from any thread."""
        self._ending = True
        self.raise_attention()
        self._engine.stop()

    def run(self) -> None:
        """Run vCPUs until end(). Raises what the engine raises: GuestFaultError, or a failure of a hypercall."""
        self._running = True
        self._thread_id = threading.get_ident()
        timer = threading.Thread(target=self._tick, name="timer", daemon=True)
        timer.start()
        try:
            while not self._ending:
                self._attend()
                vcpu = None if self._paused else self._pick()
                if vcpu is None:
                    self._rest()
                    self._idle()
                    continue
                if vcpu is not self.current:
                    self._load(vcpu)
                elif self._resting:
                    self.on_dispatch(vcpu, True)
                self._resting = False
                self._arm()
                if not self.attention:
                    self._turn(vcpu)
                    if self._engine.take_watched_stores():
                        self.on_watched_store()
        finally:
            # Only now: until here the timer repeats the stop that end() asked for.
            self._running = self._ending = False
            with self._timer:
                self._timer.notify()
            timer.join()
            self._thread_id = None

    def close(self) -> None:
        """Let go of what the host gave; nothing runs any more."""
        os.close(self._nudge)

    # The vCPU thread.

    def _turn(self, vcpu: VcpuContext) -> None:
        """Run the loaded vCPU until something stops it."""
        if not self._others_can_run(vcpu):
            self._engine.run(MANY_HINTS)
            return
        now = time.monotonic_ns()
        vcpu.spin.begin(vcpu.state.integer_registers(), now)
        self._engine.run(HINTS_PER_TURN if any(not other.spin.rests(now) for other in self._waiting(vcpu)) else MANY_HINTS)
        vcpu.spin.end(vcpu.state.integer_registers(), time.monotonic_ns())

    def attend(self) -> None:
        """Look after what other threads raised; called after each hypercall when `attention` is set."""
        self._attend()
        self._arm()

    def _attend(self) -> None:
        """Deliver due decrementers and line levels to every vCPU, and wake those that ceded until then."""
        if self.attention:
            with self._wake:
                self.attention = self._is_called = False
            self.on_attention()
        now = time.monotonic_ns()
        if not self._paused:
            self.alarms.ring(now)
        for context in self.contexts:
            pending = context.state.pending_interrupts
            value = pending.value & ~PENDING_EXTERNAL | (PENDING_EXTERNAL if context.external else 0)
            if context.decrementer_ns is not None and context.decrementer_ns <= now and context.run_state is not RunState.STOPPED:
                context.decrementer_ns = None
                self.decrementer_interrupts += 1
                value |= PENDING_DECREMENTER
            if value != pending.value:
                pending.value = value
                context.spin.wake()
            if context.run_state is RunState.CEDED and value & _WAKING:
                context.run_state = RunState.RUNNING
            if context.system_reset:
                self._attend_system_reset(context)
        self._engine.notice_interrupts()

    def _attend_system_reset(self, context: VcpuContext) -> None:
        """Deliver a vCPU's system reset when it is loaded, else let it take a turn. One that is stopped gets none."""
        if context.run_state is RunState.STOPPED:
            context.system_reset = False
            return
        context.run_state = RunState.RUNNING
        context.spin.wake()
        if context.state is self._engine.state:
            context.system_reset = False
            self._engine.system_reset(self.on_system_reset(context))

    def _decrementer_written(self, value: int) -> None:
        context = self.current
        zero = decrementer_deadline(value)
        context.decrementer_zero_ns = context.decrementer_ns = zero
        self._engine.decrementer_zero_ns.value = zero
        if value & 1 << 31:
            context.decrementer_ns = None
            self.decrementer_interrupts += 1
            context.state.pending_interrupts.value |= PENDING_DECREMENTER
        else:
            context.state.pending_interrupts.value &= ~PENDING_DECREMENTER
        self._engine.notice_interrupts()
        self._arm()

    def _pick(self) -> VcpuContext | None:
        """The vCPU that was yielded to, else the next one in turn that can run and does not rest, else that which rests least."""
        wanted, self._next = self._next, None
        if wanted is not None and wanted.run_state is RunState.RUNNING:
            return wanted
        start = self.current.index + 1
        in_turn = (*self.contexts[start:], *self.contexts[:start])
        runnable = [context for context in in_turn if context.run_state is RunState.RUNNING]
        if len(runnable) < 2:
            return runnable[0] if runnable else None
        now = time.monotonic_ns()
        for context in runnable:
            if not context.spin.rests(now):
                return context
        return min(runnable, key=lambda context: context.spin.resting_until_ns)

    def _waiting(self, vcpu: VcpuContext) -> Iterator[VcpuContext]:
        """The others that could run instead."""
        return (other for other in self.contexts if other is not vcpu and other.run_state is RunState.RUNNING)

    def _others_can_run(self, vcpu: VcpuContext) -> bool:
        return any(True for _ in self._waiting(vcpu))

    def _load(self, context: VcpuContext) -> None:
        previous = self.current
        if previous.state is self._engine.state:
            self.on_dispatch(previous, False)
            previous.saved.copy_from(self._engine.state)
            previous.use(previous.saved)
        self._engine.load(context.saved)
        self._engine.decrementer_zero_ns.value = context.decrementer_zero_ns
        context.use(self._engine.state)
        self.current = context
        if context.start_msr is not None:
            self._engine.set_msr(context.start_msr)
            context.start_msr = None
        if context.system_reset:
            self._attend_system_reset(context)
        self.on_dispatch(context, True)

    def _earliest(self, contexts: Iterable[VcpuContext]) -> int:
        """When the vCPU thread must look next: the first decrementer of some vCPUs, or the end of this turn."""
        due = [
            context.decrementer_ns
            for context in contexts
            if context.decrementer_ns is not None and context.run_state in (RunState.RUNNING, RunState.CEDED)
        ]
        alarm = self.alarms.earliest()
        if alarm is not None:
            due.append(alarm)
        rests = [other.spin.resting_until_ns for other in self._waiting(self.current)]
        if rests:
            turn = SUSPECT_TURN_NS if self.current.spin.is_suspect else TURN_NS
            due.append(max(time.monotonic_ns() + turn, min(rests)))
        if self.attention or self._paused or self._ending:
            due.append(time.monotonic_ns() + RETRY_NS)
        return min(due, default=FOREVER_NS)

    def _arm(self) -> None:
        """Set the timer; wake its thread only when it sleeps too long. It looks at the loaded vCPU's decrementer by itself."""
        self._armed_ns = self._earliest(context for context in self.contexts if context is not self.current)
        if self._due() < self._native.timer_ns:
            with self._timer:
                self._timer.notify()

    def _due(self) -> int:
        """When the engine is to be stopped."""
        if self._armed_ns is None:
            return FOREVER_NS
        return min(self._armed_ns, self.loaded.spr[layout.SPR_DECR] or FOREVER_NS)

    def _rest(self) -> None:
        """The loaded vCPU ceded; while the machine is paused it counts as dispatched."""
        if not self._resting and self.current.run_state is not RunState.RUNNING:
            self._resting = True
            self.on_dispatch(self.current, False)

    def _idle(self) -> None:
        """No vCPU can run: sleep until something is due or raised."""
        if self._paused:
            self._hold()
            return
        with self._wake:
            self._armed_ns = None  # There is nothing to stop.
            if self.attention:
                return
            began = time.monotonic_ns()
            until_ns = min(self._earliest(self.contexts), began + LONGEST_IDLE_NS)
            self._is_waiting = self._is_away = True
        has_waited = self.on_idle(self._wants_attention, until_ns / 1e9, self._nudge)
        with self._wake:
            self._is_away = False
            if self._is_called:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._nudge)
            elif not has_waited and not self.attention:
                self._wake.wait(max(0.0, (until_ns - time.monotonic_ns()) / 1e9))
            self._is_waiting = False
            self.idle_ns += time.monotonic_ns() - began

    def _wants_attention(self) -> bool:
        """Whether something waits for the vCPU thread."""
        return self.attention

    def _hold(self) -> None:
        """Stand still until resumed: the guest's time does too."""
        self._timebase.stop()
        with self._wake:
            self._armed_ns = None
            while self._paused and not self._ending:
                self._is_called, self._is_waiting = False, True
                self._wake.wait(1.0)
            self._is_waiting = False
        self._go_on()

    def _go_on(self) -> None:
        stood = self._timebase.go()
        self.alarms.move(stood)
        for context in self.contexts:
            context.decrementer_zero_ns += stood
            if context.decrementer_ns is not None:
                context.decrementer_ns += stood
        self._engine.decrementer_zero_ns.value = self.current.decrementer_zero_ns

    # The timer thread.

    def _tick(self) -> None:
        """Stop the engine whenever something is due, again and again until the vCPU thread has looked."""
        with self._timer:
            while self._running:
                self._native.timer_ns = FOREVER_NS  # Before the look: what is armed after it must wake this thread.
                now, due = time.monotonic_ns(), self._due()
                if due <= now:
                    self._engine.stop()
                    due = now + RETRY_NS
                self._native.timer_ns = due if due < FOREVER_NS else now + LONGEST_IDLE_NS
                self._timer.wait((self._native.timer_ns - now) / 1e9)
