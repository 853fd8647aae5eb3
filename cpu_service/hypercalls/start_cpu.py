# SPDX-License-Identifier: GPL-2.0-or-later
"""RTAS calls that start and stop vCPUs (LoPAPR 7.3)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from cpu_service.hypercalls.declarations import LocalRtas
from cpu_service.vcpus.vcpu import Ram, RunState, Scheduler, Vcpu
from splitvisor.papr.codes import RtasStatus


class StoppedState(IntEnum):
    """What query-cpu-stopped-state answers."""

    STOPPED = 0
    RUNNING = 2


class ProcessorRtas:
    """start-cpu, stop-self and query-cpu-stopped-state of one machine."""

    def __init__(self, scheduler: Scheduler, ram: Ram) -> None:
        self._scheduler = scheduler
        self._ram = ram

    def start_cpu(self, vcpu: Vcpu, arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """start-cpu(vCPU, real address, r3): it must be stopped, the address must be an instruction's in RAM."""
        index, address, r3 = arguments
        if index >= len(self._scheduler.vcpus) or address % 4 or address >= self._ram.size:
            return (RtasStatus.PARAMETER_ERROR,)
        target = self._scheduler.vcpus[index]
        if target.run_state is not RunState.STOPPED:
            return (RtasStatus.HARDWARE_ERROR,)
        target.prodded = False
        self._scheduler.start(target, address, r3, vcpu)
        return (RtasStatus.SUCCESS,)

    def stop_self(self, vcpu: Vcpu, _arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """stop-self(): does not return. Its areas are forgotten: a later start registers them anew."""
        vcpu.vpa = vcpu.slb_shadow = vcpu.dtl = 0
        vcpu.prodded = False
        self._scheduler.halt(vcpu, RunState.STOPPED)
        return ()

    def query_cpu_stopped_state(self, _vcpu: Vcpu, arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """query-cpu-stopped-state(vCPU) -> status, 0 stopped or 2 not."""
        index = arguments[0]
        if index >= len(self._scheduler.vcpus):
            return (RtasStatus.PARAMETER_ERROR,)
        stopped = self._scheduler.vcpus[index].run_state is RunState.STOPPED
        return (RtasStatus.SUCCESS, StoppedState.STOPPED if stopped else StoppedState.RUNNING)

    def calls(self) -> tuple[LocalRtas, ...]:
        """The RTAS calls of this module."""
        section = "LoPAPR 7.3"
        return (
            LocalRtas("start-cpu", self.start_cpu, section, arguments=3, returns=1),
            LocalRtas("stop-self", self.stop_self, section, arguments=0, returns=0, note="does not return"),
            LocalRtas("query-cpu-stopped-state", self.query_cpu_stopped_state, section, arguments=1, returns=2),
        )
