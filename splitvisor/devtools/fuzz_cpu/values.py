# SPDX-License-Identifier: GPL-2.0-or-later
"""Contents of registers: pools in which what makes a difference is frequent."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

POOL_WORDS = 4096
"""Doublewords of a pool."""

_M64 = (1 << 64) - 1
_INTEGERS = (
    *(0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF),
    *(0x1_0000_0000, 0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0x8000_0000_0000_0001, 0xFFFF_FFFF_8000_0000),
    *(0xFFFF_FFFF_7FFF_FFFF, 0x0123_4567_89AB_CDEF, 0x9999_9999_9999_9999, 0x8000_0000_8000_0000, 0x7F7F_7F7F_8080_8080),
    *(_M64 - 1, _M64),
)


def _double(number: float) -> int:
    return int.from_bytes(struct.pack(">d", number), "big")


_DOUBLES = (
    *map(_double, (0.0, 0.5, 0.49999999999999994, 1.0, 1.5, 2.0, 2.5, 3.0, 10.0, 0.1, 1e10, 1e300, 1e-300)),
    # The ends of integers,
    *map(_double, (2147483647.0, 2147483647.5, 2147483648.0, 4294967295.0, 4294967295.5, 4294967296.0)),
    *map(_double, (9223372036854774784.0, 9223372036854775808.0, 18446744073709549568.0, 18446744073709551616.0)),
    # of single precision,
    *map(_double, (3.4028234663852886e38, 3.4028235677973366e38, 1.1754943508222875e-38, 1.1754942106924411e-38)),
    *map(_double, (1.401298464324817e-45, 7.006492321624085e-46, 1e-40)),
    # of double precision, infinity and NaNs.
    *map(_double, (2.2250738585072014e-308, 2.225073858507201e-308, 5e-324, 1.7976931348623157e308)),
    *(0x7FF0_0000_0000_0000, 0x7FF8_0000_0000_0000, 0x7FF0_0000_0000_0001, 0x7FF8_0000_DEAD_BEEF, 0x7FF4_0000_2000_0000),
)
_SINGLES = (
    *(0, 0x3F80_0000, 0x3FC0_0000, 0x4F00_0000, 0x4EFF_FFFF, 0x4F80_0000, 0x4F7F_FFFF, 0x5F00_0000, 0x5EFF_FFFF, 0x5F80_0000),
    *(0x7F7F_FFFF, 0x0080_0000, 0x007F_FFFF, 0x0000_0001, 0x7F80_0000, 0x7FC0_0000, 0x7F80_0001, 0x7FA0_0000, 0x3F00_0000),
    0x4020_0000,
)


def integer(random: Random) -> int:
    """A doubleword."""
    choice = random.random()
    if choice < 0.35:
        return random.choice(_INTEGERS)
    if choice < 0.5:
        return random.getrandbits(random.randrange(1, 64))
    if choice < 0.6:
        return -random.getrandbits(random.randrange(1, 33)) & _M64
    if choice < 0.7:
        return sum(random.choice((0, 0x7F, 0x80, 0xFF, random.getrandbits(8))) << shift for shift in range(0, 64, 8))
    return random.getrandbits(64)


def double(random: Random) -> int:
    """A number of double precision."""
    choice = random.random()
    sign = random.getrandbits(1) << 63
    if choice < 0.45:
        return sign | random.choice(_DOUBLES)
    if choice < 0.6:  # What a conversion to an integer has to round.
        return sign | (1023 + random.randrange(-2, 66)) << 52 | random.getrandbits(52)
    if choice < 0.75:  # Near the ends of single precision, and representable there or not.
        return sign | (1023 + random.choice((-150, -149, -140, -127, -126, -1, 0, 127, 128))) << 52 | random.getrandbits(23) << 29
    return random.getrandbits(64) if choice < 0.9 else sign | (1023 + random.randrange(-30, 30)) << 52 | random.getrandbits(52)


def single(random: Random) -> int:
    """Two numbers of single precision."""
    return _one_single(random) << 32 | _one_single(random)


def _one_single(random: Random) -> int:
    choice = random.random()
    if choice < 0.45:
        return random.getrandbits(1) << 31 | random.choice(_SINGLES)
    if choice < 0.65:
        return random.getrandbits(1) << 31 | (127 + random.randrange(-2, 66)) << 23 | random.getrandbits(23)
    return random.getrandbits(32)


def decimal64(random: Random) -> int:
    """A decimal floating point number of 64 bits."""
    return _decimal(random, 64, 398)


def decimal128(random: Random) -> tuple[int, int]:
    """A decimal floating point number of 128 bits, in two halves."""
    number = _decimal(random, 128, 6176)
    return number >> 64, number & _M64


def _decimal(random: Random, bits: int, bias: int) -> int:
    """The format of IEEE 754 with densely packed digits: sign, combination of 5 bits, rest of the exponent, groups of 10 bits."""
    exponent_bits, groups = (8, 5) if bits == 64 else (12, 11)
    choice = random.random()
    sign = random.getrandbits(1)
    if choice < 0.1:
        return random.getrandbits(bits)
    digits = random.getrandbits(10 * random.randrange(groups + 1))
    if random.random() < 0.3:
        digits = sum(random.choice((0x000, 0x0FF, 0x3FF, 0x001, 0x250)) << 10 * place for place in range(groups))
    if choice < 0.2:  # Infinity, quiet and signalling NaN.
        return sign << bits - 1 | random.choice((0b1111000, 0b1111100, 0b1111110)) << bits - 8 | digits
    exponent = bias + random.randrange(-20, 21)
    if choice < 0.3:
        exponent = random.choice((0, 1, bias * 2 - 30, (3 << exponent_bits) - 1))
    first = random.choice((0, 0, 0, 1, 7, 8, 9))
    high, rest = exponent >> exponent_bits, exponent & (1 << exponent_bits) - 1
    combination = high << 3 | first if first < 8 else 0b11000 | high << 1 | first & 1
    return sign << bits - 1 | combination << bits - 6 | rest << 10 * groups | digits


def packed(random: Random) -> tuple[int, int]:
    """A packed decimal number of 31 digits and a sign, valid in most cases."""
    count = random.randrange(32)
    digits = [random.choice((0, 9, 1, random.randrange(10))) for _ in range(count)]
    number = sum(digit << 4 + 4 * place for place, digit in enumerate(digits)) & (1 << 128) - 1
    number |= random.choice((0xC, 0xD, 0xA, 0xB, 0xE, 0xF, 0xC, 0xD, random.getrandbits(4)))
    if random.random() < 0.15:
        number ^= 0xF << 4 * random.randrange(32)
    return number >> 64, number & _M64


def _both(make: Callable[[Random], int]) -> Callable[[Random], tuple[int, int]]:
    return lambda random: (make(random), make(random))


def _decimal_pair(random: Random) -> tuple[int, ...]:
    """What two floating point registers hold, the first an even one: a number of 128 bits, or two of 64 bits."""
    first, second = decimal128(random) if random.random() < 0.6 else (decimal64(random), decimal64(random))
    return first, random.getrandbits(64), second, random.getrandbits(64)


KINDS: dict[str, Callable[[Random], tuple[int, ...]]] = {
    "integer": _both(integer),
    "double": _both(double),
    "single": _both(single),
    "decimal": _decimal_pair,
    "packed": packed,
}


def pool(kind: str, random: Random) -> list[int]:
    """Return POOL_WORDS doublewords; vector registers are filled from each multiple of four."""
    words: list[int] = []
    while len(words) < POOL_WORDS:
        words += KINDS[kind](random)
    return words[:POOL_WORDS]
