# SPDX-License-Identifier: GPL-2.0-or-later
"""The watchdog's timers answer as PAPR says, expire in the guest's time, and do what the guest or the machine's owner wants."""

from __future__ import annotations

import pytest

from cpu_service.hypercalls.watchdog import LONGEST_NS, Action, Watchdog
from cpu_service.vcpus.alarms import Alarms
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import state_pb2 as pb
from tests.fake_machine import FakeVcpu, hypercall

START, STOP, QUERY, QUERY_MIGRATION = 1 << 8, 2 << 8, 3 << 8, 4 << 8
OFF, RESTART, DUMP = 1, 2, 3
LEAVE_OTHERS = 1 << 16
ALL = (1 << 64) - 1
MS = 1_000_000


class Machine:
    def __init__(self, always: Action | None = None) -> None:
        self.now = 0
        self.alarms = Alarms(lambda: self.now, lambda: None)
        self.acts: list[tuple[Action, str]] = []
        self.watchdog = Watchdog(self.alarms, lambda action, reason: self.acts.append((action, reason)), always)
        self.vcpu = FakeVcpu()

    def call(self, flags: int, number: int = 0, milliseconds: int = 0) -> int:
        return hypercall(self.watchdog.calls(), Hcall.H_WATCHDOG, self.vcpu, flags, number, milliseconds)

    def at(self, milliseconds: float) -> list[Action]:
        """Let time pass up to there; return what was done so far."""
        self.now = int(milliseconds * MS)
        self.alarms.ring(self.now)
        return [action for action, _ in self.acts]


def test_four_timers_of_at_least_a_millisecond_are_told() -> None:
    machine = Machine()
    assert (machine.call(QUERY), machine.vcpu.gpr[4]) == (H.SUCCESS, 1 << 48 | 4 << 32)
    assert (machine.call(QUERY_MIGRATION), machine.vcpu.gpr[4]) == (H.SUCCESS, 2)


@pytest.mark.parametrize(
    ("flags", "number", "milliseconds", "result"),
    [
        (START | RESTART | 1 << 17, 0, 0, H.PARAMETER),
        (START | RESTART | 1 << 63, 1, 100, H.PARAMETER),
        (0, 1, 100, H.PARAMETER),
        (5 << 8, 1, 100, H.PARAMETER),
        (START | RESTART, 0, 100, H.P2),
        (START | RESTART, 5, 0, H.P2),
        (START | RESTART, ALL, 100, H.P2),
        (START | 4, 4, 0, H.P3),
        (START | 4, 4, 1, H.PARAMETER),
        (START, 1, 100, H.PARAMETER),
        (STOP, 0, 0, H.P2),
        (STOP, 5, 0, H.P2),
        (STOP, 1, 0, H.NOOP),
        (STOP, ALL, 0, H.NOOP),
        (START | RESTART | LEAVE_OTHERS, 4, 1, H.SUCCESS),
    ],
)
def test_arguments_are_checked_in_order(flags: int, number: int, milliseconds: int, result: int) -> None:
    assert Machine().call(flags, number, milliseconds) == result


@pytest.mark.parametrize("action", [OFF, RESTART, DUMP])
def test_a_timer_expires_once_and_does_what_the_guest_has_chosen(action: int) -> None:
    machine = Machine()
    assert machine.call(START | action, 2, 100) == H.SUCCESS
    assert machine.at(99.9) == []
    assert machine.at(100) == [action]
    assert machine.acts == [(Action(action), "watchdog timer 2 expired")]
    assert machine.at(1000) == [action]
    assert machine.call(STOP, 2) == H.NOOP


def test_a_timer_that_is_started_again_begins_anew() -> None:
    machine = Machine()
    for now in (0, 90, 180):
        assert machine.at(now) == []
        assert machine.call(START | OFF, 1, 100) == H.SUCCESS
    machine.at(180)
    machine.call(START | DUMP, 1, 100)
    assert machine.at(279) == []
    assert machine.at(280) == [DUMP]


def test_stopping_one_or_all_says_whether_one_was_running() -> None:
    machine = Machine()
    for number in (1, 2, 3):
        machine.call(START | OFF, number, 100)
    assert [machine.call(STOP, 2), machine.call(STOP, 2)] == [H.SUCCESS, H.NOOP]
    assert [machine.call(STOP, ALL), machine.call(STOP, ALL)] == [H.SUCCESS, H.NOOP]
    assert machine.at(1000) == []


def test_an_expired_timer_stops_the_others_unless_it_leaves_them() -> None:
    machine = Machine()
    machine.call(START | DUMP | LEAVE_OTHERS, 1, 10)
    machine.call(START | DUMP, 2, 20)
    machine.call(START | OFF, 3, 20)
    machine.call(START | OFF, 4, 30)
    assert machine.at(15) == [DUMP]
    assert machine.at(100) == [DUMP, DUMP]
    assert machine.call(STOP, ALL) == H.NOOP


@pytest.mark.parametrize("always", [Action.RESTART, Action.POWER_OFF, Action.DUMP_RESTART, Action.LOG])
def test_the_machines_owner_overrides_the_guest(always: Action) -> None:
    machine = Machine(always)
    machine.call(START | OFF, 1, 10)
    assert machine.at(10) == [always]


def test_an_endless_timeout_is_a_long_one() -> None:
    machine = Machine()
    assert machine.call(START | OFF, 1, ALL) == H.SUCCESS
    assert machine.alarms.earliest() == LONGEST_NS


def test_a_reset_stops_all_timers() -> None:
    machine = Machine()
    machine.call(START | OFF, 1, 10)
    machine.watchdog.reset()
    assert machine.at(100) == []


def test_time_that_stood_still_does_not_count() -> None:
    machine = Machine()
    machine.call(START | OFF, 1, 10)
    machine.alarms.move(50 * MS)
    assert machine.at(59.9) == []
    assert machine.at(60) == [OFF]


def test_running_timers_come_back_with_the_time_that_was_left() -> None:
    old = Machine()
    old.call(START | DUMP | LEAVE_OTHERS, 1, 100)
    old.call(START | OFF, 4, 500)
    old.at(40)
    new = Machine()
    new.now = 1000 * MS
    new.watchdog.restore(old.watchdog.save())
    assert new.at(1059) == []
    assert new.at(1060) == [DUMP]
    assert new.at(1460) == [DUMP, OFF]


@pytest.mark.parametrize(
    "saved",
    [
        pb.SavedWatchdog(number=0, action=OFF),
        pb.SavedWatchdog(number=5, action=OFF),
        pb.SavedWatchdog(number=1, action=4),
        pb.SavedWatchdog(number=1, action=OFF, left_ns=1 << 62),
    ],
)
def test_a_saved_timer_must_be_one(saved: pb.SavedWatchdog) -> None:
    with pytest.raises(ValueError, match="cannot be as saved"):
        Machine().watchdog.restore([saved])
