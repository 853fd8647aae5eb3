# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest can be stopped: before each block of translated code, and nowhere else; native/exit_check.c.

A stop must be exact. One in the middle of a block would run an instruction twice, one that is missed would let a guest run for
ever. So each engine proves at its start that a loop of one block, which runs without ever leaving translated code, ends after
exactly the turn in which it was asked to, and goes on from there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cpu_service.engine.code_tracking import SCRATCH

WATCHED = 0x6000
"""A page whose stores ask for a stop."""
_TURNS, _STOPPED_AFTER, _PAGE = 16, 4, 0x1000
_FIRST = WATCHED - (_STOPPED_AFTER - 1) * _PAGE
_ADD_1_TO_R5, _STW_R8_R10, _ADD_R11_TO_R10 = 0x38A5_0001, 0x910A_0000, 0x7D4A_5A14
_LOOP = (_ADD_1_TO_R5, _STW_R8_R10, _ADD_R11_TO_R10)
_MTCTR_R3, _BDNZ, _SC_1 = 0x7C69_03A6, 0x4200_0000 | -4 * len(_LOOP) & 0xFFFC, 0x4400_0022
_BEFORE = (_MTCTR_R3,)

PROGRAM = {
    SCRATCH: struct.pack(f">{len(_BEFORE) + len(_LOOP) + 2}I", *_BEFORE, *_LOOP, _BDNZ, _SC_1),
    **{_FIRST + _PAGE * turn: bytes(4) for turn in range(_TURNS)},
}
"""Stores into one page after the other; the fourth is watched. The words that it stores to are part of it."""
REGISTERS = {3: _TURNS, 10: _FIRST, 11: _PAGE}
_LOOP_ADDRESS = SCRATCH + 4 * len(_BEFORE)


def has_stopped(gpr: Sequence[int], nip: int) -> bool:
    """Whether the registers are those of a loop that has ended where it was asked to."""
    return gpr[5] == _STOPPED_AFTER and nip == _LOOP_ADDRESS


def has_gone_on(gpr: Sequence[int]) -> bool:
    """Whether the registers are those after the end of the program: every turn was made once."""
    return gpr[5] == _TURNS and gpr[10] == _FIRST + _PAGE * _TURNS
