# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's watchdog timers on a real machine: they reset it or power it off, and outlive a snapshot."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.testing import SCRIPTED, GuestError, RunningMachine, StartMachine

pytest_plugins = ["splitvisor.testing"]

START, STOP = 1 << 8, 2 << 8
OFF, RESTART = 1, 2
SOON_MS, LATER_MS = 50, 600_000
DEADLINE_S = 30.0


def start_timer(machine: RunningMachine, action: int, milliseconds: int) -> None:
    assert machine.guest.hcall(Hcall.H_WATCHDOG, START | action, 1, milliseconds).result == H.SUCCESS


def wait_for_reset(machine: RunningMachine) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while machine.status().resets != 2:
        assert time.monotonic() < deadline, "the machine is not reset"


@pytest.mark.parametrize(("action", "override"), [(RESTART, ""), (OFF, "reset")])
def test_an_expired_timer_resets_the_machine_and_is_gone(start_machine: StartMachine, action: int, override: str) -> None:
    machine = start_machine(config=replace(SCRIPTED, watchdog_action=override))
    start_timer(machine, action, SOON_MS)
    wait_for_reset(machine)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            assert machine.guest.hcall(Hcall.H_WATCHDOG, STOP, (1 << 64) - 1).result == H.NOOP
            return
        except GuestError:  # The call was under way when the machine was reset.
            assert time.monotonic() < deadline


@pytest.mark.parametrize(("action", "override"), [(OFF, ""), (RESTART, "poweroff")])
def test_an_expired_timer_powers_the_machine_off(start_machine: StartMachine, action: int, override: str) -> None:
    machine = start_machine(config=replace(SCRIPTED, watchdog_action=override))
    start_timer(machine, action, SOON_MS)
    assert machine.wait_for_state(pb.MACHINE_STATE_POWERED_OFF) == "watchdog timer 1 expired"


def test_a_timer_runs_on_after_a_snapshot(machine: RunningMachine) -> None:
    start_timer(machine, OFF, LATER_MS)
    machine.save_and_restore()
    assert machine.guest.hcall(Hcall.H_WATCHDOG, STOP, 1).result == H.SUCCESS
    assert machine.guest.hcall(Hcall.H_WATCHDOG, STOP, 1).result == H.NOOP


def test_linux_sees_that_there_are_timers(machine: RunningMachine) -> None:
    functions = machine.guest.property("/rtas", "ibm,hypertas-functions")
    assert functions is not None
    assert {b"hcall-watchdog", b"hcall-hpt-resize"} <= set(functions.split(b"\0"))
