# SPDX-License-Identifier: GPL-2.0-or-later
"""What the scheduler keeps of one vCPU."""

from __future__ import annotations

from cpu_service.engine import layout
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
        self.use(self.saved)
        self.run_state = RunState.STOPPED
        self.prodded = False
        self.vpa = self.slb_shadow = self.dtl = 0
        self.external = False
        """Level of the external interrupt line; set from any thread."""
        self.decrementer_ns = None
        self.decrementer_zero_ns = 0
        self.start_msr: int | None = None
        self.system_reset = False
        """A system reset interrupt waits for it; set from any thread."""
        self.spin = SpinWatch()

    def use(self, state: CpuState) -> None:
        """Let the registers be those of a state: the engine's, or the saved one."""
        self.state = state
        self.gpr = state.gpr
        self.spr = state.spr

    @property
    def decrementer_ns(self) -> int | None:
        """When the decrementer's interrupt is due, on the host's monotonic clock; None once it was delivered.

        It and the next are in registers that a guest cannot see, DEC's and HDEC's own, where native/decrementer.c writes them.
        """
        return self.spr[layout.SPR_DECR] or None

    @decrementer_ns.setter
    def decrementer_ns(self, due: int | None) -> None:
        self.spr[layout.SPR_DECR] = due or 0

    @property
    def decrementer_zero_ns(self) -> int:
        """When it reaches zero, or has."""
        return self.spr[layout.SPR_HDECR]

    @decrementer_zero_ns.setter
    def decrementer_zero_ns(self, zero: int) -> None:
        self.spr[layout.SPR_HDECR] = zero

    @property
    def msr(self) -> int:
        """The machine state register; a write must not change what address translation depends on."""
        return self.state.msr.value

    @msr.setter
    def msr(self, value: int) -> None:
        self.state.msr.value = value
