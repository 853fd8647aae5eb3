# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs wait, wake, start, stop and change modes as PAPR says."""

from __future__ import annotations

import pytest

from cpu_service.hypercalls.declarations import LocalCall
from cpu_service.hypercalls.processor import ProcessorHypercalls
from cpu_service.hypercalls.start_cpu import ProcessorRtas
from cpu_service.hypercalls.virtual_processor_area import VirtualProcessorAreas
from cpu_service.vcpus.vcpu import MSR_EE, SPR_LPCR, SPR_SPRG0, RunState, Vcpu
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from tests.fake_machine import FakeScheduler, hypercall, make_ram, rtas

SELF = 0
EVERYONE = (1 << 64) - 1
VPA = 0x4000


class Machine:
    def __init__(self, vcpus: int = 3) -> None:
        self.ram = make_ram()
        self.scheduler = FakeScheduler(vcpus)
        self.areas = VirtualProcessorAreas(self.scheduler.vcpus, self.ram)
        self.calls: tuple[LocalCall, ...] = (
            *ProcessorHypercalls(self.scheduler, self.areas).calls(),
            *self.areas.calls(),
            *ProcessorRtas(self.scheduler, self.ram).calls(),
        )

    def vcpu(self, index: int) -> Vcpu:
        return self.scheduler.vcpus[index]

    def call(self, token: int, *arguments: int) -> int:
        return hypercall(self.calls, token, self.vcpu(SELF), *arguments)

    def rtas(self, name: str, *arguments: int) -> tuple[int, ...]:
        return rtas(self.calls, name, self.vcpu(SELF), *arguments)


def test_cede_waits_with_interrupts_enabled() -> None:
    machine = Machine()
    assert machine.call(Hcall.H_CEDE) == H.SUCCESS
    assert machine.vcpu(SELF).run_state is RunState.CEDED
    assert machine.vcpu(SELF).msr == MSR_EE


@pytest.mark.parametrize(("token", "arguments"), [(Hcall.H_CEDE, ()), (Hcall.H_CONFER, (SELF, 0))])
def test_a_prod_that_came_first_ends_one_wait(token: int, arguments: tuple[int, ...]) -> None:
    machine = Machine()
    assert machine.call(Hcall.H_PROD, SELF) == H.SUCCESS
    assert machine.call(token, *arguments) == H.SUCCESS
    assert machine.vcpu(SELF).run_state is RunState.RUNNING
    assert machine.call(token, *arguments) == H.SUCCESS
    assert machine.vcpu(SELF).run_state is not RunState.RUNNING


@pytest.mark.parametrize("state", [RunState.CEDED, RunState.WAITING])
def test_prod_wakes_and_is_used_up_by_that(state: RunState) -> None:
    machine = Machine()
    machine.vcpu(1).run_state = state
    assert machine.call(Hcall.H_PROD, 1) == H.SUCCESS
    assert machine.vcpu(1).run_state is RunState.RUNNING
    assert not machine.vcpu(1).prodded


def test_prod_does_not_start_a_stopped_vcpu() -> None:
    machine = Machine()
    machine.vcpu(1).run_state = RunState.STOPPED
    assert machine.call(Hcall.H_PROD, 1) == H.SUCCESS
    assert machine.vcpu(1).run_state is RunState.STOPPED
    assert not machine.vcpu(1).prodded


def test_confer_to_all_ends_the_turn() -> None:
    machine = Machine()
    assert machine.call(Hcall.H_CONFER, EVERYONE, 0) == H.SUCCESS
    assert machine.scheduler.yields == [None]


def test_confer_to_itself_waits_for_a_prod() -> None:
    machine = Machine()
    assert machine.call(Hcall.H_CONFER, SELF, 0) == H.SUCCESS
    assert machine.vcpu(SELF).run_state is RunState.WAITING


@pytest.mark.parametrize(
    ("counter", "seen", "yields"),
    [
        pytest.param(7, 7, True, id="has not run since"),
        pytest.param(7, 5, False, id="has run since"),
        pytest.param(6, 6, False, id="runs"),
    ],
)
def test_confer_gives_the_turn_to_a_vcpu_that_does_not_run(counter: int, seen: int, yields: bool) -> None:
    machine = Machine()
    machine.vcpu(1).vpa = VPA
    machine.ram.write(VPA + 0x100, counter.to_bytes(4, "big"))
    assert machine.call(Hcall.H_CONFER, 1, seen) == H.SUCCESS
    assert machine.scheduler.yields == ([machine.vcpu(1)] if yields else [])


def test_confer_without_a_vpa_does_nothing() -> None:
    machine = Machine()
    assert machine.call(Hcall.H_CONFER, 1, 1) == H.SUCCESS
    assert machine.scheduler.yields == []


@pytest.mark.parametrize("token", [Hcall.H_PROD, Hcall.H_CONFER])
@pytest.mark.parametrize("index", [3, 1 << 32, 1 << 63])
def test_an_unknown_vcpu_is_a_parameter_error(token: int, index: int) -> None:
    assert Machine().call(token, index, 0) == H.PARAMETER


def test_join_waits_until_the_last_vcpu_joins_which_goes_on() -> None:
    machine = Machine()
    calls = machine.calls
    assert hypercall(calls, Hcall.H_JOIN, machine.vcpu(1)) == H.SUCCESS
    assert machine.vcpu(1).run_state is RunState.WAITING
    machine.vcpu(2).run_state = RunState.CEDED
    machine.vcpu(2).msr = MSR_EE
    assert machine.call(Hcall.H_JOIN) == H.SUCCESS
    assert machine.vcpu(SELF).run_state is RunState.WAITING
    machine.scheduler.wake(machine.vcpu(SELF))
    machine.vcpu(2).run_state = RunState.STOPPED
    assert machine.call(Hcall.H_JOIN) == H.CONTINUE
    assert machine.vcpu(SELF).run_state is RunState.RUNNING


def test_join_needs_interrupts_disabled() -> None:
    machine = Machine()
    machine.vcpu(SELF).msr = MSR_EE
    assert machine.call(Hcall.H_JOIN) == H.BAD_MODE
    assert machine.vcpu(SELF).run_state is RunState.RUNNING


@pytest.mark.parametrize(
    ("resource", "mode", "lpcr"),
    [(4, 1, 0xC | 1 << 25), (4, 0, 0xC), (3, 0, 0xC), (3, 2, 0xC | 2 << 23), (3, 3, 0xC | 3 << 23)],
)
def test_set_mode_changes_its_bits_of_every_vcpu(resource: int, mode: int, lpcr: int) -> None:
    machine = Machine()
    own = 1 << 25 if resource == 4 else 3 << 23
    for vcpu in machine.scheduler.vcpus:
        vcpu.spr[SPR_LPCR] = 0xC | own
    assert machine.call(Hcall.H_SET_MODE, mode, resource, 0, 0) == H.SUCCESS
    assert [vcpu.spr[SPR_LPCR] for vcpu in machine.scheduler.vcpus] == [lpcr] * 3


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ((0, 1, 0, 0), H.P2),
        ((0, 2, 0, 0), H.P2),
        ((0, 5, 0, 0), H.P2),
        ((1, 4, 1, 0), H.P3),
        ((3, 3, 1, 0), H.P3),
        ((1, 4, 0, 1), H.P4),
        ((3, 3, 0, 1), H.P4),
        ((2, 4, 0, 0), H.UNSUPPORTED_FLAG),
        ((1, 3, 0, 0), H.UNSUPPORTED_FLAG),
        ((4, 3, 0, 0), H.UNSUPPORTED_FLAG),
    ],
)
def test_set_mode_refuses_by_argument(arguments: tuple[int, ...], result: int) -> None:
    machine = Machine()
    assert machine.call(Hcall.H_SET_MODE, *arguments) == result
    assert machine.vcpu(SELF).spr[SPR_LPCR] == 0


def test_sprg0_is_set() -> None:
    machine = Machine()
    assert machine.call(Hcall.H_SET_SPRG0, 0xDEAD_BEEF_0000_0001) == H.SUCCESS
    assert machine.vcpu(SELF).spr[SPR_SPRG0] == 0xDEAD_BEEF_0000_0001


@pytest.mark.parametrize("token", [Hcall.H_SET_DABR, Hcall.H_SET_XDABR])
def test_power8_has_no_dabr(token: int) -> None:
    assert Machine().call(token, 4, 3) == H.HARDWARE


def test_start_cpu_starts_a_stopped_vcpu_only() -> None:
    machine = Machine()
    machine.vcpu(1).run_state = RunState.STOPPED
    machine.vcpu(1).prodded = True
    assert machine.rtas("start-cpu", 1, 0x1000, 7) == (RtasStatus.SUCCESS,)
    assert machine.scheduler.starts == [(1, 0x1000, 7, SELF)]
    assert not machine.vcpu(1).prodded
    assert machine.rtas("start-cpu", 1, 0x1000, 7) == (RtasStatus.HARDWARE_ERROR,)
    assert len(machine.scheduler.starts) == 1


@pytest.mark.parametrize("arguments", [(3, 0x1000, 0), (0xFFFF_FFFF, 0x1000, 0), (1, 1 << 20, 0), (1, 0x1002, 0)])
def test_start_cpu_checks_vcpu_and_address(arguments: tuple[int, ...]) -> None:
    machine = Machine()
    machine.vcpu(1).run_state = RunState.STOPPED
    assert machine.rtas("start-cpu", *arguments) == (RtasStatus.PARAMETER_ERROR,)
    assert machine.scheduler.starts == []


def test_stop_self_stops_and_forgets_the_areas() -> None:
    machine = Machine()
    vcpu = machine.vcpu(SELF)
    vcpu.vpa = vcpu.slb_shadow = vcpu.dtl = VPA
    vcpu.prodded = True
    assert machine.rtas("stop-self") == ()
    assert vcpu.run_state is RunState.STOPPED
    assert (vcpu.vpa, vcpu.slb_shadow, vcpu.dtl, vcpu.prodded) == (0, 0, 0, False)


def test_stopped_state_is_told() -> None:
    machine = Machine()
    machine.vcpu(1).run_state = RunState.STOPPED
    machine.vcpu(2).run_state = RunState.CEDED
    assert [machine.rtas("query-cpu-stopped-state", index) for index in range(3)] == [(0, 2), (0, 0), (0, 2)]
    assert machine.rtas("query-cpu-stopped-state", 3) == (RtasStatus.PARAMETER_ERROR,)


@pytest.mark.parametrize(
    ("target", "interrupted", "result"),
    [
        (EVERYONE, [0, 1, 2], H.SUCCESS),
        (EVERYONE - 1, [number for number in range(3) if number != SELF], H.SUCCESS),
        (SELF, [SELF], H.SUCCESS),
        (2, [2], H.SUCCESS),
        (3, [], H.PARAMETER),
        (EVERYONE - 2, [], H.PARAMETER),
    ],
)
def test_a_system_reset_is_for_one_all_or_all_others(target: int, interrupted: list[int], result: int) -> None:
    machine = Machine()
    assert machine.call(Hcall.H_SIGNAL_SYS_RESET, target) == result
    assert machine.scheduler.system_resets == interrupted
