# SPDX-License-Identifier: GPL-2.0-or-later
"""The instructions are those of a POWER8, and do what the Power ISA 2.07 says; tests/fuzz/test_cpu.py tries all of them."""

from __future__ import annotations

import ctypes
import math
import struct
import subprocess
import sys

import pytest
from unicorn.ppc_const import UC_PPC_REG_CR, UC_PPC_REG_FPR0, UC_PPC_REG_XER

from cpu_service.engine import layout, native
from cpu_service.engine.engine import MSR_ME, MSR_SF
from splitvisor.devtools.fuzz_cpu.instructions import load
from tests import ppc

VSX, MSR_FP = 1 << 23, 1 << 13
MSR = MSR_SF | MSR_ME | MSR_FP | VSX
VX, VXSNAN, FI, VXVC, VXCVI, FX = 1 << 29, 1 << 24, 1 << 17, 1 << 19, 1 << 8, 1 << 31
FPRF_SHIFT = 12
NAN, SIGNALLING = 0x7FF8_0000_0000_0000, 0x7FF0_0000_0000_0001
FEX, RESERVED = 1 << 30, 1 << 11
ILLEGAL = 1 << 19
UNORDERED = 1


def double(number: float) -> int:
    return int.from_bytes(struct.pack(">d", number), "big")


class Machine(ppc.BareMachine):
    """Runs one instruction with floating point registers 2 and 3 as operands."""

    def one(self, word: int, *operands: int, fpscr: int = 0) -> None:
        uc = self.engine._uc
        self._fpscr.value = fpscr
        for register, value in enumerate(operands, UC_PPC_REG_FPR0 + 2):
            uc.reg_write(register, value)
        self.execute(word, msr=MSR)

    @property
    def result(self) -> int:
        return int(self.engine._uc.reg_read(UC_PPC_REG_FPR0 + 1))

    @property
    def fpscr(self) -> int:
        return self._fpscr.value

    @property
    def _fpscr(self) -> ctypes.c_uint64:
        """The API has half of it."""
        return ctypes.c_uint64.from_address(self.engine.state.address + layout.FPSCR)

    @property
    def fprf(self) -> int:
        return self.fpscr >> FPRF_SHIFT & 0x1F


@pytest.fixture
def machine() -> Machine:
    return Machine()


def f(extended: int, target: int = 1, b: int = 2, *, primary: int = 63, a: int = 0) -> int:
    return primary << 26 | target << 21 | a << 16 | b << 11 | extended << 1


def xx2(extended: int, target: int = 1, b: int = 2) -> int:
    return 60 << 26 | target << 21 | b << 11 | extended << 2


CONVERSIONS = {
    "fctiw": (f(14), 32, True),
    "fctiwz": (f(15), 32, True),
    "fctiwu": (f(142), 32, False),
    "fctiwuz": (f(143), 32, False),
    "fctid": (f(814), 64, True),
    "fctidz": (f(815), 64, True),
    "fctidu": (f(942), 64, False),
    "fctiduz": (f(943), 64, False),
    "xscvdpsxws": (xx2(88), -32, True),
    "xscvdpuxws": (xx2(72), -32, False),
    "xscvdpsxds": (xx2(344), 64, True),
    "xscvdpuxds": (xx2(328), 64, False),
    "xvcvdpsxws": (xx2(216), -32, True),
    "xvcvdpuxws": (xx2(200), -32, False),
    "xvcvdpsxds": (xx2(472), 64, True),
    "xvcvdpuxds": (xx2(456), 64, False),
}
"""Word, bits of the result (negative: of both halves), whether it is signed."""


@pytest.mark.parametrize("number", [1e30, -1e30, float("inf"), float("-inf"), float("nan")], ids=str)
@pytest.mark.parametrize("name", CONVERSIONS)
def test_what_fits_no_integer_gives_the_nearest_one(machine: Machine, name: str, number: float) -> None:
    word, bits, signed = CONVERSIONS[name]
    size = abs(bits)
    least, most = (-1 << size - 1, (1 << size - 1) - 1) if signed else (0, (1 << size) - 1)
    machine.one(word, NAN if math.isnan(number) else double(number))
    expected = (most if number > 0 else least) & (1 << size) - 1
    assert machine.result & (1 << size) - 1 == expected
    if bits < 0:
        assert machine.result >> 32 == expected, "of both words"
    assert machine.fpscr & (FX | VX | VXCVI) == FX | VX | VXCVI


@pytest.mark.parametrize("word", [xx2(152), xx2(136)], ids=["xvcvspsxws", "xvcvspuxws"])
def test_so_do_vectors_of_single_precision(machine: Machine, word: int) -> None:
    machine.one(word, 0x7F00_0000_7FC0_0000)
    signed = word == xx2(152)
    assert machine.result == (0x7FFF_FFFF_8000_0000 if signed else 0xFFFF_FFFF_0000_0000)


@pytest.mark.parametrize(("extended", "ordered"), [(35, False), (43, True)], ids=["xscmpudp", "xscmpodp"])
@pytest.mark.parametrize(("a", "b"), [(NAN, double(1)), (double(1), NAN), (SIGNALLING, double(1))])
def test_a_nan_is_unordered_and_nothing_else(machine: Machine, extended: int, ordered: bool, a: int, b: int) -> None:
    machine.one(60 << 26 | 2 << 16 | 3 << 11 | extended << 3, a, b, fpscr=FI)
    assert machine.engine._uc.reg_read(UC_PPC_REG_CR) >> 28 == UNORDERED
    assert machine.fprf & 0xF == UNORDERED
    flags = (VXSNAN if SIGNALLING in (a, b) else 0) | (VXVC if ordered else 0)
    assert machine.fpscr & (VXSNAN | VXVC) == flags
    assert machine.fpscr & FI, "a comparison leaves FI"


def test_moves_to_the_fpscr_keep_what_they_name_and_no_reserved_bit(machine: Machine) -> None:
    everything = 0x7_FFFF_FFFF
    enables = 0xF8
    machine.one(f(711, 1, 2, a=0) | 1 << 25, everything & ~enables)  # mtfsf with L: all fields.
    assert machine.fpscr == everything & ~(enables | FEX | RESERVED)
    machine.one(f(70, 0, 0), fpscr=3 << 32 | FX | FI)  # mtfsb0 0
    assert machine.fpscr == 3 << 32 | FI
    machine.one(f(38, 20, 0))  # mtfsb1 20: reserved.
    assert machine.fpscr == 0


def test_a_product_and_a_sum_of_single_precision_are_rounded_once(machine: Machine) -> None:
    fmadds, fmsubs = (f(extended, primary=59, a=2, b=4) | 3 << 6 for extended in (29, 28))
    less_than_half = 2.0**-12 * (1 + 2.0**-15), 2.0**-12 * (1 - 2.0**-15)
    machine.one(fmadds, *map(double, (*less_than_half, 1 + 2.0**-23)))
    assert machine.result == double(1 + 2.0**-23), "by 2**-54, which double precision does not have"
    machine.engine._uc.reg_write(UC_PPC_REG_FPR0 + 2, 3)
    machine.execute(f(711, 1, 2) | 1 << 25, f(711, 1, 2) | 1 << 25, msr=MSR)  # Towards minus infinity.
    for register in (2, 3, 4):
        machine.engine._uc.reg_write(UC_PPC_REG_FPR0 + register, 0)
    machine.execute(fmsubs, msr=MSR)
    assert machine.result == 1 << 63, "0 * 0 - 0"
    machine.engine._uc.reg_write(UC_PPC_REG_FPR0 + 2, 1)
    machine.execute(f(711, 1, 2) | 1 << 25, f(711, 1, 2) | 1 << 25, msr=MSR)  # Towards 0.
    for register, value in zip((2, 3, 4), (0x380F_FFFF_C000_0000, 0xB806_0F37_0000_0000, 0xB80F_FFFF_C000_0000), strict=True):
        machine.engine._uc.reg_write(UC_PPC_REG_FPR0 + register, value)
    machine.execute(fmadds, msr=MSR)
    assert machine.fpscr & 1 << 27, "UX: it is tiny before it is rounded to single precision"


DADD, ONE = f(2, primary=59, a=2, b=3), 0x2238_0000_0000_0001


def test_decimal_arithmetic_classifies_rounds_and_signals(machine: Machine) -> None:
    machine.one(DADD, ONE, ONE)
    assert (machine.result, machine.fprf) == (ONE + 1, 0x4)
    tiny = 0x21E8_0000_0000_0001  # 10 ** -20
    for mode, rounded in ((1, False), (6, True)):  # Towards 0, away from it.
        machine.one(DADD, ONE, tiny, fpscr=mode << 32)
        assert machine.fpscr & FI
        assert (machine.result & 0x3FF != 0) is rounded
    machine.one(DADD, 0x7800_0000_0000_0000, 0xF800_0000_0000_0000)
    assert machine.fpscr & (FX | VX | 1 << 23) == FX | VX | 1 << 23, "infinity less infinity"


def test_decimal_arithmetic_changes_nothing_but_registers(machine: Machine) -> None:
    """Unicorn has helpers for a CPU of 32 bits only, whose FPSCR is half of a pointer here; a guest could end the process."""
    state = (ctypes.c_ubyte * layout.ENV_SIZE).from_address(machine.engine.state.address)
    machine.one(ppc.NOP)
    callbacks = slice(layout.SPR_CALLBACKS, layout.AFTER_CALLBACKS)
    before = bytes(state[callbacks])
    machine.one(DADD, ONE, ONE)
    machine.one(f(130, 0, 3, primary=59, a=2), ONE, ONE)
    assert bytes(state[callbacks]) == before


@pytest.mark.parametrize("digits", [0x0000_0000_0000_00A1, 0x0000_0000_0000_000F, 0xB000_0000_0000_0000])
def test_digits_that_are_none_are_not_encoded(machine: Machine, digits: int) -> None:
    machine.one(f(834, primary=59), digits)  # denbcd 0
    assert machine.result == 0x7C00_0000_0000_0000
    assert machine.fpscr & (FX | VX | VXCVI) == FX | VX | VXCVI


def test_packed_decimal_digits(machine: Machine) -> None:
    word = 31 << 26 | 3 << 21 | 5 << 16
    for number in range(1000):
        digits = number // 100 << 8 | number // 10 % 10 << 4 | number % 10
        if not number % 37 or number > 990:
            machine.execute(*ppc.li64(3, digits << 32 | digits), word | 314 << 1)
            declets = machine.gpr[5]
            assert declets >> 32 == declets & 0xFFFF_FFFF < 1 << 10
            machine.execute(*ppc.li64(3, declets), word | 282 << 1)
            assert machine.gpr[5] == digits << 32 | digits, number
    machine.execute(*ppc.li64(3, 0x1234), *ppc.li64(4, 0xEDCC), 31 << 26 | 5 << 21 | 3 << 16 | 4 << 11 | 74 << 1)
    assert machine.gpr[5] == 0x6666_6666_6666_0000


def test_no_instruction_of_a_later_processor_is_executed(machine: Machine) -> None:
    """They give the program interrupt of an illegal instruction, whose handler here counts them."""
    refused = [each for each in load() if each.newer and not each.name.startswith("mffs") and each.name not in {"wait", "urfid"}]
    handler = (
        ppc.mfspr(28, 26), ppc.addi(28, 28, 4), ppc.mtspr(26, 28), ppc.mfspr(28, 27),
        31 << 26 | 28 << 21 | 29 << 16 | 29 << 11 | 28 << 1, ppc.addi(30, 30, 1), ppc.RFID,
    )  # fmt: skip
    machine.place(0x700, *handler)
    machine.execute(ppc.li(30, 0), *ppc.li64(29, ILLEGAL), *(each.value for each in refused), msr=MSR | 1 << 25)
    assert machine.gpr[30] == len(refused) > 370
    assert machine.gpr[29] == ILLEGAL, "of each, SRR1 had the bit of an illegal instruction"


def test_xer_has_no_bits_of_a_later_processor(machine: Machine) -> None:
    addco = 31 << 26 | 5 << 21 | 3 << 16 | 4 << 11 | 1 << 10 | 10 << 1
    machine.execute(*ppc.li64(3, (1 << 64) - 1), *ppc.li64(4, (1 << 64) - 1), addco, ppc.mfspr(6, ppc.SPR_XER))
    assert machine.gpr[6] == 1 << 29, "CA, not CA32"
    assert machine.engine._uc.reg_read(UC_PPC_REG_XER) & 0xC_0000 == 0


def test_a_build_whose_instructions_do_something_else_is_refused() -> None:
    """In a process of its own, in which nothing has been replaced."""
    script = (
        "import mmap; from cpu_service.engine import instructions; from cpu_service.engine.engine import Engine\n"
        "from cpu_service.engine.layout import UnsupportedEngineError\n"
        "instructions.replace_helpers = lambda: None\n"
        "try: Engine(mmap.mmap(-1, 1 << 20), mmap.mmap(-1, 1 << 18))\n"
        "except UnsupportedEngineError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True).stdout
    assert "this Unicorn build is not supported" in said
    assert "fctiwz gives" in said


def test_every_translated_call_was_found() -> None:
    assert ctypes.c_uint64.from_address(native.address("calls_not_found")).value == 0
