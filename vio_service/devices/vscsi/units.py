# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks and CD-ROM drives of an adapter: opened on the host, and units of its SCSI target."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from splitvisor.backend.vio import BusError, MediumLockedError
from splitvisor.block.device import BlockError
from splitvisor.block.disk import Disk as Image
from splitvisor.block.open import DiskError, DiskInUseError, open_disk
from splitvisor.block.options import DiskOptionError, DiskOptions, parse_cdrom, parse_disk
from splitvisor.scsi.cd_unit import MediumBusyError, TrayLockedError
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
OnImageError = Callable[[str, BlockError], Awaitable[bool]]
"""Is told of an image and its error; see OnError."""
_OPTION = re.compile(r"(disk|cdrom)(\d{1,2})")

log = structlog.get_logger()


@dataclass(frozen=True)
class Place:
    """One disk or drive of the configuration."""

    key: str
    number: int
    """Of the unit."""
    options: DiskOptions
    given_serial: str
    """That somebody chose; empty: the one of the options was made here."""


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
        self.places = [
            self._place(key, index << UNIT_BITS + BUS_BITS, options[key]) for index, key in enumerate(sorted(options, key=_order))
        ]
        if len(self.places) > TARGETS:
            raise BusError(f"{what}: {len(self.places)} disks and CDs are too many", f"give at most {TARGETS}")
        self.images: dict[int, Image] = {}
        """By the number of the unit; an empty drive has none."""
        self._changes = asyncio.Lock()
        """Images come and go."""
        self._handed_over = False

    def _place(self, key: str, number: int, text: str) -> Place:
        if key not in OPTIONS:
            known = f"it has: disk0 to disk{TARGETS - 1}, cdrom0 to cdrom{TARGETS - 1}"
            raise BusError(f"{self._what} has no option {key!r}", known)
        try:
            options = parse_cdrom(text) if key.startswith("cdrom") else parse_disk(text)
        except DiskOptionError as error:
            raise BusError(f"{self._what}: {key}: {error.problem.what}", error.problem.remedy) from error
        serial = options.serial or hashlib.sha256(f"{self._owner} {key}".encode()).hexdigest()[:16].upper()
        return Place(key, number, replace(options, serial=serial), options.serial)

    async def open(self, target: Target, wait_for_lock: float, on_error: OnImageError) -> None:
        """Open every image and add its unit. Raises BusError; what was opened stays open until close().

        Args:
            target: gets the units.
            wait_for_lock: seconds that another process may still have an image.
            on_error: what to do about a failed transfer that is not to be reported.
        """
        deadline = asyncio.get_running_loop().time() + OPEN_S
        for place in self.places:
            try:
                image = await _opened(place.options, wait_for_lock, deadline, on_error)
            except BusError as error:
                if isinstance(error.__cause__, DiskInUseError) and (other := self._same_image(place)):
                    what = f"{place.options.name}: {other} and {place.key} both have it"
                    raise BusError(what, "give each its own image, or readonly to both") from None
                raise
            if image is not None:
                self.images[place.number] = image
            identity = Identity(place.options.serial)
            if place.options.cdrom:
                target.add(place.number, CdRom(image, identity))
            else:
                assert image is not None
                target.add(place.number, Disk(image, identity, max(512, image.block_bytes)))

    def _same_image(self, place: Place) -> str:
        """Return the key of an earlier disk with the same file; empty when there is none."""
        wanted = os.path.realpath(place.options.name)
        earlier = self.places[: self.places.index(place)]
        return next((each.key for each in earlier if os.path.realpath(each.options.name) == wanted), "")

    async def close(self) -> None:
        """Close every image."""
        async with self._changes:
            images, self.images = self.images, {}
            await asyncio.gather(*(image.close() for image in images.values()), return_exceptions=True)

    async def change(self, target: Target, key: str, text: str, *, force: bool) -> str:
        """Exchange the medium of a drive.

        Args:
            target: has the drive.
            key: the drive's option.
            text: what it shall have, as `--cdrom` takes it, without a serial number.
            force: also when the guest has locked it.

        Returns:
            What the option says now.

        Raises MediumLockedError, and BusError for a drive or an image that is not there, and for an old image that is still read.
        """
        async with self._changes:
            number, place = self._drive(key)
            if self._handed_over:
                raise BusError(f"{self._what}: the machine is being saved", "try again later")
            wanted = _medium(text, f"{self._what}: {key}")
            unit = target.units[place.number]
            assert isinstance(unit, CdRom)
            image = await _opened(wanted, 0.0, asyncio.get_running_loop().time() + OPEN_S)
            old = self.images.pop(place.number, None)
            if image is not None:
                self.images[place.number] = image
            try:
                await unit.change(image, force=force)
            except TrayLockedError as error:
                self.images.pop(place.number, None)
                if old is not None:
                    self.images[place.number] = old
                if image is not None:
                    await image.close()
                raise MediumLockedError(f"{self._what}: {key}: {error.problem.what}", error.problem.remedy) from error
            except MediumBusyError as error:
                log.error("the old medium of a drive is still being read", device=self._what, drive=key, reason=str(error))
            given = replace(wanted, serial=place.given_serial)
            self.places[number] = Place(key, place.number, replace(wanted, serial=place.options.serial), place.given_serial)
            if old is not None:
                await old.close()
            return given.text()

    def _drive(self, key: str) -> tuple[int, Place]:
        """Return a drive and its index. Raises BusError."""
        drives = [place.key for place in self.places if place.options.cdrom]
        if key not in drives:
            raise BusError(f"{self._what} has no drive {key!r}", f"it has: {', '.join(drives) or 'none'}")
        return next((number, place) for number, place in enumerate(self.places) if place.key == key)

    async def hand_over(self) -> None:
        """Flush, and let another process have the images: all or, with OSError, none."""
        async with self._changes:
            images = list(self.images.values())
            ends = await asyncio.gather(*(image.hand_over() for image in images), return_exceptions=True)
            failed = next((end for end in ends if end is not None), None)
            if failed is not None:
                gone = (image for image, end in zip(images, ends, strict=True) if end is None)
                await asyncio.gather(*(image.take_back(TAKE_BACK_S) for image in gone))
                raise failed
            self._handed_over = True

    async def take_back(self) -> Sequence[BaseException]:
        """Have the images again. Returns why those that somebody else has now are lost."""
        self._handed_over = False
        backs = (image.take_back(TAKE_BACK_S) for image in self.images.values())
        return [each for each in await asyncio.gather(*backs, return_exceptions=True) if each is not None]


def _medium(text: str, what: str) -> DiskOptions:
    """Return what somebody says of a medium. Raises BusError."""
    try:
        options = parse_cdrom(text)
    except DiskOptionError as error:
        raise BusError(f"{what}: {error.problem.what}", error.problem.remedy) from error
    if options.serial:
        raise BusError(f"{what}: the serial number is the drive's, which keeps it", "leave out serial=")
    return options


async def _opened(
    options: DiskOptions, wait_for_lock: float, deadline: float, on_error: OnImageError | None = None
) -> Image | None:
    """Return an image, open; None: there is none, of an empty drive. Raises BusError, also at a time of the event loop."""
    if options.place is None:
        return None
    try:
        async with asyncio.timeout_at(deadline):
            asks = None if on_error is None else partial(on_error, options.name)
            return await open_disk(options, wait_for_lock=wait_for_lock, on_error=asks)
    except DiskError as error:
        raise BusError(error.problem.what, error.problem.remedy) from error
    except TimeoutError:
        what = f"{options.name}: it does not open within {OPEN_S:.0f} s"
        raise BusError(what, "see whether its server answers") from None


def _order(key: str) -> tuple[bool, int, str]:
    """Disks come before drives, each kind by its number."""
    found = _OPTION.fullmatch(key)
    return (key.startswith("cdrom"), int(found[2]) if found is not None else 0, key)
