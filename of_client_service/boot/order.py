# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order devices are tried: what --boot says, else NVRAM's boot-device, disks and then CD-ROM drives."""

from __future__ import annotations

from collections.abc import Sequence

from of_client_service.device_path import resolve
from of_client_service.device_tree import Package
from of_client_service.disks.units import LogicalUnit
from splitvisor.papr.block_access import CD_ROM, DISK

DEFAULT_ORDER = ("nvram", "disk", "cdrom")
NVRAM, MENU = "nvram", "menu"
KINDS = {"disk": DISK, "cdrom": CD_ROM}
PROPERTY = "splitvisor,boot"
"""Of /chosen: the words of --boot."""


def order_of(chosen: Package) -> tuple[str, ...]:
    """Return the words of --boot, or those that stand for it when it was not given."""
    return tuple(word for word in (chosen.get(PROPERTY) or b"").decode("latin-1").split("\0") if word) or DEFAULT_ORDER


def unit_at(root: Package, units: Sequence[LogicalUnit], specifier: str) -> tuple[LogicalUnit, str] | None:
    """Return the unit that a device specifier leads to, and its arguments; None when it is no disk."""
    found = resolve(root, specifier)
    if found is None:
        return None
    unit = next((unit for unit in units if unit.path == found.path), None)
    return None if unit is None else (unit, found.arguments)
