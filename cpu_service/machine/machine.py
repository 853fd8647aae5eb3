# SPDX-License-Identifier: GPL-2.0-or-later
"""The one machine of a cpu_service: built from its configuration, run on a thread of its own, and its end.

The vCPU thread builds and runs everything, so that what the engine touches is touched by one thread. Others ask for state
changes (pause, stop) and get told of events through MachineObserver.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from cpu_service.engine.engine import GuestFaultError
from cpu_service.link.errors import BackendRefusedError, BackendUnavailableError
from cpu_service.link.events import LinkStatus
from cpu_service.machine.board import Board, BoardOrigin, NoMemoryError
from cpu_service.machine.boot import BootPlan, load_guest
from cpu_service.machine.crash_report import crash_report
from cpu_service.machine.placement import PlacementError
from cpu_service.routing.registry import RegistryError
from cpu_service.routing.router import CallCount
from splitvisor.errors.problem import ProblemError
from splitvisor.machine.snapshot_file import SnapshotError
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import trap_pb2 as pb

if TYPE_CHECKING:
    from splitvisor.trap.tracing import Tracing

FINAL_STATES = frozenset(
    {mpb.MACHINE_STATE_POWERED_OFF, mpb.MACHINE_STATE_CRASHED, mpb.MACHINE_STATE_STOPPED, mpb.MACHINE_STATE_FAILED}
)
RESET_TIMEOUT_S = 30.0
SAFE_POINT_TIMEOUT_S = 5.0
"""How long a save waits for a vCPU that waits for a back end."""
GO_TIMEOUT_S = 30.0
"""How long a restored machine waits until it may run."""
STOP_TIMEOUT_S = 10.0
REASON_CHARACTERS = 1000
"""Of what a back end says of a pause."""

_ALIVE = frozenset({mpb.MACHINE_STATE_RUNNING, mpb.MACHINE_STATE_PAUSED})
_T = TypeVar("_T")

log = structlog.get_logger()


class BusyError(ProblemError):
    """The machine does not stand still just now; the message says why."""


class MachineObserver(Protocol):
    """Told what the machine does; called from the machine's threads."""

    def state_changed(self, state: mpb.MachineState, detail: str) -> None:
        """A new state."""

    def backend_changed(self, link: LinkStatus) -> None:
        """A back end went away or came back."""

    def progress(self, step: str) -> None:
        """A step of starting up."""


class SavedMachine(Protocol):
    """What a machine is restored from. Each method raises SnapshotError when what was saved does not fit."""

    @property
    def resets(self) -> int:
        """How often the machine was reset."""

    def origin(self) -> BoardOrigin:
        """What the board is made with."""

    def fill(self, board: Board) -> None:
        """Restore memory, vCPUs and interrupt controllers of a new board; on the vCPU thread."""

    def check_calls(self, board: Board) -> None:
        """Check that every call that the guest knows has an owner in an attached board."""


class Machine:
    """A machine and its life.

    Args:
        config: checked already.
        incarnation: tells this life of the VM from others, later ones by a higher number.
        runtime_dir: where the file of guest RAM is made.
        observer: told of events.
        tracing: records each call that goes to a back end.
        saved: what it is restored from; None: it starts as configured.
    """

    def __init__(
        self,
        config: mpb.MachineConfig,
        incarnation: int,
        runtime_dir: Path,
        observer: MachineObserver,
        tracing: Tracing | None = None,
        saved: SavedMachine | None = None,
    ) -> None:
        self.config, self.incarnation = config, incarnation
        self.state = mpb.MACHINE_STATE_STARTING
        self.detail = ""
        self.resets = 0
        self.board: Board | None = None
        self._runtime_dir, self._observer, self._tracing = runtime_dir, observer, tracing
        self._cpu_clock: int | None = None
        self._cpu_seconds = 0.0
        self._began = time.monotonic()
        self._running = threading.Event()
        self._ended = threading.Event()
        self._action: pb.MachineAction | None = None
        self._changes = threading.RLock()
        """The state is changing."""
        self._waits_for = ""
        """Why a device wants the machine to be paused, which does not run yet."""
        self._stop_asked = False
        self._saved = saved
        self._ready = threading.Event()
        self._go = threading.Event()
        self._visit: Callable[[], None] | None = None
        self._left = ""
        """Why the machine ends here, having been saved or moved."""
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._life, name="vcpu", daemon=True)

    # Control, from any thread.

    def start(self) -> None:
        """Build and run; returns when vCPU 0 runs. Raises what building raised."""
        self._go.set()
        self.prepare()
        self.go()

    def prepare(self) -> None:
        """Build; returns when everything is in place. Raises what building raised."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def go(self) -> None:
        """Run what was prepared; returns when a vCPU runs. Raises when it cannot."""
        self._go.set()
        self._running.wait()
        if self._error is not None:
            raise self._error

    def visit(self, work: Callable[[Board], _T]) -> _T:
        """Run work on the vCPU thread while the guest and its time stand still; return its result, or raise what it raised.

        Raises BusyError when the vCPUs do not come to a stop in time, or there is nothing to visit.
        """
        result: Future[_T] = Future()

        def visit() -> None:
            if result.set_running_or_notify_cancel():
                try:
                    if self.board is None or self.state not in _ALIVE:
                        raise BusyError("the machine has ended")
                    with self.board.scheduler.standing_still():
                        result.set_result(work(self.board))
                except BaseException as error:
                    result.set_exception(error)

        if self._visit is not None or self.board is None or self.state not in _ALIVE:
            raise BusyError("the machine is not running, or is being saved already")
        self._visit = visit
        self.board.scheduler.end()
        done, _ = wait((result,), SAFE_POINT_TIMEOUT_S)
        if not done and result.cancel():
            self._visit = None
            raise BusyError("a vCPU waits for a back end", "try again")
        return result.result()

    def leave(self, why: str) -> None:
        """Have the machine end here, once the present visit is over."""
        self._left = why

    def wait_ended(self) -> None:
        """Wait until a machine that leave() ends has let go of everything; its back ends bound how long that takes."""
        self._ended.wait()

    def pause(self, reason: str = "") -> None:
        """Stop the vCPUs where they are.

        Args:
            reason: what a device waits for; empty: an operator pauses the machine. The first reason stands until it goes on.
        """
        with self._changes:
            if self.state == mpb.MACHINE_STATE_STARTING:
                self._waits_for = self._waits_for or reason
            elif self.board is not None and self.state == mpb.MACHINE_STATE_RUNNING:
                self.board.scheduler.pause()
                for link in self.board.links:
                    link.pause()
                self._change(mpb.MACHINE_STATE_PAUSED, reason)
            elif self.state == mpb.MACHINE_STATE_PAUSED and reason and not self.detail:
                self._change(mpb.MACHINE_STATE_PAUSED, reason)

    def resume(self) -> None:
        """Let paused vCPUs go on, and devices that wait for that."""
        with self._changes:
            if self.board is not None and self.state == mpb.MACHINE_STATE_PAUSED:
                self._change(mpb.MACHINE_STATE_RUNNING)
                for link in self.board.links:
                    link.go_on()
                self.board.scheduler.resume()

    def system_reset(self, vcpus: Iterable[int]) -> None:
        """Raise a system reset interrupt on some vCPUs."""
        if self.board is not None:
            for index in vcpus:
                self.board.scheduler.system_reset(self.board.scheduler.vcpus[index])

    def reset(self) -> None:
        """As if the guest had asked for a reboot."""
        self.action(pb.MachineAction(kind=pb.MACHINE_ACTION_KIND_RESET, reason="asked for"))

    def stop(self) -> None:
        """End the machine and wait for it, ten seconds at most."""
        self._stop_asked = True
        self._go.set()
        if self.board is not None:
            for link in self.board.links:
                link.abandon()
            self.board.scheduler.end()
        if self._thread.ident is not None:
            self._ended.wait(STOP_TIMEOUT_S)

    @property
    def uptime_seconds(self) -> float:
        """Seconds since the machine was started."""
        return time.monotonic() - self._began

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the vCPU thread so far."""
        clock = self._cpu_clock
        if clock is not None:
            with suppress(OSError):  # It has just ended, and left its account.
                return time.clock_gettime(clock)
        return self._cpu_seconds

    def call_counts(self) -> Sequence[CallCount]:
        """How often each call was made."""
        return self.board.router.call_counts() if self.board is not None and self.board.router is not None else ()

    # What the board reports (cpu_service.machine.board.BoardEvents).

    def action(self, action: pb.MachineAction) -> None:
        """A call or a back end changes the machine's state; the first of several counts. A pause is none of them."""
        if action.kind == pb.MACHINE_ACTION_KIND_PAUSE:
            self.pause(action.reason.partition("\n")[0][:REASON_CHARACTERS] or "a device waits")
            return
        if self._action is None:
            self._action = action
        if self.board is not None:
            self.board.scheduler.end()

    def connection_changed(self, link: LinkStatus) -> None:
        """A back end went away or came back."""
        self._observer.backend_changed(link)

    # The vCPU thread.

    def _life(self) -> None:
        structlog.contextvars.bind_contextvars(vm=self.config.name)
        self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            description = self._build()
            if self._stop_asked:
                self._end(mpb.MACHINE_STATE_STOPPED, "stopped before it ran")
                return
            with self._changes:
                self._change(mpb.MACHINE_STATE_RUNNING)
                if self._waits_for:
                    self.pause(self._waits_for)
            self._running.set()
            self._run(description)
        except GuestFaultError as error:
            assert self.board is not None
            self._end(mpb.MACHINE_STATE_CRASHED, crash_report(str(error), self.board))
        except (
            BackendUnavailableError,
            BackendRefusedError,
            RegistryError,
            PlacementError,
            SnapshotError,
            NoMemoryError,
        ) as error:
            self._fail(error)
        except Exception as error:
            log.exception("machine failed")
            self._fail(error)
        finally:
            self._cpu_seconds, self._cpu_clock = time.thread_time(), None
            if self._visit is not None:
                self._visit()
            self._ready.set()
            self._running.set()
            self._ended.set()

    def _build(self) -> str:
        """Put everything in place; return what it is that will run."""
        if self._saved is not None:
            return self._restore(self._saved)
        self._observer.progress("attaching back ends")
        self.board = Board(self.config, self.incarnation, self._runtime_dir, self)
        self.board.attach()
        self._trace_calls()
        self._observer.progress("loading the guest")
        plan = self._reset()
        self._ready.set()
        return plan.description

    def _trace_calls(self) -> None:
        if self._tracing is not None and self.board is not None and self.board.router is not None:
            self.board.router.spans = self._tracing.remote_calls(self.config.name)

    def _restore(self, saved: SavedMachine) -> str:
        """The same from a snapshot. The guest's time goes on when it may run."""
        self._observer.progress("loading the snapshot")
        self.board = Board(self.config, self.incarnation, self._runtime_dir, self, saved.origin())
        with self.board.scheduler.standing_still():
            saved.fill(self.board)
            self._observer.progress("attaching back ends")
            self.board.attach()
            self._trace_calls()
            saved.check_calls(self.board)
            self.resets = saved.resets
            self._ready.set()
            if not self._go.wait(GO_TIMEOUT_S):
                self._stop_asked = True
            if not self._stop_asked:
                for link in self.board.links:
                    link.state.resume()
        return "what was saved"

    def _reset(self) -> BootPlan:
        """Bring everything to its power-on state, with the guest in RAM."""
        assert self.board is not None
        self.resets += 1
        with_transports = [link for link in self.board.links if link.offer.transports]
        for link in with_transports:  # Their devices write memory by themselves, and must not any more when the guest is in it.
            link.reset(self.resets, RESET_TIMEOUT_S)
        self.board.power_on()
        plan = load_guest(self.config, self.board)
        for link in self.board.links:
            if link not in with_transports:
                link.reset(self.resets, RESET_TIMEOUT_S)
        self.board.scheduler.reset(plan.nip, plan.gpr, plan.msr)
        return plan

    def _run(self, description: str) -> None:
        assert self.board is not None
        log.info("guest starts", kernel=description)
        while True:
            if not self._stop_asked and self._action is None:
                self.board.scheduler.run()
            visit, self._visit = self._visit, None
            if visit is not None:
                visit()
                if self._left:
                    self._end(mpb.MACHINE_STATE_STOPPED, self._left)
                    return
            action, self._action = self._action, None
            if self._stop_asked:
                self._end(mpb.MACHINE_STATE_STOPPED, "stopped")
                return
            if action is None:
                continue
            if action.kind == pb.MACHINE_ACTION_KIND_RESET:
                log.info("machine resets", reason=action.reason)
                self._reset()
                continue
            if action.kind == pb.MACHINE_ACTION_KIND_POWER_OFF:
                self._end(mpb.MACHINE_STATE_POWERED_OFF, action.reason)
            else:
                detail = action.reason if action.reason_only else crash_report(action.reason, self.board)
                self._end(mpb.MACHINE_STATE_CRASHED, detail)
            return

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._end(mpb.MACHINE_STATE_FAILED, str(error))

    def _end(self, state: mpb.MachineState, detail: str) -> None:
        """The last state: back ends are let go before anybody is told, so that they have said all they had to."""
        if self.board is not None:
            self.board.close(detail.partition("\n")[0])
        self._change(state, detail)

    def _change(self, state: mpb.MachineState, detail: str = "") -> None:
        with self._changes:
            self.state, self.detail = state, detail
            self._observer.state_changed(state, detail)
