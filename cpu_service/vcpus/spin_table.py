# SPDX-License-Identifier: GPL-2.0-or-later
"""The spin table by which a guest starts its secondary vCPUs without a call (ePAPR 1.1, 5.5.2).

Each vCPU has an entry, of which the device tree has the address (`cpu-release-addr`). The guest writes r3 there, then where the
vCPU is to begin. On real machines secondary processors look at their entry again and again. Here they are stopped, and what is
seen is the store: the engine ends a run that stores into the page of the table.
"""

from __future__ import annotations

import struct
from typing import Final

from cpu_service.vcpus.vcpu import Ram, RunState, Scheduler, Vcpu

TABLE_BYTES: Final = 4096
"""The table has a page of its own."""
ENTRY_BYTES: Final = 32
NOT_RELEASED: Final = 1
"""Bit of the address, and the whole address before the guest has written one."""
SPR_PIR: Final = 0x3FF

_ENTRY = struct.Struct(">QQIIQ")
"""Address, r3, reserved, PIR, reserved."""
_INSTRUCTION: Final = (1 << 64) - 4


def entry_address(table: int, vcpu: int) -> int:
    """Return the address of a vCPU's entry in the table at an address."""
    return table + ENTRY_BYTES * vcpu


class SpinTable:
    """The table of one machine.

    Args:
        ram: guest RAM, all of which a started vCPU can reach.
        scheduler: starts vCPUs.
        address: of the table, a multiple of its size.
    """

    def __init__(self, ram: Ram, scheduler: Scheduler, address: int) -> None:
        self._ram = ram
        self._scheduler = scheduler
        self.address = address
        self._released: set[int] = set()

    def fill(self) -> None:
        """Write the table as a guest finds it."""
        entries = [_ENTRY.pack(NOT_RELEASED, vcpu.index, 0, vcpu.index, 0) for vcpu in self._scheduler.vcpus]
        self._ram.write(self.address, b"".join(entries).ljust(TABLE_BYTES, b"\0"))
        self.resume()

    def resume(self) -> None:
        """Go on with the table that RAM has."""
        self._released = {vcpu.index for vcpu in self._scheduler.vcpus if self._is_released(vcpu)}

    def _entry(self, vcpu: Vcpu) -> tuple[int, ...]:
        return _ENTRY.unpack(self._ram.read(entry_address(self.address, vcpu.index), ENTRY_BYTES))

    def _is_released(self, vcpu: Vcpu) -> bool:
        return not self._entry(vcpu)[0] & NOT_RELEASED

    def stored(self, starter: Vcpu) -> None:
        """The guest has stored into the table: start each vCPU that is released by that, once.

        It begins in 64-bit real mode, big endian, with r3 and PIR of its entry, r7 the size of the memory that it can reach, and
        all other general registers 0. An address that is written in two words counts once its second, lower one is there.
        """
        for vcpu in self._scheduler.vcpus:
            if vcpu.index in self._released or vcpu.run_state is not RunState.STOPPED or not self._is_released(vcpu):
                continue
            address, r3, _, pir, _ = self._entry(vcpu)
            self._released.add(vcpu.index)
            self._scheduler.start(vcpu, address & _INSTRUCTION, r3, starter)
            vcpu.gpr[7] = self._ram.size
            vcpu.spr[SPR_PIR] = pir
