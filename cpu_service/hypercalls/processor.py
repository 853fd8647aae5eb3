# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypercalls by which a vCPU waits, wakes or interrupts another, or changes its own registers (LoPAPR 14.5.4.3, 14.11.3)."""

from __future__ import annotations

from typing import Final

from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.hypercalls.virtual_processor_area import VirtualProcessorAreas
from cpu_service.vcpus.vcpu import MSR_EE, SPR_LPCR, SPR_SPRG0, RunState, Scheduler, Vcpu
from splitvisor.declarations.calls import Support
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall

ALL_VCPUS: Final = (1 << 64) - 1
"""H_CONFER's target: whoever can use the time; H_SIGNAL_SYS_RESET's: the caller too."""
ALL_OTHERS: Final = (1 << 64) - 2
"""H_SIGNAL_SYS_RESET's target: all but the caller."""

# H_SET_MODE: resources and what they do to LPCR.
RESOURCE_INTERRUPT_LOCATION: Final = 3
RESOURCE_ENDIANNESS: Final = 4
LPCR_ILE: Final = 1 << 25
LPCR_AIL_SHIFT: Final = 23
LPCR_AIL: Final = 3 << LPCR_AIL_SHIFT

SETTINGS: Final = {
    RESOURCE_INTERRUPT_LOCATION: (LPCR_AIL, {0: 0, 2: 2 << LPCR_AIL_SHIFT, 3: 3 << LPCR_AIL_SHIFT}),
    RESOURCE_ENDIANNESS: (LPCR_ILE, {0: 0, 1: LPCR_ILE}),
}
"""Of each resource: the bits of LPCR that it owns, and their value by mode."""


class ProcessorHypercalls:
    """Waiting, waking and modes of the vCPUs of one machine."""

    def __init__(self, scheduler: Scheduler, areas: VirtualProcessorAreas) -> None:
        self._scheduler = scheduler
        self._areas = areas

    def _wait(self, vcpu: Vcpu, state: RunState) -> int:
        """Halt, unless an H_PROD came first: that one is used up."""
        if vcpu.prodded:
            vcpu.prodded = False
        else:
            self._scheduler.halt(vcpu, state)
        return H.SUCCESS

    def cede(self, vcpu: Vcpu) -> int:
        """H_CEDE(): wait for an interrupt or H_PROD, with interrupts enabled."""
        vcpu.msr |= MSR_EE
        return self._wait(vcpu, RunState.CEDED)

    def prod(self, vcpu: Vcpu) -> int:
        """H_PROD(vCPU): wake it; if it runs, its next wait ends at once. A stopped one stays so: RTAS start-cpu starts it."""
        index = vcpu.gpr[4]
        if index >= len(self._scheduler.vcpus):
            return H.PARAMETER
        target = self._scheduler.vcpus[index]
        if target.run_state in (RunState.CEDED, RunState.WAITING):
            self._scheduler.wake(target)
        elif target.run_state is RunState.RUNNING:
            target.prodded = True
        return H.SUCCESS

    def confer(self, vcpu: Vcpu) -> int:
        """H_CONFER(vCPU, its dispatch counter): give it this turn, if it has not run since the counter was read.

        Given to itself, wait for H_PROD; given to all (-1), end the turn.
        """
        index, counter = vcpu.gpr[4:6]
        if index == ALL_VCPUS:
            self._scheduler.yield_turn(None)
            return H.SUCCESS
        if index >= len(self._scheduler.vcpus):
            return H.PARAMETER
        target = self._scheduler.vcpus[index]
        if target is vcpu:
            return self._wait(vcpu, RunState.WAITING)
        now = self._areas.dispatch_counter(target)
        if now is not None and now & 1 and now == counter & 0xFFFF_FFFF:
            self._scheduler.yield_turn(target)
        return H.SUCCESS

    def signal_system_reset(self, vcpu: Vcpu) -> int:
        """H_SIGNAL_SYS_RESET(target): a system reset interrupt for one vCPU, for all (-1) or for all others (-2).

        A vCPU that waits goes on with it. One that is stopped gets none, and that is no error.
        """
        target, vcpus = vcpu.gpr[4], self._scheduler.vcpus
        if target in (ALL_VCPUS, ALL_OTHERS):
            targets = [each for each in vcpus if target == ALL_VCPUS or each is not vcpu]
        elif target < len(vcpus):
            targets = [vcpus[target]]
        else:
            return H.PARAMETER
        for each in targets:
            self._scheduler.system_reset(each)
        return H.SUCCESS

    @staticmethod
    def _joined(vcpu: Vcpu) -> bool:
        """Whether only another vCPU can make this one run."""
        if vcpu.run_state is RunState.WAITING:
            return not vcpu.msr & MSR_EE
        return vcpu.run_state is RunState.STOPPED

    def join(self, vcpu: Vcpu) -> int:
        """H_JOIN(): wait for H_PROD, with interrupts disabled; the last vCPU to join goes on with H_CONTINUE."""
        if vcpu.msr & MSR_EE:
            return H.BAD_MODE
        if all(other is vcpu or self._joined(other) for other in self._scheduler.vcpus):
            return H.CONTINUE
        return self._wait(vcpu, RunState.WAITING)

    def set_mode(self, vcpu: Vcpu) -> int:
        """H_SET_MODE(mode, resource, value 1, value 2): where interrupts go and in which endianness, for all vCPUs.

        Breakpoint registers (resources 1 and 2) are not offered.
        """
        mode, resource, value1, value2 = vcpu.gpr[4:8]
        if resource not in SETTINGS:
            return H.P2
        if value1:
            return H.P3
        if value2:
            return H.P4
        mask, values = SETTINGS[resource]
        if mode not in values:
            return H.UNSUPPORTED_FLAG
        value = values[mode]
        self._scheduler.each_spr(SPR_LPCR, lambda lpcr: lpcr & ~mask | value)
        return H.SUCCESS

    def set_sprg0(self, vcpu: Vcpu) -> int:
        """H_SET_SPRG0(value)."""
        vcpu.spr[SPR_SPRG0] = vcpu.gpr[4]
        return H.SUCCESS

    def no_dabr(self, _vcpu: Vcpu) -> int:
        """H_SET_DABR and H_SET_XDABR: POWER8 has no such register."""
        return H.HARDWARE

    def calls(self) -> tuple[LocalHypercall, ...]:
        """The hypercalls of this module."""
        registers = "LoPAPR 14.5.4.3"
        sharing = "LoPAPR 14.11.3"
        dabr = "POWER8 has no DABR: H_HARDWARE"
        modes = "interrupt location and endianness; breakpoint registers are refused with H_P2"
        return (
            LocalHypercall(Hcall.H_CEDE, self.cede, sharing),
            LocalHypercall(Hcall.H_PROD, self.prod, sharing),
            LocalHypercall(Hcall.H_CONFER, self.confer, sharing),
            LocalHypercall(Hcall.H_JOIN, self.join, "LoPAPR 14, H_JOIN"),
            LocalHypercall(Hcall.H_SIGNAL_SYS_RESET, self.signal_system_reset, "LoPAPR 14, H_SIGNAL_SYS_RESET"),
            LocalHypercall(Hcall.H_SET_MODE, self.set_mode, registers, Support.PARTIAL, modes),
            LocalHypercall(Hcall.H_SET_SPRG0, self.set_sprg0, registers),
            LocalHypercall(Hcall.H_SET_DABR, self.no_dabr, registers, Support.REFUSED, dabr),
            LocalHypercall(Hcall.H_SET_XDABR, self.no_dabr, registers, Support.REFUSED, dabr),
        )
