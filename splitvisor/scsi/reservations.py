# SPDX-License-Identifier: GPL-2.0-or-later
"""Reservations of a logical unit: those of RESERVE(6) and persistent ones (SPC-2 5.5.1, SPC-4 5.12)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from splitvisor.scsi.operations import Access

MAX_REGISTRATIONS = 64
"""Initiators with a key; there is no room for more."""


class ReservationType(IntEnum):
    """The type of a persistent reservation (SPC-4 table 206)."""

    WRITE_EXCLUSIVE = 0x1
    EXCLUSIVE_ACCESS = 0x3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x8

    @property
    def all_registrants(self) -> bool:
        """Whether each registered initiator holds it."""
        return self >= ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS

    @property
    def for_registrants(self) -> bool:
        """Whether each registered initiator has access."""
        return self >= ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY

    @property
    def allows_reads(self) -> bool:
        """Whether those without access may read."""
        return self in _READABLE


_READABLE = frozenset(
    (
        ReservationType.WRITE_EXCLUSIVE,
        ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
        ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    )
)


@dataclass(frozen=True)
class Registration:
    """An initiator's registration."""

    initiator: str
    key: int
    transport_id: bytes


@dataclass(frozen=True)
class PersistentReservation:
    """Who holds it (with the all-registrants types each registered initiator does) and its type."""

    holder: str
    type: ReservationType


class Reservations:
    """The reservations of a logical unit. They last as long as the unit does: no reservation survives a loss of power."""

    def __init__(self) -> None:
        self.reserved_by: str | None = None
        """The initiator that holds RESERVE(6)'s."""
        self.registrations: dict[str, Registration] = {}
        self.persistent: PersistentReservation | None = None
        self.generation = 0
        """Counts the changes that PERSISTENT RESERVE OUT makes."""

    @property
    def idle(self) -> bool:
        """Whether nothing is reserved, so that nothing conflicts."""
        return self.reserved_by is None and self.persistent is None

    def conflict(self, initiator: str, access: Access) -> bool:
        """Return whether a command of an initiator conflicts with a reservation of another."""
        if access is Access.FREE:
            return False
        if self.reserved_by is not None:
            return self.reserved_by != initiator
        held = self.persistent
        if held is None or access is Access.QUERY or self.holds(initiator):
            return False
        if held.type.for_registrants and initiator in self.registrations:
            return False
        return not (held.type.allows_reads and access is Access.READ)

    def holds(self, initiator: str) -> bool:
        """Return whether an initiator holds the persistent reservation."""
        held = self.persistent
        if held is None:
            return False
        return initiator in self.registrations if held.type.all_registrants else held.holder == initiator

    def with_key(self, key: int) -> list[str]:
        """Return the initiators that have registered a key."""
        return [each.initiator for each in self.registrations.values() if each.key == key]

    def unregister(self, initiator: str) -> bool:
        """Remove a registration. Returns whether the persistent reservation ended with it (SPC-4 5.12.11.3)."""
        held = self.persistent
        held_it = self.holds(initiator)
        del self.registrations[initiator]
        if held is None or not held_it or (held.type.all_registrants and self.registrations):
            return False
        self.persistent = None
        return True
