# SPDX-License-Identifier: GPL-2.0-or-later
"""RESERVE(6) and RELEASE(6), the reservations before persistent ones (SPC-2 7.16 and 7.21)."""

from __future__ import annotations

from typing import Any

from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import ConflictError
from splitvisor.scsi.unit import LogicalUnit


def _reserve(unit: LogicalUnit, exchange: Exchange) -> None:
    if unit.reservations.registrations:
        raise ConflictError  # SPC-4 5.12.3: the two kinds do not mix.
    unit.reservations.reserved_by = exchange.initiator


def _release(unit: LogicalUnit, exchange: Exchange) -> None:
    """Give the reservation up. Of one that another initiator holds nothing is said, and it stays."""
    if unit.reservations.registrations:
        raise ConflictError
    if unit.reservations.reserved_by == exchange.initiator:
        unit.reservations.reserved_by = None


RESERVE_COMMANDS: tuple[Operation[Any], ...] = (
    Operation(0x16, "RESERVE(6)", _reserve, "00 00 00 00 00", access=Access.QUERY),
    Operation(0x17, "RELEASE(6)", _release, "00 00 00 00 00", access=Access.FREE),
)
