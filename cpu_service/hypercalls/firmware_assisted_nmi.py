# SPDX-License-Identifier: GPL-2.0-or-later
"""Firmware-assisted non-maskable interrupts, FWNMI (LoPAPR 7.3, ibm,nmi-register and ibm,nmi-interlock).

A guest that has registered handlers gets a system reset interrupt there instead of at vector 0x100, with r3 the real address of a
save area that has the interrupted r3. Save areas are in the page at 0x7000, which PAPR leaves to firmware.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from cpu_service.hypercalls.declarations import LocalRtas
from cpu_service.vcpus.vcpu import Ram, Vcpu
from splitvisor.declarations.calls import Support
from splitvisor.papr.codes import RtasStatus

SYSTEM_RESET_VECTOR: Final = 0x100
HANDLER_LIMIT: Final = 32 << 20
"""Handlers are below this."""
SAVE_AREAS: Final = 0x7000
SAVE_AREA_BYTES: Final = 16
"""Of each vCPU: r3, and the beginning of an error log, which is 0: a system reset has none."""


class FirmwareAssistedNmi:
    """The handlers of one machine.

    Args:
        ram: guest RAM, at least the page of the save areas.
    """

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self.handlers: tuple[int, int] | None = None
        """Real addresses for system reset and machine check; None: the guest has registered none."""

    def reset(self) -> None:
        """Forget the handlers of the system that ran before."""
        self.handlers = None

    def restore(self, handlers: Sequence[int]) -> None:
        """Take over saved handlers, none or two. Raises ValueError."""
        if len(handlers) not in (0, 2) or not self._fit(handlers):
            raise ValueError("its handlers for system reset and machine check cannot be")
        self.handlers = (handlers[0], handlers[1]) if handlers else None

    def _fit(self, handlers: Sequence[int]) -> bool:
        return all(handler < min(HANDLER_LIMIT, self._ram.size) and not handler % 4 for handler in handlers)

    def enter_system_reset(self, vcpu: Vcpu) -> int:
        """Prepare a vCPU for a system reset interrupt; return where it goes on."""
        if self.handlers is None:
            return SYSTEM_RESET_VECTOR
        area = SAVE_AREAS + SAVE_AREA_BYTES * vcpu.index
        self._ram.write(area, struct.pack(">QQ", vcpu.gpr[3], 0))
        vcpu.gpr[3] = area
        return self.handlers[0]

    def register(self, _vcpu: Vcpu, arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """ibm,nmi-register(system reset handler, machine check handler): real addresses."""
        if not self._fit(arguments):
            return (RtasStatus.PARAMETER_ERROR,)
        self.handlers = (arguments[0], arguments[1])
        return (RtasStatus.SUCCESS,)

    def interlock(self, _vcpu: Vcpu, _arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """ibm,nmi-interlock(): the caller has read its save area."""
        return (RtasStatus.PARAMETER_ERROR if self.handlers is None else RtasStatus.SUCCESS,)

    def calls(self) -> tuple[LocalRtas, ...]:
        """The RTAS calls of this module."""
        section = "LoPAPR 7.3, FWNMI"
        note = "system resets use the handler; machine checks stay at vector 0x200, without an error log"
        return (
            LocalRtas("ibm,nmi-register", self.register, section, 2, 1, Support.PARTIAL, note),
            LocalRtas("ibm,nmi-interlock", self.interlock, section, arguments=0, returns=1),
        )
