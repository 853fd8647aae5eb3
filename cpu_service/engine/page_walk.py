# SPDX-License-Identifier: GPL-2.0-or-later
"""How addresses are looked up in SLB and page table: by native/page_walk.c, which each engine proves at its start.

The proof is a load through a page that differs from its address, with translation of data on. The look-up raises no exceptions:
Unicorn looks again at what it does not find.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cpu_service.engine.code_tracking import SCRATCH

_VSID, _ADDRESS, _REAL = 0x123, 0x8000, 0x4000
_VALUE = 0x1122_3344_5566_7788
_GROUP_ENTRIES, _ENTRY_BYTES = 8, 16
ENTRY = (_VSID << 28 >> 23 << 7 | _ADDRESS >> 23 << 7 | 1, _REAL | 0x192)
"""The entry of the page, for reading and writing."""
_SLBMTE_R4_R3, _ISYNC, _MTMSRD_R6, _LD_R5_R7, _SC_1 = 0x7C80_1B24, 0x4C00_012C, 0x7CC0_0164, 0xE8A7_0000, 0x4400_0022
_SLB_VALID, _MSR = 1 << 27, 1 << 63 | 1 << 12 | 1 << 4  # SF, ME, DR

PROGRAM = {
    SCRATCH: struct.pack(">5I", _SLBMTE_R4_R3, _MTMSRD_R6, _ISYNC, _LD_R5_R7, _SC_1),
    _REAL: struct.pack(">Q", _VALUE),
}
REGISTERS = {3: _SLB_VALID, 4: _VSID << 12, 6: _MSR, 7: _ADDRESS}


def place(table_bytes: int) -> int:
    """Return the offset of the entry in a page table of so many bytes."""
    groups = table_bytes // (_GROUP_ENTRIES * _ENTRY_BYTES)
    return ((_VSID ^ _ADDRESS >> 12) & groups - 1) * _GROUP_ENTRIES * _ENTRY_BYTES


def is_right(gpr: Sequence[int]) -> bool:
    """Whether the registers after PROGRAM have what the page has."""
    return gpr[5] == _VALUE
