# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that pauses its machine, on a real cpu_service: the reason is seen, and the device learns when the machine goes on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from splitvisor.backend import Backend, Call, Hypercall, Result, Session, Vm
from splitvisor.papr.codes import H
from splitvisor.rpc import machine_pb2, trap_pb2
from splitvisor.testing import RunningMachine, ScriptedGuest

pytest_plugins = ["splitvisor.testing"]

H_STOP, H_COUNT = 0xF180, 0xF184


class PausingSession(Session):
    """Pauses the machine when the guest wants it, and counts how often the machine went on."""

    pauses = True

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.went_on = 0

    def stop(self, call: Call) -> int:
        for number in range(call.arguments[0]):
            self.vm.machine_action(trap_pb2.MACHINE_ACTION_KIND_PAUSE, f"disk {number} is full\nand more")
        return H.SUCCESS

    def count(self, _call: Call) -> Result:
        return Result(outputs=(self.went_on,))

    def continued(self) -> None:
        self.went_on += 1

    async def save(self) -> bytes:
        return self.went_on.to_bytes(4, "big")

    async def restore(self, state: bytes) -> None:
        self.went_on = int.from_bytes(state, "big")

    async def resumed(self) -> None:
        self.vm.machine_action(trap_pb2.MACHINE_ACTION_KIND_PAUSE, "it is still full")

    calls = (
        Hypercall(H_STOP, stop, arguments=1, section="tests", name="H_STOP"),
        Hypercall(H_COUNT, count, arguments=0, section="tests", name="H_COUNT"),
    )


@pytest.fixture
def backends() -> Sequence[Backend]:
    return [Backend("pausing", PausingSession)]


def went_on(guest: ScriptedGuest) -> int:
    return guest.hcall(H_COUNT).outputs[0]


def test_the_first_reason_is_the_machines_until_it_goes_on(guest: ScriptedGuest, machine: RunningMachine) -> None:
    assert went_on(guest) == 1, "the machine was running when the back end attached"
    with ThreadPoolExecutor(1) as pool:
        for rounds in (2, 3):
            call = pool.submit(guest.hcall, H_STOP, 2)
            assert machine.wait_for_state(machine_pb2.MACHINE_STATE_PAUSED) == "disk 0 is full"
            machine.resume()
            assert call.result().result == H.SUCCESS
            assert machine.wait_for_state(machine_pb2.MACHINE_STATE_RUNNING) == ""
            assert went_on(guest) == rounds


def test_a_device_is_told_of_a_pause_that_it_did_not_ask_for(guest: ScriptedGuest, machine: RunningMachine) -> None:
    machine.pause()
    assert machine.wait_for_state(machine_pb2.MACHINE_STATE_PAUSED) == ""
    machine.resume()
    assert went_on(guest) == 2


def test_a_restored_device_that_cannot_go_on_pauses_the_machine_before_its_guest_runs(
    guest: ScriptedGuest, machine: RunningMachine
) -> None:
    assert went_on(guest) == 1
    machine.save_and_restore()
    assert machine.wait_for_state(machine_pb2.MACHINE_STATE_PAUSED) == "it is still full"
    machine.resume()
    assert went_on(machine.guest) == 2
