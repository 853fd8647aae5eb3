# SPDX-License-Identifier: GPL-2.0-or-later
"""The instructions of a POWER8, as its architecture has them.

Unicorn's default CPU is a POWER10, and carries out instructions that a POWER8 refuses; others it lacks, and some it carries out
wrongly. The native part takes out, adds and replaces: decoder.c, helpers.c. What makes this sure is prove(): at the start of each
process, a program of such instructions runs and must leave what the Power ISA says.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from cpu_service.engine import layout, native
from cpu_service.engine.interpose import loaded_unicorn
from cpu_service.engine.layout import UnsupportedEngineError

_ISA_3_0 = 1 << 19
"""Of the flags that say which instructions a CPU has: what came with POWER9."""
_FEWEST_TAKEN_OUT = 100


@cache
def replace_helpers() -> None:
    """Let what Unicorn translates from now on call our functions; once in a process. Raises UnsupportedEngineError."""
    ctypes.CFUNCTYPE(None)(native.address("prepare_replacements"))()
    library = loaded_unicorn()
    library.replace("tcg_gen_callN_ppc64", native.address("translate_call"))
    library.replace("raise_exception_err_ra_ppc64", native.address("raise_exception"))
    library.replace("decContextSetRounding", native.address("set_decimal_rounding"))


def become_power8(env: int) -> None:
    """Take from a CPU's decoder what a POWER8 has not, and give it what Unicorn lacks.

    Args:
        env: address of its CPUPPCState, as layout.locate() has found it; nothing has been translated yet.

    Raises UnsupportedEngineError when the decoder is not as expected.
    """
    flags = ctypes.c_uint64.from_address(env + layout.INSTRUCTION_FLAGS)
    flags2 = ctypes.c_uint64.from_address(env + layout.INSTRUCTION_FLAGS_2)
    if not flags2.value & _ISA_3_0:
        raise UnsupportedEngineError("its flags for instructions are not where they should be")
    flags2.value &= ~_ISA_3_0
    set_instructions = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)(
        native.address("set_instructions")
    )
    taken_out = set_instructions(env + layout.OPCODES, flags.value, flags2.value)
    if taken_out < _FEWEST_TAKEN_OUT:
        raise UnsupportedEngineError(f"{taken_out} instructions of its decoder are newer than a POWER8")


@dataclass(frozen=True)
class _Proof:
    """An instruction and what it must leave, from the Power ISA 2.07.

    Attributes:
        word: takes r3 and r4 or floating point registers 2 and 3, and puts its result into r5 or register 1.
        result: None when the instruction is illegal.
        flags: bits of the FPSCR that it sets.
    """

    name: str
    word: int
    operands: tuple[int, int]
    result: int | None
    flags: int = 0
    floating: bool = False


_DECIMAL_1 = 0x2238_0000_0000_0001
_PROOFS = (
    _Proof("fctiwz", 0xFC20_101E, (0x4202_A05F_2000_0000, 0), 0x7FFF_FFFF, flags=0x100, floating=True),  # 10 ** 10
    _Proof("dadd", 0xEC22_1804, (_DECIMAL_1, _DECIMAL_1), _DECIMAL_1 + 1, flags=0x4000, floating=True),
    _Proof("addg6s", 0x7CA3_2094, (9, 9), 0x6666_6666_6666_6660),
    _Proof("cdtbcd", 0x7C65_0234, (0xA5, 0), 0x125),
    _Proof("modsd", 0x7CA3_2612, (7, 4), None),
)
_MSR = 1 << 63 | 1 << 23 | 1 << 13 | 1 << 12  # SF, VSX, FP, ME
_BEFORE = (0x7CC0_0164, 0x7C43_0166, 0x7C64_0166)
"""mtmsrd r6; mtvsrd vs2,r3; mtvsrd vs3,r4."""
_AFTER = (0x7C28_0066, 0xFC00_048E, 0x7C07_0066)
"""mfvsrd r8,vs1; mffs f0; mfvsrd r7,vs0."""
_proved: list[bool] = []


def proved() -> bool:
    """Whether prove() has succeeded in this process, or in the one that it was forked from."""
    return bool(_proved)


def prove(execute: Callable[[bytes, Mapping[int, int]], bool], gpr: Sequence[int]) -> None:
    """See instructions executed.

    Args:
        execute: runs a program with some general registers; returns whether it came to its end, without a program interrupt.
        gpr: the general registers after it.

    Raises UnsupportedEngineError when one leaves what it should not.
    """
    for proof in _PROOFS:
        program = b"".join(word.to_bytes(4, "big") for word in (*_BEFORE, proof.word, *_AFTER))
        first, second = proof.operands
        legal = execute(program, {3: first, 4: second, 6: _MSR})
        result = (gpr[8] if proof.floating else gpr[5]) if legal else None
        if result != proof.result or (legal and gpr[7] & proof.flags != proof.flags):
            raise UnsupportedEngineError(f"{proof.name} gives {_shown(result)} with FPSCR {gpr[7]:#x}")
    if calls := ctypes.c_uint64.from_address(native.address("calls_not_found")).value:
        raise UnsupportedEngineError(f"{calls} calls in translated code were not where they should be")
    _proved.append(True)


def _shown(result: int | None) -> str:
    return "a program interrupt" if result is None else f"{result:#x}"
