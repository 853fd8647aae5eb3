# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that has registered a handler for system resets finds its r3 in the save area that r3 leads to."""

from __future__ import annotations

import struct

import pytest

from cpu_service.hypercalls.firmware_assisted_nmi import FirmwareAssistedNmi
from tests.fake_machine import FakeVcpu, make_ram, rtas


def test_without_handlers_a_system_reset_goes_to_its_vector_and_changes_nothing() -> None:
    ram = make_ram()
    vcpu = FakeVcpu()
    vcpu.gpr[3] = 5
    assert FirmwareAssistedNmi(ram).enter_system_reset(vcpu) == 0x100
    assert (vcpu.gpr[3], any(ram.map[:])) == (5, False)


def test_a_registered_handler_gets_r3_in_the_vcpus_save_area() -> None:
    ram = make_ram()
    nmi = FirmwareAssistedNmi(ram)
    assert rtas(nmi.calls(), "ibm,nmi-register", FakeVcpu(), 0x1000, 0x2000) == (0,)
    for index in range(8):
        vcpu = FakeVcpu(index)
        vcpu.gpr[3] = 1 << 63 | index
        assert nmi.enter_system_reset(vcpu) == 0x1000
        assert struct.unpack_from(">QQ", ram.map, vcpu.gpr[3]) == (1 << 63 | index, 0)
        assert vcpu.gpr[3] == 0x7000 + 16 * index
    nmi.reset()
    assert nmi.enter_system_reset(FakeVcpu()) == 0x100


def test_handlers_are_instructions_below_32_mib_and_in_ram() -> None:
    nmi = FirmwareAssistedNmi(make_ram(64 << 20))
    assert rtas(nmi.calls(), "ibm,nmi-interlock", FakeVcpu()) == (-3,)
    for wrong in ((0x1000, 32 << 20), (0xFFFF_FFFF, 0x1000), (0x1002, 0x2000)):
        assert rtas(nmi.calls(), "ibm,nmi-register", FakeVcpu(), *wrong) == (-3,)
    assert rtas(nmi.calls(), "ibm,nmi-register", FakeVcpu(), 0x1000, 0x2000) == (0,)
    assert rtas(nmi.calls(), "ibm,nmi-interlock", FakeVcpu()) == (0,)
    assert rtas(FirmwareAssistedNmi(make_ram(1 << 20)).calls(), "ibm,nmi-register", FakeVcpu(), 0x1000, 1 << 20) == (-3,)


@pytest.mark.parametrize("handlers", [(1,), (0x1000, 0x2000, 0x3000), (0x1000, 1 << 40)])
def test_saved_handlers_must_fit(handlers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        FirmwareAssistedNmi(make_ram()).restore(handlers)


def test_saved_handlers_come_back() -> None:
    nmi = FirmwareAssistedNmi(make_ram())
    nmi.restore((0x1000, 0x2000))
    assert nmi.handlers == (0x1000, 0x2000)
    nmi.restore(())
    assert nmi.handlers is None
