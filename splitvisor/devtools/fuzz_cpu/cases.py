# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases: an instruction with random operands, and registers that suit it."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import cache
from random import Random

from splitvisor.devtools.fuzz_cpu import values
from splitvisor.devtools.fuzz_cpu.batch import AT, ByteOrder, Group, slot_address
from splitvisor.devtools.fuzz_cpu.instructions import SPRS, Instruction

CASES_OF_A_GROUP = 8

_M64 = (1 << 64) - 1
_INVALID = 0x01F8_0700
_VE = 0x80
_D_FORM = frozenset(range(32, 56))
_DS_FORM, _DQ_FORM = frozenset((57, 58, 61, 62)), frozenset((56,))
_X_MEMORY = re.compile(r"(l[^v]|lv[^s]|st|dcb|icb|dst).*")
_RB_IS_A_NUMBER = ("lswi", "stswi")
_ATOMIC = re.compile(r"(?:l|st)([bhwdq])(?:arx|cx\.)")
_QUAD = re.compile(r"(d\w+q(\[\.\])?|(lq|stq|lfdp|stfdp).*)")
_SIZES = {"b": 1, "h": 2, "w": 4, "d": 8, "q": 16}
_LARX = {1: 52, 2: 116, 4: 20, 8: 84, 16: 276}
_POOLS = (
    (re.compile(r"bcd.*|addg6s|c.*bcd|cbc.*|d(en|de)(bcd|dpd).*"), ("packed", "decimal")),
    (re.compile(r"d(add|sub|mul|div|cmp|tst|qua|rrnd|rint|ctdp|ctqp|rsp|rdp|cff|ctf|xex|iex|scl|sc).*"), ("decimal",)),
    (re.compile(r"x[vs].*(sp|sxws|uxws)[ui]?[xmzpc]*\.?|v.*fp.*|v(ct|cf|rfi|log|exp).*|.*s[sp]\w*"), ("single", "double")),
    (re.compile(r"f.*|x.*|mtfs.*|mffs|mcrfs|l.*|st.*"), ("double", "single")),
)
"""By mnemonic, what the registers of vectors and floating point hold in most cases."""


@cache
def _kinds(name: str) -> tuple[str, ...]:
    return next((kinds for pattern, kinds in _POOLS if pattern.fullmatch(name)), ("integer",))


class Generator:
    """Makes groups of cases.

    Args:
        instructions: what to choose from, each as often as any other.
        seed: equal seeds make equal cases.
        order: of bytes.
    """

    def __init__(self, instructions: Sequence[Instruction], seed: int, order: ByteOrder) -> None:
        self._instructions = instructions
        self._random = Random(f"{seed} {order}")
        letter = "<" if order == "little" else ">"
        self._double = struct.Struct(letter + "Q")
        self._tail = struct.Struct(letter + "6Q")
        self._order = order
        self._pools = {
            kind: struct.pack(f"{letter}{values.POOL_WORDS}Q", *values.pool(kind, self._random)) for kind in values.KINDS
        }

    def groups(self, count: int) -> list[Group]:
        """Return so many groups, for the first slots of a batch."""
        return [self._group(slot_address(number)) for number in range(count)]

    def _group(self, slot: int) -> Group:
        random = self._random
        instruction = random.choice(self._instructions)
        word = instruction.value | random.getrandbits(32) & ~instruction.mask & 0xFFFF_FFFF
        name = instruction.name
        if _QUAD.fullmatch(name) and random.random() < 0.9:
            word &= ~(1 << 21 | (0 if word >> 26 == 31 or name[0] in "ls" else 1 << 16 | 1 << 11)) | instruction.value
        if name in ("mfspr", "mtspr"):
            spr = random.choice(tuple(SPRS.values()))
            word = word & ~0x001F_F800 | (spr & 31) << 16 | spr >> 5 << 11
        primary = word >> 26
        before: tuple[int, ...] = ()
        if instruction.newer and primary != 31:
            memory = False
        elif primary in _D_FORM | _DS_FORM | _DQ_FORM:
            memory = True
        else:
            memory = primary == 31 and bool(_X_MEMORY.fullmatch(name)) and name != "dss"
        if memory:
            word = self._with_base(word, name)
            atomic = _ATOMIC.fullmatch(name)
            if atomic and name.startswith("st"):
                used = {word >> 21 & 31, (word >> 21 & 31) + 1, word >> 16 & 31, word >> 11 & 31}
                free = next(each for each in (6, 8, 10, 12, 14, 16) if each not in used)
                before = (31 << 26 | free << 21 | word & 0x001F_F800 | _LARX[_SIZES[atomic[1]]] << 1,)
        goes_to = 0
        if primary in (16, 18, 19):
            word, goes_to = self._with_target(word, primary, slot)
        records = [self._record(name, word if memory else 0, goes_to) for _ in range(CASES_OF_A_GROUP)]
        return Group((*before, word), records)

    def _with_base(self, word: int, name: str) -> int:
        """Let an access have a base register, for there is no memory at address 0."""
        if word >> 26 != 31 or name in _RB_IS_A_NUMBER:
            while not word >> 16 & 31:
                word |= self._random.getrandbits(5) << 16
        return word

    def _with_target(self, word: int, primary: int, slot: int) -> tuple[int, int]:
        """Let a branch go to the slot's second exit, 8 bytes on."""
        if primary == 18:
            word = word & ~0x03FF_FFFC | (slot + 8 if word & 2 else 8)
        elif primary == 16:
            word = word & ~0xFFFC | 8
        return word, slot + 8

    def _record(self, name: str, access: int, goes_to: int) -> bytearray:
        random = self._random
        kinds = _kinds(name)
        choice = random.random()
        kind = kinds[0] if choice < 0.7 else kinds[-1] if choice < 0.85 else random.choice(tuple(self._pools))
        vectors = self._pools[kind]
        start = 32 * random.randrange((len(vectors) - 1024) // 32)
        integers = self._pools["packed" if kinds[0] == "packed" and choice < 0.5 else "integer"]
        at = 8 * random.randrange(len(integers) // 8 - 32)
        record = bytearray(integers[at : at + 256])
        record += vectors[start : start + 1024]
        link, count = goes_to or random.getrandbits(64), goes_to or random.getrandbits(64)
        record += self._tail.pack(random.getrandbits(32), self._xer(), self._fpscr(), link, count, 0)
        record += (random.choice((0, 0, 1, 0x10000)) | random.choice((0, 0, 1))).to_bytes(16, self._order)
        record += vectors[start : start + AT["MEMORY_BYTES"]]
        if access:
            self._point(record, name, access)
        return record

    def _xer(self) -> int:
        random = self._random
        reserved = random.getrandbits(32) & 0x1FFF_FF80 if random.random() < 0.1 else 0
        return random.getrandbits(3) << 29 | reserved | random.randrange(65)

    def _fpscr(self) -> int:
        random = self._random
        choice = random.random()
        if choice < 0.3:
            return random.getrandbits(2)
        value = random.getrandbits(3) << 32 | random.getrandbits(32) & 0xFFFF_F703 & ~0x0000_0800
        if choice > 0.85:
            value |= random.getrandbits(5) << 3
        if choice > 0.95:
            value |= random.getrandbits(32)
        if value & _INVALID:
            value &= ~_VE
        return value & ~(value >> 22 & 0x78)  # What is enabled has not happened, for that would interrupt the harness.

    def _point(self, record: bytearray, name: str, word: int) -> None:
        """Let the base registers of an access lead to the middle of memory."""
        random = self._random
        primary, a, b = word >> 26, word >> 16 & 31, word >> 11 & 31
        address = AT["MEMORY"] + random.randrange(96, 144)
        atomic = _ATOMIC.fullmatch(name)
        if atomic or name.startswith(("lq", "stq", "lmw", "stmw")) or random.random() < 0.4:
            align = _SIZES[atomic[1]] if atomic else 16
            if random.random() < 0.97:
                address &= -align
        offset = 0
        if primary in _D_FORM:
            offset = word & 0xFFFF
        elif primary in _DS_FORM:
            offset = word & 0xFFFC
        elif primary in _DQ_FORM:
            offset = word & 0xFFF0
        elif name not in _RB_IS_A_NUMBER:
            if not a:
                self._set(record, b, address)
                return
            if a == b:
                self._set(record, a, address // 2)
                return
            offset = random.choice((0, random.getrandbits(12), random.getrandbits(64)))
            self._set(record, b, offset)
            self._set(record, a, address - offset)
            return
        self._set(record, a, address - ((offset ^ 0x8000) - 0x8000))

    def _set(self, record: bytearray, register: int, value: int) -> None:
        self._double.pack_into(record, 8 * register, value & _M64)
