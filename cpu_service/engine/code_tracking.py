# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages of RAM hold translated code: Unicorn's own tracking, replaced by native/code_tracking.c.

Unicorn translates a guest's code once and must notice when the guest changes it. Unmodified, it misses the second store to a page
with other code, and every store through another virtual address than the code's.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Sequence

_PAGE_BYTES = 4096
_RECORD_BYTES = 16
"""struct code_page"""

SCRATCH = 0x1000
"""Where a program of the engine's own is for a moment."""
_FIRST, _SECOND = 0x2000, 0x2800  # Two functions of one page.
_SET_R5, _SET_R7 = 0x38A0_0000, 0x38E0_0000  # li
_MTCTR_R3, _MTCTR_R4, _BCTRL, _BLR, _SC_1 = 0x7C69_03A6, 0x7C89_03A6, 0x4E80_0421, 0x4E80_0020, 0x4400_0022
_STW_R8_R10, _STW_R9_R11 = 0x910A_0000, 0x912B_0000
_ADD_TO_R8, _ADD_TO_R9 = 0x3908_0001, 0x3929_0001
_STORE_BOTH = (_ADD_TO_R8, _ADD_TO_R9, _STW_R8_R10, _STW_R9_R11)
_CALL_BOTH = (_MTCTR_R3, _BCTRL, _MTCTR_R4, _BCTRL)

PROGRAM = {
    address: struct.pack(f">{len(words)}I", *words)
    for address, words in {
        SCRATCH: (*_STORE_BOTH, *_CALL_BOTH, *_STORE_BOTH, *_CALL_BOTH, _SC_1),
        _FIRST: (_SET_R5, _BLR),
        _SECOND: (_SET_R7, _BLR),
    }.items()
}
"""Writes two functions, calls them, changes what they return through another address, and calls them again."""
_ALIAS = 1 << 60  # Real mode ignores the four highest bits.
REGISTERS = {3: _FIRST, 4: _SECOND, 8: _SET_R5, 9: _SET_R7, 10: _FIRST | _ALIAS, 11: _SECOND | _ALIAS}


def is_right(gpr: Sequence[int]) -> bool:
    """Tell from the registers after PROGRAM whether it ran what it had written."""
    return gpr[5] == gpr[7] == 2


class CodePages:
    """What is known of each page of an engine's RAM. Untouched parts take no memory.

    Args:
        ram_bytes: size of RAM.
    """

    def __init__(self, ram_bytes: int) -> None:
        size = -(-ram_bytes // _PAGE_BYTES) * _RECORD_BYTES
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._buffer = ctypes.c_ubyte.from_buffer(self._memory)
        self.address = ctypes.addressof(self._buffer)

    def clear(self) -> None:
        """Forget all code; only when the engine has no translated code and an empty TLB."""
        self._memory.madvise(mmap.MADV_DONTNEED)
