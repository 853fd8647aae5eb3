# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU's registers as a block of memory: the engine's own while the vCPU is loaded, a saved copy otherwise."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, MutableSequence
from typing import cast

from cpu_service.engine import layout

PORTABLE_BYTES = sum(length for _, length in layout.GUEST_STATE) + 16 * layout.SLB_ENTRIES

_Gprs = ctypes.c_uint64 * 32
_Sprs = ctypes.c_uint64 * 1024
_Slb = ctypes.c_uint64 * (3 * layout.SLB_ENTRIES)


class CpuState:
    """The fields of a CPUPPCState at a host address."""

    def __init__(self, address: int) -> None:
        self.address = address
        # Behaves like a sequence of int, which ctypes' own annotations do not say.
        self.gpr = cast(MutableSequence[int], _Gprs.from_address(address + layout.GPR))
        self.spr = cast(MutableSequence[int], _Sprs.from_address(address + layout.SPR))
        self.slb = cast(MutableSequence[int], _Slb.from_address(address + layout.SLB))
        """Three doublewords for each entry: ESID, VSID, a pointer of this process."""
        self.msr = ctypes.c_uint64.from_address(address + layout.MSR)
        self.nip = ctypes.c_uint64.from_address(address + layout.NIP)
        self.pending_interrupts = ctypes.c_uint32.from_address(address + layout.PENDING_INTERRUPTS)
        self.error_code = ctypes.c_int32.from_address(address + layout.ERROR_CODE)

    def integer_registers(self) -> bytes:
        """What code without floating point computes with: general registers, LR, CTR, CR, XER, the reservation."""
        return ctypes.string_at(self.address, layout.MSR)

    def portable(self) -> bytes:
        """What of the block is the guest's, and fits any process with the same layout."""
        parts = [ctypes.string_at(self.address + offset, length) for offset, length in layout.GUEST_STATE]
        pairs = [value for index, value in enumerate(self.slb) if index % 3 < 2]
        return b"".join((*parts, struct.pack(f"<{len(pairs)}Q", *pairs)))


class SavedState(CpuState):
    """A copy that owns its memory."""

    def __init__(self) -> None:
        self._block = ctypes.create_string_buffer(layout.ENV_SIZE)
        super().__init__(ctypes.addressof(self._block))

    def copy_from(self, other: CpuState) -> None:
        """Take over another state, whole."""
        ctypes.memmove(self.address, other.address, layout.ENV_SIZE)

    def take_portable(self, portable: bytes, page_sizes: Mapping[int, int]) -> None:
        """Take over what portable() has returned.

        Args:
            portable: the bytes.
            page_sizes: of this process, the pointer of an SLB entry by its VSID's bits for the page size.

        Raises ValueError when the bytes are not so many, or an SLB entry has a page size that there is not.
        """
        if len(portable) != PORTABLE_BYTES:
            raise ValueError(f"a vCPU's registers have {PORTABLE_BYTES} bytes, not {len(portable)}")
        position = 0
        for offset, length in layout.GUEST_STATE:
            ctypes.memmove(self.address + offset, portable[position : position + length], length)
            position += length
        pairs = list(struct.iter_unpack("<QQ", portable[position:]))
        for index, (esid, vsid) in enumerate(pairs):
            pointer = page_sizes.get(vsid & layout.SLB_PAGE_SIZE, 0) if esid | vsid else 0
            if not pointer and esid | vsid:
                raise ValueError(f"SLB entry {index} has a page size that this processor has not")
            self.slb[3 * index : 3 * index + 3] = (esid, vsid, pointer)
