# SPDX-License-Identifier: GPL-2.0-or-later
"""The instructions of a POWER8 and of its successors, and which are not tried, with the reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from splitvisor.devtools.fuzz_cpu.batch import ByteOrder

TABLE = Path(__file__).with_name("instructions.txt")

LEFT_OUT = (
    ("mtmsrd?|mfmsr|rfid?|hrfid|rfebb|doze|nap|sleep|rvwinkle|waitasec|attn", "privileged, or waits"),
    ("slb.*|tlb.*|mts[rl].*|mfsr.*|msg.*|[ls][twbh]+z?cix|ldcix|dcbi|pbt|icbt|dcbzl", "privileged, or not of user mode"),
    ("stdcix|stwcix|sthcix|stbcix|hash.*", "privileged"),
    ("sc|scv|rfscv|urfid|stop|wait|rmieg", "a system call, or waits"),
    ("bca|bcla", "its target is in the first or last 32 KiB, where user mode has no memory"),
    ("bctarl?", "the harness uses TAR"),
    (
        "t(begin|end|check|suspend|sr|recheckpt?|rechkpt|reclaim|abort.*)",
        "transactional memory, which neither has",
    ),
    ("eciwx|ecowx|icswx|mfbhrbe|clrbhrb", "devices and facilities that neither emulator has"),
    ("darn", "random by its nature"),
)
"""Patterns of mnemonics, and why they are not tried."""

LEFT_OUT_LITTLE = (("[ls]t?mw|[ls]t?sw[ix]", "an alignment interrupt in little endian, at which QEMU's user mode ends"),)
"""What is not tried in little endian besides."""

SPRS = {"XER": 1, "LR": 8, "CTR": 9, "VRSAVE": 256}
"""What mfspr and mtspr name. Not tried: TB (time), PVR and SPRG3 (the emulators' own), TAR (the harness's), DSCR, PPR."""


@dataclass(frozen=True)
class Instruction:
    """An instruction.

    Attributes:
        value: the word with all operands 0.
        mask: the bits that are no operands.
        newer: of a processor after POWER8, on which it is illegal.
    """

    name: str
    value: int
    mask: int
    newer: bool = False


def load() -> list[Instruction]:
    """Return all instructions of the table, also those of LEFT_OUT."""
    return list(_read())


def tried(order: ByteOrder) -> list[Instruction]:
    """Return the instructions that cases in an order of bytes are made of."""
    rows = LEFT_OUT + (LEFT_OUT_LITTLE if order == "little" else ())
    return [each for each in _read() if not any(named_by(pattern, each.name) for pattern, _ in rows)]


def named_by(pattern: str, name: str) -> bool:
    """Whether a table's pattern is about a mnemonic; a form that records is of its instruction."""
    return bool(re.fullmatch(pattern, name.removesuffix("[.]").removesuffix(".")))


def named(word: int) -> str:
    """Return the mnemonic of a word, or its number."""
    return next((each.name for each in _by_primary()[word >> 26] if word & each.mask == each.value), f".long {word:#010x}")


@cache
def _by_primary() -> list[list[Instruction]]:
    return [[each for each in _read() if each.value >> 26 == primary] for primary in range(64)]


def _read() -> Iterator[Instruction]:
    newer = False
    for line in TABLE.read_text().splitlines():
        if line in {"POWER8", "NEWER"}:
            newer = line == "NEWER"
        elif line and not line.startswith("#"):
            value, mask, name = line.split()
            yield Instruction(name, int(value, 16), int(mask, 16), newer)
