# SPDX-License-Identifier: GPL-2.0-or-later
"""Power ISA instructions as words, by their mnemonics, and a bare machine on the real engine that runs them."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Sequence

from cpu_service.engine.engine import MSR_ME, MSR_SF, Engine
from cpu_service.hypercalls.hash_page_table import MIN_SHIFT

SC = 0x4400_0002
SC1 = 0x4400_0022
NOP = 0x6000_0000
TRAP = 0x7FE0_0008
ISYNC = 0x4C00_012C
RFID = 0x4C00_0024
BLR = 0x4E80_0020
BCTRL = 0x4E80_0421
BL_NEXT = 0x4800_0005
"""A call of the next instruction: LR has its address."""
HMT_LOW = 0x7C21_0B78
HMT_VERY_LOW = 0x7FFF_FB78
HMT_MEDIUM = 0x7C42_1378
SPR_XER, SPR_LR, SPR_CTR, SPR_DEC, SPR_SRR0, SPR_SRR1, SPR_TB = 1, 8, 9, 22, 26, 27, 268
SPR_TBU, SPR_VTB = 269, 849
SPR_SPRG1, SPR_SPRG2 = 273, 274


def addi(target: int, source: int, value: int) -> int:
    return 14 << 26 | target << 21 | source << 16 | value & 0xFFFF


def add(target: int, left: int, right: int) -> int:
    return 31 << 26 | target << 21 | left << 16 | right << 11 | 266 << 1


def li(target: int, value: int) -> int:
    return addi(target, 0, value)


def mr(target: int, source: int) -> int:
    return 31 << 26 | source << 21 | target << 16 | source << 11 | 444 << 1


def and_(target: int, left: int, right: int) -> int:
    return 31 << 26 | left << 21 | target << 16 | right << 11 | 28 << 1


def li64(target: int, value: int) -> tuple[int, ...]:
    """A whole 64-bit constant, in five instructions."""
    parts = [value >> shift & 0xFFFF for shift in (48, 32, 16, 0)]
    return (
        15 << 26 | target << 21 | parts[0],
        24 << 26 | target << 21 | target << 16 | parts[1],
        30 << 26 | target << 21 | target << 16 | 0x7C6,
        25 << 26 | target << 21 | target << 16 | parts[2],
        24 << 26 | target << 21 | target << 16 | parts[3],
    )


def mtspr(spr: int, source: int) -> int:
    return 31 << 26 | source << 21 | (spr & 31) << 16 | spr >> 5 << 11 | 467 << 1


def mfspr(target: int, spr: int) -> int:
    return 31 << 26 | target << 21 | (spr & 31) << 16 | spr >> 5 << 11 | 339 << 1


def mtmsrd(source: int) -> int:
    return 31 << 26 | source << 21 | 178 << 1


def slbmte(vsid: int, esid: int) -> int:
    return 31 << 26 | vsid << 21 | esid << 11 | 402 << 1


def ld(target: int, offset: int, base: int) -> int:
    return 58 << 26 | target << 21 | base << 16 | offset & 0xFFFC


def std(source: int, offset: int, base: int) -> int:
    return 62 << 26 | source << 21 | base << 16 | offset & 0xFFFC


def stw(source: int, offset: int, base: int) -> int:
    return 36 << 26 | source << 21 | base << 16 | offset & 0xFFFF


def branch(offset: int) -> int:
    """To an address so many bytes from this instruction's."""
    return 18 << 26 | offset & 0x3FF_FFFC


def bdnz(offset: int) -> int:
    return 0x4200_0000 | offset & 0xFFFC


def pack(words: Sequence[int]) -> bytes:
    return struct.pack(f">{len(words)}I", *words)


class BareMachine:
    """RAM and an engine, and the hypercalls that came. A hypercall with a negative r3 ends run()."""

    END = (li(3, -1), SC1)

    def __init__(self, ram_bytes: int = 1 << 20) -> None:
        self.ram = mmap.mmap(-1, ram_bytes)
        self.table = mmap.mmap(-1, 1 << MIN_SHIFT)
        self.engine = Engine(self.ram, self.table)
        self.engine.on_hypercall = self._hypercall
        self.engine.on_decrementer = self._decrementer
        self.hypercalls: list[tuple[int, ...]] = []
        """r3 to r8 of each."""
        self.decrementers: list[int] = []
        self.during: Callable[[], None] = lambda: None
        """Called in each hypercall."""

    @property
    def gpr(self) -> list[int]:
        return list(self.engine.state.gpr)

    def place(self, address: int, *words: int) -> int:
        """Put instructions into RAM; return the address after them."""
        self.ram[address : address + 4 * len(words)] = pack(words)
        return address + 4 * len(words)

    def run(self, address: int, *, msr: int = MSR_SF | MSR_ME) -> None:
        """Run from an address until the guest ends."""
        self.engine.state.nip.value = address
        self.engine.set_msr(msr)
        self.engine.run(1 << 30)

    def execute(self, *words: int, msr: int = MSR_SF | MSR_ME) -> None:
        """Put instructions at 0x1000, run them to their end."""
        self.place(0x1000, *words, *self.END)
        self.engine.invalidate_code(0x1000, 4 * len(words) + 8)
        self.run(0x1000, msr=msr)

    def _hypercall(self) -> None:
        gpr = self.engine.state.gpr
        self.hypercalls.append(tuple(gpr[3:9]))
        self.during()
        if gpr[3] >> 63:
            self.engine.stop()

    def _decrementer(self, value: int) -> None:
        self.decrementers.append(value)
