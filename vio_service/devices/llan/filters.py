# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frames a guest wants: its own address, and what H_MULTICAST_CTRL says of those for groups (LoPAPR 16.4.4.6)."""

from __future__ import annotations

from collections.abc import Iterable

from splitvisor.lan.mac import MAC_BYTES
from splitvisor.papr.codes import H

MAX_FILTERS = 255
SET_RECEPTION, SET_FILTERING = 0x8_0000, 0x4_0000
"""The call changes whether frames for groups are received, and whether only those of the table are."""
RECEPTION, FILTERING = 0x2_0000, 0x1_0000
"""On, in a call and in its answer."""
TABLE_MASK, TABLE_ADD, TABLE_REMOVE, TABLE_CLEAR = 3, 1, 2, 3
_KNOWN_FLAGS = SET_RECEPTION | SET_FILTERING | RECEPTION | FILTERING | TABLE_MASK
BROADCAST = b"\xff" * MAC_BYTES
_GROUP = 1
"""Of the first byte of an address: several devices are meant."""


class Filters:
    """The filters of one device. At first everything is received: firmware makes no such call, and needs answers to ARP."""

    def __init__(self, *, reception: bool = True, filtering: bool = False, groups: Iterable[bytes] = ()) -> None:
        self.reception, self.filtering = reception, filtering
        self.groups = set(groups)

    @property
    def is_initial(self) -> bool:
        """Whether no call has changed anything."""
        return self.reception and not self.filtering and not self.groups

    @property
    def status(self) -> int:
        """What H_MULTICAST_CTRL puts into r4."""
        return len(self.groups) | (RECEPTION if self.reception else 0) | (FILTERING if self.filtering else 0)

    def control(self, flags: int, mac: bytes) -> int:
        """Carry out H_MULTICAST_CTRL. Returns r3."""
        if flags & ~_KNOWN_FLAGS:
            return H.PARAMETER
        table = flags & TABLE_MASK
        if table == TABLE_ADD and mac not in self.groups:
            if not is_group(mac):
                return H.PARAMETER
            if len(self.groups) >= MAX_FILTERS:
                return H.CONSTRAINED
            self.groups.add(mac)
        elif table == TABLE_REMOVE:
            if mac not in self.groups:
                return H.NOT_FOUND
            self.groups.remove(mac)
        elif table == TABLE_CLEAR:
            self.groups.clear()
        if flags & SET_RECEPTION:
            self.reception = bool(flags & RECEPTION)
        if flags & SET_FILTERING:
            self.filtering = bool(flags & FILTERING)
        return H.SUCCESS

    def accepts(self, destination: bytes, own: bytes) -> bool:
        """Whether the guest wants a frame for this address. Without filters also one for others: Linux says so for a bridge."""
        if destination == own:
            return True
        if not self.reception:
            return False
        return not self.filtering or destination == BROADCAST or destination in self.groups


def is_group(mac: bytes) -> bool:
    """Whether an address means several devices: a group's, or all of them."""
    return bool(mac[0] & _GROUP)


def is_own_address(mac: bytes) -> bool:
    """Whether a single device may have this address."""
    return not is_group(mac) and any(mac)
