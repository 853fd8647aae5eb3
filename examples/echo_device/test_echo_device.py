# SPDX-License-Identifier: GPL-2.0-or-later
"""The echo device, with a guest that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from examples.echo_device.echo_device import BACKEND, H_ECHO_RECEIVE, H_ECHO_SEND, MAX_BYTES, SOURCE, UNIT
from splitvisor.backend import Backend
from splitvisor.machine.config import MachineConfig
from splitvisor.papr.codes import H
from splitvisor.testing import SCRIPTED, RunningMachine, ScriptedGuest, Traps

pytest_plugins = ["splitvisor.testing"]


@pytest.fixture
def backends() -> Sequence[Backend]:
    return [BACKEND]


@pytest.fixture(params=[True, False], ids=["shared-memory", "through-the-stream"])
def machine_config(request: pytest.FixtureRequest) -> MachineConfig:
    return replace(SCRIPTED, shared_memory=request.param)


def test_what_is_sent_comes_back_turned_round(guest: ScriptedGuest, traps: Traps) -> None:
    sent, received = guest.place(b"stressed"), guest.allocate(16)
    assert guest.hcall(H_ECHO_SEND, UNIT, sent, 8).result == H.SUCCESS
    result, outputs = guest.hcall(H_ECHO_RECEIVE, UNIT, received, 16)
    assert (result, outputs[0]) == (H.SUCCESS, 8)
    assert guest.memory[received : received + 9] == b"desserts\0"
    assert [trap.name for trap in traps] == ["H_ECHO_SEND", "H_ECHO_RECEIVE"]
    assert traps[0].arguments == (UNIT, sent, 8)


def test_sending_interrupts(guest: ScriptedGuest) -> None:
    guest.route_interrupt(SOURCE)
    assert guest.accept_interrupt(timeout=0) is None
    guest.hcall(H_ECHO_SEND, UNIT, 0, 1)
    assert guest.accept_interrupt() == SOURCE


def test_the_node_is_in_the_device_tree(guest: ScriptedGuest) -> None:
    path = f"/vdevice/echo@{UNIT:x}"
    assert guest.property(path, "compatible") == b"example,echo\0"
    assert guest.property(path, "interrupts") == bytes.fromhex(f"0000{SOURCE:04x} 00000000")


@pytest.mark.parametrize(
    ("unit", "address", "length"), [(1, 0, 1), (UNIT, 0, MAX_BYTES + 1), (UNIT, (1 << 64) - 4, 8), (UNIT, SCRIPTED.memory - 4, 8)]
)
def test_what_makes_no_sense_is_refused(guest: ScriptedGuest, unit: int, address: int, length: int) -> None:
    assert guest.hcall(H_ECHO_SEND, unit, address, length).result == H.PARAMETER


def test_a_reset_empties_it(guest: ScriptedGuest, machine: RunningMachine) -> None:
    guest.hcall(H_ECHO_SEND, UNIT, 0, 100)
    machine.reset()
    assert guest.hcall(H_ECHO_RECEIVE, UNIT, 0, 0).outputs[0] == 0
