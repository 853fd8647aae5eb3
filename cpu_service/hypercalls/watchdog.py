# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor's watchdog timers: H_WATCHDOG (LoPAPR 14, as of its version 2.12).

A guest starts a timer again and again; when it fails to, the timer does what the guest has chosen, or what the machine's
configuration says instead. A timer counts the guest's time: it stands still while the machine is paused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import structlog

from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.vcpus.alarms import Alarms
from cpu_service.vcpus.vcpu import Vcpu
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import state_pb2 as pb

TIMERS: Final = 4
SHORTEST_MS: Final = 1
LONGEST_NS: Final = 1 << 61
"""73 years. A longer timeout is cut to it."""
ALL_TIMERS: Final = (1 << 64) - 1
"""The number that stops all."""

LEAVE_OTHERS: Final = 1 << 16
"""Flag: when this timer expires the others go on."""
_OPERATION_SHIFT: Final = 8
_BYTE: Final = 0xFF
_KNOWN_FLAGS: Final = LEAVE_OTHERS | _BYTE << _OPERATION_SHIFT | _BYTE
_NS_PER_MS: Final = 1_000_000
_NO_NEED_TO_STOP: Final = 2
"""What is answered to "must timers be stopped before the partition moves?"."""

log = structlog.get_logger()


class Operation(IntEnum):
    """What a call is for."""

    START = 1
    STOP = 2
    QUERY = 3
    QUERY_MIGRATION = 4


class Action(IntEnum):
    """What happens when a timer expires."""

    POWER_OFF = 1
    RESTART = 2
    DUMP_RESTART = 3
    """A system reset interrupt on every vCPU, by which the guest dumps itself and restarts."""
    LOG = 4
    """Nothing but a line in the log; of configurations only."""


@dataclass(frozen=True)
class _Timer:
    """What a running timer was started with."""

    action: Action
    leave_others: bool


class Watchdog:
    """The timers of one machine, numbered from 1. Everything belongs to the vCPU thread.

    Args:
        alarms: of the guest's time; the timers have the numbers from 1 to TIMERS.
        act: carries out an action, for the reason that it is given.
        always: what every timer does, whatever the guest has chosen; None: as the guest says.
    """

    def __init__(self, alarms: Alarms, act: Callable[[Action, str], None], always: Action | None = None) -> None:
        self._alarms = alarms
        self._act = act
        self._always = always
        self._running: dict[int, _Timer] = {}

    def reset(self) -> None:
        """Stop all timers."""
        self._stop(tuple(self._running))

    def save(self) -> Iterable[pb.SavedWatchdog]:
        """Yield the running timers, with what is left of their time."""
        for number, timer in self._running.items():
            left = self._alarms.left_ns(number)
            if left is not None:
                yield pb.SavedWatchdog(number=number, action=timer.action, leave_others=timer.leave_others, left_ns=left)

    def restore(self, saved: Iterable[pb.SavedWatchdog]) -> None:
        """Take over running timers. Raises ValueError."""
        for each in saved:
            if not 1 <= each.number <= TIMERS or each.left_ns > LONGEST_NS or each.action not in _GUESTS_ACTIONS:
                raise ValueError(f"watchdog timer {each.number} cannot be as saved")
            self._start(each.number, _Timer(Action(each.action), each.leave_others), each.left_ns)

    def call(self, vcpu: Vcpu) -> int:
        """H_WATCHDOG(flags, number, milliseconds): start (again) or stop a timer, or ask what timers there are.

        QEMU differs: there, number 0 is not refused, and stopping all timers is H_NOOP even when some were running.
        """
        flags, number, milliseconds = vcpu.gpr[4:7]
        operation = flags >> _OPERATION_SHIFT & _BYTE
        if flags & ~_KNOWN_FLAGS:
            return H.PARAMETER
        if operation == Operation.START:
            return self._called_start(flags, number, milliseconds)
        if operation == Operation.STOP:
            return self._called_stop(number)
        if operation == Operation.QUERY:
            vcpu.gpr[4] = SHORTEST_MS << 48 | TIMERS << 32
            return H.SUCCESS
        if operation == Operation.QUERY_MIGRATION:
            vcpu.gpr[4] = _NO_NEED_TO_STOP
            return H.SUCCESS
        return H.PARAMETER

    def _called_start(self, flags: int, number: int, milliseconds: int) -> int:
        if not 1 <= number <= TIMERS:
            return H.P2
        if milliseconds < SHORTEST_MS:
            return H.P3
        action = flags & _BYTE
        if action not in _GUESTS_ACTIONS:
            return H.PARAMETER
        timer = _Timer(Action(action), bool(flags & LEAVE_OTHERS))
        self._start(number, timer, min(milliseconds * _NS_PER_MS, LONGEST_NS))
        return H.SUCCESS

    def _called_stop(self, number: int) -> int:
        if number != ALL_TIMERS and not 1 <= number <= TIMERS:
            return H.P2
        stopped = self._stop(tuple(self._running) if number == ALL_TIMERS else (number,))
        return H.SUCCESS if stopped else H.NOOP

    def _start(self, number: int, timer: _Timer, after_ns: int) -> None:
        self._running[number] = timer
        self._alarms.set(number, after_ns, lambda: self._expire(number))

    def _stop(self, numbers: Iterable[int]) -> bool:
        """Stop timers; return whether one of them was running."""
        stopped = [self._alarms.cancel(number) for number in numbers if self._running.pop(number, None) is not None]
        return any(stopped)

    def _expire(self, number: int) -> None:
        timer = self._running.pop(number)
        if not timer.leave_others:
            self._stop(tuple(self._running))
        action = timer.action if self._always is None else self._always
        reason = f"watchdog timer {number} expired"
        log.warning(reason, action=action.name.lower(), asked=timer.action.name.lower())
        self._act(action, reason)

    def calls(self) -> tuple[LocalHypercall, ...]:
        """The hypercall of the timers."""
        note = f"{TIMERS} timers; --watchdog-action overrides what they do"
        return (LocalHypercall(Hcall.H_WATCHDOG, self.call, "LoPAPR 14, H_WATCHDOG", note=note),)


_GUESTS_ACTIONS: Final = (Action.POWER_OFF, Action.RESTART, Action.DUMP_RESTART)
