# SPDX-License-Identifier: GPL-2.0-or-later
"""Logical unit numbers: 64 bits with a bus, a target and a unit to a guest, one number to the target (SAM-5 4.7).

Guests know an adapter as several targets, each with units of its own. The SCSI target has all of them, under the number
target << 8 | bus << 5 | unit, which is what a LUN with the logical unit addressing method has in its first two bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from splitvisor.scsi.codes import REPORT_LUNS_WELL_KNOWN_LUN

TARGETS = 64
"""IDs on a bus."""
UNIT_BITS, BUS_BITS = 5, 3
_PERIPHERAL, _LOGICAL_UNIT = 0, 2
"""Addressing methods: a unit of target 0, and any."""
ABSENT = 0x3FFF
"""A number that no unit has: target 63, bus 7, unit 31."""


def number_of(lun: int) -> int:
    """Return the number that the 64 bits of a LUN mean."""
    first = lun >> 48
    if first == REPORT_LUNS_WELL_KNOWN_LUN:
        return REPORT_LUNS_WELL_KNOWN_LUN
    if lun & 0xFFFF_FFFF_FFFF:
        return ABSENT
    method = first >> 14
    if method == _LOGICAL_UNIT:
        return first & 0x3FFF
    if method == _PERIPHERAL and first < 1 << UNIT_BITS:
        return first
    return ABSENT


def lun_of(number: int) -> int:
    """Return the 64 bits that name a unit, as in paths of the device tree."""
    return (_LOGICAL_UNIT << 14 | number) << 48


def reported(addressed: int, numbers: Sequence[int]) -> list[int]:
    """Return what REPORT LUNS lists: the units of the target that was asked, as its own, or of all targets (for LunFormat)."""
    if addressed == REPORT_LUNS_WELL_KNOWN_LUN:
        return [lun_of(number) for number in numbers]
    target = addressed >> UNIT_BITS
    return [(number & (1 << UNIT_BITS) - 1) << 48 for number in numbers if number >> UNIT_BITS == target]
