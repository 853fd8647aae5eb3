# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas are registered only where they fit, and the dispatch counter tells the truth."""

from __future__ import annotations

import pytest

from cpu_service.hypercalls.virtual_processor_area import VirtualProcessorAreas
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from tests.fake_machine import FakeVcpu, hypercall, make_ram

RAM = 1 << 20
VPA, DTL, SLB_SHADOW, DEREGISTER_VPA, DEREGISTER_DTL, DEREGISTER_SLB_SHADOW = (function << 45 for function in (1, 2, 3, 5, 6, 7))
AT = 0x4000
OTHER = 0x6000


class Machine:
    def __init__(self) -> None:
        self.ram = make_ram(RAM)
        self.vcpus = [FakeVcpu(0), FakeVcpu(1)]
        self.areas = VirtualProcessorAreas(self.vcpus, self.ram)

    def register(self, function: int, address: int = 0, index: int = 1) -> int:
        return hypercall(self.areas.calls(), Hcall.H_REGISTER_VPA, self.vcpus[0], function, index, address)

    def with_vpa(self) -> Machine:
        self.ram.write(AT + 4, (640).to_bytes(2, "big"))
        assert self.register(VPA, AT) == H.SUCCESS
        return self


def test_a_vpa_is_registered_for_its_vcpu_and_marked_shared() -> None:
    machine = Machine()
    machine.ram.write(AT + 9, b"\x80")
    machine.with_vpa()
    assert [vcpu.vpa for vcpu in machine.vcpus] == [0, AT]
    assert machine.ram.read(AT + 9, 1) == b"\x82"


@pytest.mark.parametrize(
    ("address", "size", "result"),
    [
        pytest.param(0, 640, H.HARDWARE, id="no address"),
        pytest.param(AT + 64, 640, H.PARAMETER, id="not a cache line"),
        pytest.param(AT, 639, H.PARAMETER, id="too small"),
        pytest.param(AT + 0xE00, 640, H.PARAMETER, id="over the page's end"),
        pytest.param(RAM, 640, H.PARAMETER, id="beyond RAM"),
        pytest.param(1 << 63, 640, H.PARAMETER, id="far beyond RAM"),
    ],
)
def test_a_bad_vpa_is_refused(address: int, size: int, result: int) -> None:
    machine = Machine()
    if address + 6 <= RAM:
        machine.ram.write(address + 4, size.to_bytes(2, "big"))
    assert machine.register(VPA, address) == result
    assert machine.vcpus[1].vpa == 0


@pytest.mark.parametrize(("function", "attribute", "minimum"), [(DTL, "dtl", 48), (SLB_SHADOW, "slb_shadow", 8)])
def test_the_other_areas_need_a_vpa_and_a_size(function: int, attribute: str, minimum: int) -> None:
    machine = Machine()
    machine.ram.write(OTHER + 4, minimum.to_bytes(4, "big"))
    assert machine.register(function, OTHER) == H.RESOURCE
    machine.with_vpa()
    assert machine.register(function, 0) == H.HARDWARE
    assert machine.register(function, OTHER) == H.SUCCESS
    assert getattr(machine.vcpus[1], attribute) == OTHER
    for size in (minimum - 1, RAM, 0xFFFF_FFFF):
        machine.ram.write(OTHER + 4, size.to_bytes(4, "big"))
        assert machine.register(function, OTHER) == H.PARAMETER


def test_a_vpa_stays_while_another_area_is_registered() -> None:
    machine = Machine().with_vpa()
    machine.ram.write(OTHER + 4, (48).to_bytes(4, "big"))
    for register, deregister in ((DTL, DEREGISTER_DTL), (SLB_SHADOW, DEREGISTER_SLB_SHADOW)):
        assert machine.register(register, OTHER) == H.SUCCESS
        assert machine.register(DEREGISTER_VPA) == H.RESOURCE
        assert machine.register(deregister) == H.SUCCESS
    assert machine.register(DEREGISTER_VPA) == H.SUCCESS
    assert machine.vcpus[1].vpa == 0


@pytest.mark.parametrize("function", [0, 4 << 45, VPA | 1, 1 << 48, 1 << 63])
def test_an_unknown_function_is_a_parameter_error(function: int) -> None:
    assert Machine().with_vpa().register(function, AT) == H.PARAMETER


@pytest.mark.parametrize("index", [2, 1 << 63])
def test_an_unknown_vcpu_is_a_parameter_error(index: int) -> None:
    machine = Machine().with_vpa()
    assert machine.register(VPA, AT, index) == H.PARAMETER
    assert machine.register(DEREGISTER_VPA, 0, index) == H.PARAMETER


def test_the_dispatch_counter_is_even_while_dispatched_and_never_goes_back() -> None:
    machine = Machine().with_vpa()
    vcpu = machine.vcpus[1]
    counters = []
    for running in (True, False, False, True, True, False):
        machine.areas.dispatched(vcpu, running)
        counters.append(machine.areas.dispatch_counter(vcpu))
    assert counters == [0, 1, 1, 2, 2, 3]


def test_the_dispatch_counter_wraps() -> None:
    machine = Machine().with_vpa()
    machine.ram.write(AT + 0x100, b"\xff" * 4)
    machine.areas.dispatched(machine.vcpus[1], True)
    assert machine.areas.dispatch_counter(machine.vcpus[1]) == 0


def test_without_a_vpa_nothing_is_counted() -> None:
    machine = Machine()
    machine.areas.dispatched(machine.vcpus[0], False)
    assert machine.areas.dispatch_counter(machine.vcpus[0]) is None
    assert machine.ram.read(0, RAM) == bytes(RAM)
