# SPDX-License-Identifier: GPL-2.0-or-later
"""Two back ends share a call by its key, in a real machine: devices are placed, come and go, are saved and restored."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import grpc
import pytest

from splitvisor.backend import Backend, Call, Hypercall, Key, Operand, Result, RtasCall, Session, Vm, tree_node
from splitvisor.declarations.state import StateError
from splitvisor.machine.config import Device, MachineConfig
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.testing import SCRIPTED, MachineStartError, RunningMachine, ScriptedGuest, StartMachine
from splitvisor.testing.loop import DEADLINE_S, LoopThread

pytest_plugins = ["splitvisor.testing"]

H_TALLY = 0xF240
FIRST_UNIT = 0x7100_0000


class TallySession(Session):
    """Counters at unit addresses: one for each device that the machine places here, and what is plugged in later."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        units = [device.unit_address or FIRST_UNIT + vm.slots[number] for number, device in enumerate(vm.devices)]
        self.tallies = dict.fromkeys(units, 0)

    def units(self) -> Sequence[int]:
        return tuple(self.tallies)

    def nodes(self) -> Sequence[pb.TreeNode]:
        return [tree_node(f"/vdevice/tally@{unit:x}", {"reg": unit, "compatible": "example,tally"}) for unit in self.tallies]

    def inventory(self) -> Sequence[pb.DeviceSpec]:
        return [pb.DeviceSpec(kind="tally", unit_address=unit) for unit in self.tallies]

    def plug(self, unit: int) -> None:
        self.tallies[unit] = 0
        self.vm.inventory_changed()

    def unplug(self, unit: int) -> None:
        del self.tallies[unit]
        self.vm.inventory_changed()

    def tally(self, call: Call) -> Result:
        """H_TALLY(unit address, amount): r4 = the sum."""
        unit, amount = call.arguments
        self.tallies[unit] += amount
        return Result(outputs=(self.tallies[unit],))

    def describe(self, call: Call) -> Result:
        """example,describe(address of a unit address): status, the sum."""
        return Result(returns=(RtasStatus.SUCCESS, len(self.tallies)))

    async def save(self) -> bytes:
        return json.dumps(self.tallies).encode()

    async def restore(self, state: bytes) -> None:
        try:
            self.tallies = {int(unit): value for unit, value in json.loads(state).items()}
        except ValueError as error:
            raise StateError("these are no tallies") from error

    calls = (
        Hypercall(H_TALLY, tally, 2, "tests", name="H_TALLY", key=Key(units, no_owner_result=H.NOT_FOUND)),
        RtasCall("example,describe", describe, "tests", 1, 2, operands=(Operand(4, argument=0),), key=Key(units, word=(0, 0))),
    )


LEFT, RIGHT = Backend("left", TallySession), Backend("right", TallySession)
LEFT_UNIT, RIGHT_UNIT, FIXED_UNIT = FIRST_UNIT + 60, FIRST_UNIT + 56, 0x3000_2000


@pytest.fixture
def backends() -> Sequence[Backend]:
    return [LEFT, RIGHT]


@pytest.fixture
def machine_config() -> MachineConfig:
    devices = (Device("tally", backend="left"), Device("tally", backend="right"), Device("tally", FIXED_UNIT, backend="right"))
    return replace(SCRIPTED, devices=(*SCRIPTED.devices, *devices))


def session(machine: RunningMachine, name: str) -> TallySession:
    found = machine.session(name)
    assert isinstance(found, TallySession)
    return found


def add(guest: ScriptedGuest, unit: int, amount: int) -> tuple[int, int]:
    result, (total, *_) = guest.hcall(H_TALLY, unit, amount)
    return result, total


def describe(guest: ScriptedGuest, unit: int) -> tuple[int, ...]:
    return guest.rtas("example,describe", guest.place(unit.to_bytes(4, "big")), returns=2)


def test_devices_are_where_the_machine_places_them(guest: ScriptedGuest, machine: RunningMachine) -> None:
    assert [session(machine, name).units() for name in ("left", "right")] == [(LEFT_UNIT,), (RIGHT_UNIT, FIXED_UNIT)]
    for unit in (LEFT_UNIT, RIGHT_UNIT, FIXED_UNIT):
        assert guest.property(f"/vdevice/tally@{unit:x}", "reg") == unit.to_bytes(4, "big")


def test_each_call_reaches_the_owner_of_its_key(guest: ScriptedGuest, machine: RunningMachine) -> None:
    assert [add(guest, unit, 5) for unit in (LEFT_UNIT, RIGHT_UNIT, FIXED_UNIT, LEFT_UNIT)] == [(0, 5), (0, 5), (0, 5), (0, 10)]
    assert [describe(guest, unit) for unit in (LEFT_UNIT, FIXED_UNIT)] == [(0, 1), (0, 2)]
    assert add(guest, FIRST_UNIT, 5)[0] == H.NOT_FOUND, "there is a device, and it is no tally"
    assert describe(guest, FIRST_UNIT) == (RtasStatus.PARAMETER_ERROR, 0)
    assert guest.rtas("example,describe", SCRIPTED.memory - 2, returns=2)[0] == RtasStatus.PARAMETER_ERROR
    counts = {(row.name, row.owner): row.count for row in machine.status().calls if row.name in ("H_TALLY", "example,describe")}
    assert counts == {
        ("H_TALLY", "left"): 2, ("H_TALLY", "right"): 2, ("H_TALLY", "nobody"): 1,
        ("example,describe", "left"): 1, ("example,describe", "right"): 1, ("example,describe", "nobody"): 2,
    }  # fmt: skip
    latencies = {
        row.owner: sum(sum(each.counts) for each in row.latencies) for row in machine.status().calls if row.name == "H_TALLY"
    }
    assert latencies == {"left": 2, "right": 2, "nobody": 0}


Change = Callable[[str, Callable[[TallySession], None]], None]
"""Given a back end, has its session do something, as a control interface of its own would."""


@pytest.fixture
def change(machine: RunningMachine, splitvisor_loop: LoopThread) -> Change:
    def make(backend: str, act: Callable[[TallySession], None]) -> None:
        changed = session(machine, backend)

        async def run() -> None:
            act(changed)

        splitvisor_loop.run(run())

    return make


def wait_for(guest: ScriptedGuest, unit: int, result: int) -> None:
    """Ask until a call gets this result: what a back end has now reaches cpu_service on its own."""
    deadline = time.monotonic() + DEADLINE_S
    while add(guest, unit, 0)[0] != result:
        assert time.monotonic() < deadline, f"{unit:#x} never gets {result}"


def test_devices_come_and_go_while_the_guest_runs(guest: ScriptedGuest, machine: RunningMachine, change: Change) -> None:
    new = LEFT_UNIT + 1
    assert add(guest, new, 1)[0] == H.NOT_FOUND
    change("left", lambda it: it.plug(new))
    wait_for(guest, new, H.SUCCESS)
    assert add(guest, new, 1) == (0, 1)
    change("left", lambda it: it.unplug(new))
    wait_for(guest, new, H.NOT_FOUND)
    change("right", lambda it: it.plug(new))
    wait_for(guest, new, H.SUCCESS)
    assert add(guest, new, 1) == (0, 1), "another may have it then"
    owners = {row.owner: row.count for row in machine.status().calls if row.name == "H_TALLY"}
    assert owners["left"] >= 1
    assert owners["right"] >= 1


def test_a_saved_machine_goes_on_with_the_keys_that_it_had(guest: ScriptedGuest, machine: RunningMachine, change: Change) -> None:
    new = RIGHT_UNIT + 1
    change("right", lambda it: it.plug(new))
    wait_for(guest, new, H.SUCCESS)
    for unit in (LEFT_UNIT, new):
        add(guest, unit, 40)
    machine.save_and_restore()
    restored = machine.guest
    assert [add(restored, unit, 2) for unit in (LEFT_UNIT, new, RIGHT_UNIT)] == [(0, 42), (0, 42), (0, 2)]
    assert add(restored, new + 1, 2)[0] == H.NOT_FOUND
    assert new in session(machine, "right").units()


def test_two_devices_at_one_address_do_not_start(start_machine: StartMachine, machine_config: MachineConfig) -> None:
    devices = (Device("tally", FIXED_UNIT, backend="left"), Device("tally", FIXED_UNIT, backend="right"))
    with pytest.raises(MachineStartError, match=r"H_TALLY: key 0x30002000 is claimed by left and by right") as refused:
        start_machine([LEFT, RIGHT], replace(machine_config, devices=devices))
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_device_of_a_back_end_that_is_not_there_is_named(start_machine: StartMachine, machine_config: MachineConfig) -> None:
    with pytest.raises(MachineStartError, match=r"devices\[3\]\.backend: there is no back end 'right'") as refused:
        start_machine([LEFT], machine_config)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
