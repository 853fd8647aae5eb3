# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order devices are tried: what --boot says, else NVRAM's boot-device, disks and then CD-ROM drives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from of_client_service.boot.attempt import BootDevice
from of_client_service.device_path import resolve
from of_client_service.device_tree import Package
from splitvisor.papr.block_access import CD_ROM, DISK

DEFAULT_ORDER = ("nvram", "disk", "cdrom")
NVRAM, MENU, NET = "nvram", "menu", "net"
DISK_KINDS = {"disk": DISK, "cdrom": CD_ROM}
PROPERTY = "splitvisor,boot"
"""Of /chosen: the words of --boot."""

Device = TypeVar("Device", bound=BootDevice)


def order_of(chosen: Package) -> tuple[str, ...]:
    """Return the words of --boot, or those that stand for it when it was not given."""
    return tuple(word for word in (chosen.get(PROPERTY) or b"").decode("latin-1").split("\0") if word) or DEFAULT_ORDER


def device_at(root: Package, devices: Sequence[Device], specifier: str) -> tuple[Device, str] | None:
    """Return the device that a specifier leads to, and its arguments; None when it is none of them."""
    found = resolve(root, specifier)
    if found is None:
        return None
    device = next((device for device in devices if device.path == found.path), None)
    return None if device is None else (device, found.arguments)
