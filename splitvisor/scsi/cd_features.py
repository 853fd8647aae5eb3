# SPDX-License-Identifier: GPL-2.0-or-later
"""What a CD-ROM drive can do: GET CONFIGURATION (MMC-6 6.5), and the mode page for initiators of older standards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from splitvisor.scsi.cd_unit import CD_BLOCK_BYTES, LARGEST_CD_BYTES, CdUnit
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.mode_pages import CD_CAPABILITIES, ModePage
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, CheckError

_NO_PROFILE = 0x0000
_CD_ROM = 0x0008
_DVD_ROM = 0x0010
_PROFILES = (_DVD_ROM, _CD_ROM)
_PROFILE_LIST = 0x0000
_TRAY_WITH_EJECT_AND_LOCK = 0x29
_SPEED = 0x2113
"""8,467 kB/s: a CD at 48 times its speed."""

CAPABILITIES_PAGE = ModePage.of(
    CD_CAPABILITIES,
    20,
    {
        2: 0x0B,  # Reads CD-R, CD-RW and DVD-ROM.
        4: 0x70,  # Several sessions, and both forms of mode 2.
        6: _TRAY_WITH_EJECT_AND_LOCK,
        8: _SPEED >> 8,
        9: _SPEED & 0xFF,
        12: 0x08,  # A buffer of 2,048 KiB.
        14: _SPEED >> 8,
        15: _SPEED & 0xFF,
    },
)
"""C/DVD capabilities and mechanical status (MMC-3 5.5.10)."""


@dataclass(frozen=True)
class Feature:
    """A feature of the drive.

    Attributes:
        code: its number (MMC-6 table 87).
        version: of its descriptor.
        data: behind the header of the descriptor.
        profiles: those with which it is current; none: it always is, whatever is in the drive.
    """

    code: int
    version: int
    data: bytes
    profiles: tuple[int, ...] = ()

    def current(self, profile: int) -> bool:
        """Return whether the feature can be used with the medium of a profile."""
        return not self.profiles or profile in self.profiles

    def descriptor(self, profile: int, data: bytes | None = None) -> bytes:
        """Return the feature descriptor."""
        content = self.data if data is None else data
        flags = self.version << 2 | (0 if self.profiles else 2) | self.current(profile)
        return self.code.to_bytes(2, "big") + bytes((flags, len(content))) + content


FEATURES = (
    Feature(_PROFILE_LIST, 0, b""),
    Feature(0x0001, 2, bytes((0, 0, 0, 1, 1, 0, 0, 0))),  # Core: the SCSI family of interfaces; device busy events.
    Feature(0x0002, 1, bytes(4)),  # Morphing: events are polled.
    Feature(0x0003, 0, bytes((_TRAY_WITH_EJECT_AND_LOCK, 0, 0, 0))),  # Removable medium.
    Feature(0x0010, 0, CD_BLOCK_BYTES.to_bytes(4, "big") + bytes((0, 1, 0, 0)), _PROFILES),  # Random readable.
    Feature(0x001E, 2, bytes(4), (_CD_ROM,)),  # CD read.
    Feature(0x001F, 0, b"", (_DVD_ROM,)),  # DVD read.
    Feature(0x0100, 0, b""),  # Power management.
    Feature(0x0105, 0, b""),  # Time-out.
)


def profile_of(drive: CdUnit) -> int:
    """Return the profile of what is in the drive."""
    medium = drive.ready
    if medium is None:
        return _NO_PROFILE
    return _DVD_ROM if medium.size > LARGEST_CD_BYTES else _CD_ROM


def _get_configuration(drive: CdUnit, exchange: Exchange) -> None:
    """Report features from a number on: all (0), those that are current (1), or the one with that number (2)."""
    which, start = exchange.cdb[1] & 0x03, exchange.number(2, 2)
    if which == 3:
        raise CheckError(INVALID_FIELD_IN_CDB.at(1, 1))
    profile = profile_of(drive)
    data = bytearray()
    for each in FEATURES:
        if each.code < start or (which == 1 and not each.current(profile)) or (which == 2 and each.code != start):
            continue
        profiles = None
        if each.code == _PROFILE_LIST:
            profiles = b"".join(one.to_bytes(2, "big") + bytes((one == profile, 0)) for one in _PROFILES)
        data += each.descriptor(profile, profiles)
    head = (len(data) + 4).to_bytes(4, "big") + bytes(2) + profile.to_bytes(2, "big")
    exchange.reply(head + bytes(data), exchange.number(7, 2))


GET_CONFIGURATION = Operation[Any](
    0x46,
    "GET CONFIGURATION",
    _get_configuration,
    "03 ff ff 00 00 00 ff ff 00",
    access=Access.FREE,
    through_attention=True,
)
