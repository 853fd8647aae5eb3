# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU's registers as a block of memory: the engine's own while the vCPU is loaded, a saved copy otherwise."""

from __future__ import annotations

import ctypes
from collections.abc import MutableSequence
from typing import cast

from cpu_service.engine import layout

_Gprs = ctypes.c_uint64 * 32
_Sprs = ctypes.c_uint64 * 1024


class CpuState:
    """The fields of a CPUPPCState at a host address."""

    def __init__(self, address: int) -> None:
        self.address = address
        # Behaves like a sequence of int, which ctypes' own annotations do not say.
        self.gpr = cast(MutableSequence[int], _Gprs.from_address(address + layout.GPR))
        self.spr = cast(MutableSequence[int], _Sprs.from_address(address + layout.SPR))
        self.msr = ctypes.c_uint64.from_address(address + layout.MSR)
        self.nip = ctypes.c_uint64.from_address(address + layout.NIP)
        self.pending_interrupts = ctypes.c_uint32.from_address(address + layout.PENDING_INTERRUPTS)
        self.error_code = ctypes.c_int32.from_address(address + layout.ERROR_CODE)


class SavedState(CpuState):
    """A copy that owns its memory."""

    def __init__(self) -> None:
        self._block = ctypes.create_string_buffer(layout.ENV_SIZE)
        super().__init__(ctypes.addressof(self._block))

    def copy_from(self, other: CpuState) -> None:
        """Take over another state, whole."""
        ctypes.memmove(self.address, other.address, layout.ENV_SIZE)
