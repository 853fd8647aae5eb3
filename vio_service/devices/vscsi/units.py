# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks and CD-ROM drives of an adapter: opened on the host, and units of its SCSI target."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from splitvisor.backend.vio import BusError
from splitvisor.block.disk import Disk as Image
from splitvisor.block.open import DiskError, open_disk
from splitvisor.block.options import DiskOptionError, DiskOptions, OnWriteError, parse_cdrom, parse_disk
from splitvisor.scsi.cdrom import CdRom
from splitvisor.scsi.disk import Disk
from splitvisor.scsi.target import Target
from splitvisor.scsi.unit import Identity
from vio_service.devices.vscsi.luns import BUS_BITS, TARGETS, UNIT_BITS

OPEN_S = 6.0
"""How long an image may take to open: cpu_service waits no longer for a back end."""
TAKE_BACK_S = 2.0
"""How long another may still have an image that was handed over and is taken back."""
OPTIONS = frozenset(f"{kind}{number}" for kind in ("disk", "cdrom") for number in range(TARGETS))
"""What a device may have."""
_OPTION = re.compile(r"(disk|cdrom)(\d{1,2})")


@dataclass(frozen=True)
class Place:
    """One disk or drive of the configuration."""

    key: str
    number: int
    """Of the unit."""
    options: DiskOptions


class Units:
    """The units.

    Args:
        options: of the device: `disk0`, `cdrom0`, and so on, each what `--disk` or `--cdrom` takes.
        owner: the VM and the adapter, of which default serial numbers are made.
        what: the adapter, for messages.

    Raises BusError for options that are no disks.
    """

    def __init__(self, options: Mapping[str, str], owner: str, what: str) -> None:
        self._owner, self._what = owner, what
        self.places: Sequence[Place] = [
            Place(key, index << UNIT_BITS + BUS_BITS, self._parsed(key, options[key]))
            for index, key in enumerate(sorted(options, key=_order))
        ]
        if len(self.places) > TARGETS:
            raise BusError(f"{what}: {len(self.places)} disks and CDs are too many", f"give at most {TARGETS}")
        self.images: dict[int, Image] = {}
        """By the number of the unit."""

    def _parsed(self, key: str, text: str) -> DiskOptions:
        if key not in OPTIONS:
            known = f"it has: disk0 to disk{TARGETS - 1}, cdrom0 to cdrom{TARGETS - 1}"
            raise BusError(f"{self._what} has no option {key!r}", known)
        try:
            options = parse_cdrom(text) if key.startswith("cdrom") else parse_disk(text)
        except DiskOptionError as error:
            raise BusError(f"{self._what}: {key}: {error.problem.what}", error.problem.remedy) from error
        if options.werror is OnWriteError.STOP:
            raise BusError(f"{self._what}: {key}: a disk cannot pause its machine yet", "leave werror=stop out")
        if not options.serial:
            options = replace(options, serial=hashlib.sha256(f"{self._owner} {key}".encode()).hexdigest()[:16].upper())
        return options

    async def open(self, target: Target, wait_for_lock: float) -> None:
        """Open every image and add its unit. Raises BusError; what was opened stays open until close().

        Args:
            target: gets the units.
            wait_for_lock: seconds that another process may still have an image.
        """
        try:
            async with asyncio.timeout(OPEN_S):
                for place in self.places:
                    image = self.images[place.number] = await open_disk(place.options, wait_for_lock=wait_for_lock)
                    identity = Identity(place.options.serial)
                    if place.options.cdrom:
                        target.add(place.number, CdRom(image, identity))
                    else:
                        target.add(place.number, Disk(image, identity, max(512, image.block_bytes)))
        except DiskError as error:
            raise BusError(error.problem.what, error.problem.remedy) from error
        except TimeoutError:
            raise BusError(
                f"{place.options.name}: it does not open within {OPEN_S:.0f} s", "see whether its server answers"
            ) from None

    async def close(self) -> None:
        """Close every image."""
        images, self.images = self.images, {}
        await asyncio.gather(*(image.close() for image in images.values()), return_exceptions=True)

    async def hand_over(self) -> None:
        """Flush, and let another process have the images. Raises OSError."""
        await asyncio.gather(*(image.hand_over() for image in self.images.values()))

    async def take_back(self) -> Sequence[BaseException]:
        """Have the images again. Returns why those that somebody else has now are lost."""
        backs = (image.take_back(TAKE_BACK_S) for image in self.images.values())
        return [each for each in await asyncio.gather(*backs, return_exceptions=True) if each is not None]


def _order(key: str) -> tuple[bool, int, str]:
    """Disks come before drives, each kind by its number."""
    found = _OPTION.fullmatch(key)
    return (key.startswith("cdrom"), int(found[2]) if found is not None else 0, key)
