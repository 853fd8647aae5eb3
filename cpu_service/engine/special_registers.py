# SPDX-License-Identifier: GPL-2.0-or-later
"""Special purpose registers of a POWER8 below a hypervisor, out of those of Unicorn's POWER10.

Each register has functions that translate an access to it, by privilege. Changing them is all that is needed: they are exchanged
with another register's, with the one that makes an access privileged, or taken away, which leaves what the architecture says of
registers that do not exist.
"""

from __future__ import annotations

import ctypes

from cpu_service.engine import layout, native
from splitvisor.papr.processor import TIMEBASE_HZ

_DECREMENTER_UNDERFLOW_LEVEL = 1 << 2 | 1 << 4
"""The interrupt stays pending until the guest writes the decrementer anew, as on every 64-bit server processor."""

_POWER9_REGISTERS = (48, 144, 855)
"""PID, TIDR, PSSCR. Those that only a hypervisor may use stay privileged to it."""
_UNWRITABLE = (25, 284, 285, 286)
"""SDR1, TBL, TBU and TBU40: a hypervisor's to write. The engine lacks them, or lets a supervisor write them."""
_UNREADABLE = (25,)
_TIME_BASE, _TIME_BASE_UPPER = (layout.SPR_TB, 284), (269, 285)
"""TB and TBU, and the numbers by which a hypervisor writes them: reading those gives the same."""
_VTB = 849
_NOT_FOR_PROGRAMS = (layout.SPR_PURR, 308)
"""PURR and SPURR: a program in problem state may not read them (Power ISA 2.07, book III-S, figure 18)."""


class Callbacks:
    """The functions that translate accesses to special purpose registers.

    Args:
        env: host address of the CPU's state.
    """

    def __init__(self, env: int) -> None:
        self._words = (ctypes.c_uint64 * (1024 * layout.SPR_CALLBACK_SIZE // 8)).from_address(env + layout.SPR_CALLBACKS)
        self._no_access = self.get(layout.SPR_DECR, layout.WRITE_SLOTS[0])

    def get(self, spr: int, slot: int) -> int:
        """Return the function for one kind of access: one of layout.READ_SLOTS and WRITE_SLOTS."""
        return self._words[(layout.SPR_CALLBACK_SIZE * spr + slot) // 8]

    def set(self, spr: int, slot: int, function: int) -> None:
        """Let another function translate one kind of access; 0: there is no such register."""
        self._words[(layout.SPR_CALLBACK_SIZE * spr + slot) // 8] = function

    def forbid(self, spr: int, *slots: int) -> None:
        """Make accesses privileged, or privileged to a hypervisor."""
        for slot in slots:
            self.set(spr, slot, self._no_access)

    def become_power8(self) -> None:
        """Take away what POWER8 has not, and from the guest what is its hypervisor's."""
        for spr in _POWER9_REGISTERS:
            for slot in (*layout.READ_SLOTS, *layout.WRITE_SLOTS):
                self.set(spr, slot, 0)
        for spr in _UNWRITABLE:
            self.forbid(spr, *layout.WRITE_SLOTS)
        for spr in _UNREADABLE:
            self.forbid(spr, *layout.READ_SLOTS)
        for spr in _NOT_FOR_PROGRAMS:
            self.forbid(spr, layout.READ_SLOTS[0])

    def give_time(self) -> None:
        """Let TB, TBU, VTB and DEC count with the guest's time.

        In the wheel, VTB counts from the host's start, and the others are plain storage. TB and VTB are read by PURR's functions
        and DEC by HDEC's, which compute from the host's monotonic clock; TBU is read by ours (native/time_base.c), and
        DEC is written by HDEC's function, whose helper is ours (native/decrementer.c).
        """
        read_purr = self.get(layout.SPR_PURR, layout.READ_SLOTS[-1])
        ctypes.c_uint64.from_address(native.address("translate_read_purr")).value = read_purr
        read_tbu = native.address("translate_read_tbu")
        read_hdecr, write_hdecr = (self.get(layout.SPR_HDECR, slots[-1]) for slots in (layout.READ_SLOTS, layout.WRITE_SLOTS))
        for slot in layout.READ_SLOTS:
            for spr in _TIME_BASE:
                self.set(spr, slot, read_purr)
            for spr in _TIME_BASE_UPPER:
                self.set(spr, slot, read_tbu)
        for slot in layout.READ_SLOTS[1:]:
            self.set(_VTB, slot, read_purr)
            self.set(layout.SPR_DECR, slot, read_hdecr)
        for slot in layout.WRITE_SLOTS[1:]:
            self.set(layout.SPR_DECR, slot, write_hdecr)


class Clock:
    """The structure of a CPU's timers, which the wheel leaves out.

    Args:
        env: host address of the CPU's state, which gets a pointer to it.
    """

    def __init__(self, env: int) -> None:
        self._structure = (ctypes.c_uint8 * layout.TB_ENV_SIZE)()
        self._timer = (ctypes.c_uint8 * 64)()
        base = ctypes.addressof(self._structure)
        ctypes.c_uint64.from_address(base + layout.TB_ENV_DECR_TIMER).value = ctypes.addressof(self._timer)
        ctypes.c_uint32.from_address(base + layout.TB_ENV_FLAGS).value = _DECREMENTER_UNDERFLOW_LEVEL
        ctypes.c_uint32.from_address(base + layout.TB_ENV_FREQUENCY).value = TIMEBASE_HZ
        ctypes.c_uint32.from_address(base + layout.TB_ENV_DECR_FREQUENCY).value = TIMEBASE_HZ
        ctypes.c_uint64.from_address(env + layout.TB_ENV).value = base
        self.timebase_offset = ctypes.c_int64.from_address(base + layout.TB_ENV_PURR_OFFSET)
        """Ticks to add to the host's monotonic clock."""
        self.decrementer_zero_ns = ctypes.c_uint64.from_address(base + layout.TB_ENV_HDECR_NEXT)
        """Monotonic time in nanoseconds at which the loaded vCPU's decrementer is 0."""
