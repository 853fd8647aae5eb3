# SPDX-License-Identifier: GPL-2.0-or-later
"""What the scheduler keeps of one vCPU."""

from __future__ import annotations

from cpu_service.engine.state import CpuState, SavedState
from cpu_service.vcpus.spinning import SpinWatch
from cpu_service.vcpus.vcpu import RunState


class VcpuContext:
    """One vCPU (see cpu_service.vcpus.vcpu.Vcpu): loaded in the engine, or saved."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.saved = SavedState()
        self.power_on()

    def power_on(self) -> None:
        """The state before the machine starts; registers are set when it is."""
        self.run_state = RunState.STOPPED
        self.prodded = False
        self.vpa = self.slb_shadow = self.dtl = 0
        self.external = False
        """Level of the external interrupt line; set from any thread."""
        self.decrementer_ns: int | None = None
        """When the decrementer's interrupt is due; None once it was delivered."""
        self.decrementer_zero_ns = 0
        self.start_msr: int | None = None
        self.system_reset = False
        """A system reset interrupt waits for it; set from any thread."""
        self.spin = SpinWatch()
        self.use(self.saved)

    def use(self, state: CpuState) -> None:
        """Let the registers be those of a state: the engine's, or the saved one."""
        self.state = state
        self.gpr = state.gpr
        self.spr = state.spr

    @property
    def msr(self) -> int:
        """The machine state register; a write must not change what address translation depends on."""
        return self.state.msr.value

    @msr.setter
    def msr(self, value: int) -> None:
        self.state.msr.value = value
