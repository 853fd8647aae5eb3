# SPDX-License-Identifier: GPL-2.0-or-later
"""Differences between the engine and QEMU's user mode that have a reason; docs/compatibility.md lists them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

from splitvisor.devtools.fuzz_cpu.batch import AT, FIELDS, Field, Record
from splitvisor.devtools.fuzz_cpu.instructions import load, named, named_by

_ALL = (1 << 2048) - 1
_RIGHT_HALF = (1 << 64) - 1
_ENABLES = 0xF8
_FR_FI = 0x6_0000
_XX3 = 60
_SPECIAL, _SMALLEST, _SMALLEST_NORMAL, _LARGEST = 0x7FF, 1023 - 149, 1023 - 126, 1023 + 127
"""Exponents of double precision: of infinities and NaNs, and those of single precision."""
_FPSCR = next(each for each in FIELDS if each.name == "fpscr")
_VSR = [each for each in FIELDS if each.name.startswith("vs") and each.name != "vscr"]


def _always(_word: int, _before: Record) -> bool:
    return True


def _traps(_word: int, before: Record) -> bool:
    return bool(before[_FPSCR] & _ENABLES)


def _not_single(word: int, before: Record) -> bool:
    """Whether an operand, all of which should be of single precision, is none."""
    fields = [word >> shift & 31 for shift in (21, 16, 11, 6)]
    if word >> 26 == _XX3:
        fields = [number | (word >> bit & 1) << 5 for number, bit in zip(fields, (0, 2, 1), strict=False)]
    return any(not _is_single(before[_VSR[number]] >> 64) for number in fields)


def _is_single(number: int) -> bool:
    exponent = number >> 52 & 0x7FF
    if not number << 1 & (1 << 64) - 1 or exponent == _SPECIAL:
        return True
    return _SMALLEST <= exponent <= _LARGEST and not number & (1 << 29 + max(0, _SMALLEST_NORMAL - exponent)) - 1


@dataclass(frozen=True)
class Known:
    """A difference that has a reason.

    Attributes:
        pattern: of the mnemonics that have it.
        what: for people.
        reason: why it stays.
        bits: which bits may differ, by the kind of field: r, vs, or a field's name.
        when: of the instruction's word and the registers before it.
    """

    pattern: str
    what: str
    reason: str
    bits: dict[str, int]
    when: Callable[[int, Record], bool] = field(default=_always)


_FLOATING_POINT = "f(?!cfid|mr|neg|abs|nabs|cpsgn|sel|mrg).*|x[sv].*|mtfs.*"

KNOWN = (
    Known(
        "(f|xs)(?!cmp|t(div|sqrt)).*|lf.*|lxs.*|d(?!cb|cmp|iv|ss|st|tst).*|mffs|mtvsr.*",
        "the right half of the target's vector register",
        "undefined by the architecture; QEMU 7.2 clears it, we leave it",
        {"vs": _RIGHT_HALF},
    ),
    Known(
        "xv.*",
        "FR and FI after an invalid operation or a division by zero",
        "vector instructions leave them as they are; QEMU 7.2 clears them",
        {"fpscr": _FR_FI},
    ),
    Known(
        "xvcv[sd]p[su]x[dw]s",
        "an element after one that is a NaN or out of range",
        "QEMU 7.2 takes the flags of one element for those of the next; we convert each by itself",
        {"vs": _ALL},
    ),
    Known(
        _FLOATING_POINT,
        "the target, FI, FR, FPRF and causes when an exception is enabled in the FPSCR",
        "QEMU 7.2 writes the target before an enabled exception, and scales a result that overflows or underflows; we interrupt "
        "as it does, but leave the target, or store it unscaled; a tiny result that is exact does not underflow",
        {"vs": _ALL, "fpscr": 0xFFFF_FFF8, "cr": _ALL, "ending": _ALL},
        _traps,
    ),
    Known(
        "divdeu?o?|divweu?o?|divwu?o?|divdu?o?|mod.*",
        "the quotient of a division by 0 or with an overflow, and its record in CR",
        "undefined by the architecture",
        {"r": _ALL, "cr": 0xE000_0000},
    ),
    Known(
        "f(n?m)?(add|sub|mul|div|sqrt)s|xs(n?m)?(add|sub|mul|div|sqrt)[am]?sp",
        "results and flags when an operand is not of single precision",
        "undefined by the architecture",
        {"vs": _ALL, "fpscr": 0xFA07_F000, "cr": 0x0F00_0000},
        _not_single,
    ),
    Known(
        "fn?m(add|sub)s?|x[sv]n?m(add|sub)[am][sd]p",
        "VXISI beside VXIMZ or VXSNAN",
        "infinity times 0 or a signalling NaN, and an infinity: we can set VXISI too, and clear FR",
        {"fpscr": 0x0084_0000},
    ),
    Known(
        "fn?m(add|sub)s?|x[sv]n?m(add|sub)[am][sd]p",
        "VXSNAN beside VXIMZ",
        "infinity times 0 and a signalling NaN: the architecture sets both, QEMU 7.2 one",
        {"fpscr": 0x0100_0000},
    ),
    Known(
        "bcd(add|sub)",
        "CR6 after a sum of 0",
        "one of LT, GT and EQ is set; QEMU 7.2 can set two",
        {"cr": 0xE0},
    ),
    Known(
        "divdeu?o",
        "OV after divdeo",
        "the architecture sets it when the quotient does not fit; QEMU 7.2 misses some such quotients",
        {"r": _ALL, "cr": 0xF000_0000, "xer": 0xC000_0000},
    ),
    Known(
        "fres?",
        "the reciprocal of 0",
        "infinite, as in the architecture; 1/2 in QEMU 7.2",
        {"vs": 0x4010_0000_0000_0000 << 64, "fpscr": 0x1_F000},
    ),
    Known(
        "denbcdq?",
        "the digit 10",
        "invalid, as in the architecture; QEMU 7.2 takes it",
        {"vs": _ALL, "fpscr": 0xE001_F100, "cr": 0x0F00_0000},
    ),
    Known(
        "mtfsb1",
        "FX with a bit that names an invalid operation",
        "set, as in the architecture; not in QEMU 7.2",
        {"fpscr": 0x8000_0000, "cr": 0x0800_0000},
    ),
    Known(
        "stqcx",
        "whether it stores after lqarx",
        "it must; in QEMU 7.2's user mode it never does",
        {"cr": 0xF000_0000, "memory": _ALL},
    ),
    Known(
        "mffs.+",
        "that it is mffs",
        "of POWER9, in bits that a POWER8 ignores; QEMU 7.2 refuses it",
        {"vs": _ALL, "ending": _ALL, "fpscr": _ALL, "cr": _ALL},
    ),
    Known(
        "vlogefp|vexptefp",
        "the last bits of an estimate, and a NaN's sign",
        "estimates; the architecture bounds their error",
        {"vs": _ALL},
    ),
)
"""By mnemonic; what is undefined first. Rows add up."""


@cache
def _of(name: str) -> tuple[Known, ...]:
    return tuple(each for each in KNOWN if named_by(each.pattern, name))


@cache
def _newer() -> frozenset[str]:
    return frozenset(each.name for each in load() if each.newer)


def kind(part: Field) -> str:
    """Return r for a general register, vs for a vector register, the field's name for others."""
    return re.sub(r"^(r|vs)\d+$", r"\1", part.name)


def unexplained(word: int, before: Record, expected: Record, found: Record, parts: Iterable[Field]) -> list[Field]:
    """Return those of the fields that differ in bits which no row of KNOWN allows.

    Args:
        word: the instruction.
        before: the registers before it.
        expected: after it, in QEMU.
        found: after it, on the engine.
        parts: fields that differ.
    """
    parts, name = list(parts), named(word)
    if name in _newer():
        # A POWER8 refuses it, whatever QEMU does: then nothing has changed.
        refused = found.data[AT["IN_SLOT"] :][:8] == AT["SIGILL"].to_bytes(8, found.order)
        if refused and not [each for each in before.differences(found) if each.name not in {"ending", "fpscr", "xer"}]:
            return []
    allowed: dict[str, int] = {}
    for known in _of(name):
        if known.when(word, before):
            for which, bits in known.bits.items():
                allowed[which] = allowed.get(which, 0) | bits
    return [each for each in parts if (expected[each] ^ found[each]) & ~allowed.get(kind(each), 0)]
