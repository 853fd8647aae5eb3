# SPDX-License-Identifier: GPL-2.0-or-later
"""The boot menu: a list of devices on the console, and a number that somebody types."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Generic, TypeVar

from of_client_service.boot.attempt import BootDevice
from of_client_service.disks.units import LogicalUnit
from of_client_service.network.devices import NetworkDevice
from splitvisor.papr.block_access import CD_ROM

TIMEOUT_SECONDS = 30.0
"""After which the first device is booted."""
MAX_ENTRIES = 99
_ENTER = b"\r\n"
_RUBOUT = b"\b\x7f"
_KINDS = {CD_ROM: "CD-ROM"}

Device = TypeVar("Device", bound=BootDevice)


class Menu(Generic[Device]):
    """A choice among devices.

    Args:
        devices: them, at least one.
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = tuple(devices[:MAX_ENTRIES])
        self._typed = ""
        self._until = time.monotonic() + TIMEOUT_SECONDS

    def lines(self) -> list[str]:
        """Return what is shown, the prompt last."""
        rows = [f"{number:3}  {_described(device)}" for number, device in enumerate(self._devices, 1)]
        return ["Boot from:", *rows, f"Number and Enter, or 1 after {TIMEOUT_SECONDS:.0f} s:"]

    def typed(self, data: bytes) -> str:
        """Take input. Returns what is to be echoed."""
        echo = ""
        for byte in data:
            if byte in _RUBOUT and self._typed:
                self._typed, echo = self._typed[:-1], echo + "\b \b"
            elif byte in b"0123456789" and len(self._typed) < 2:
                self._typed, echo = self._typed + chr(byte), echo + chr(byte)
            elif byte in _ENTER and not self._typed.endswith("\r"):
                self._typed += "\r"
        if data and not self._typed.endswith("\r"):
            self._until = time.monotonic() + TIMEOUT_SECONDS
        return echo

    def choice(self) -> Device | None:
        """Return the device that was chosen; None: not yet."""
        if self._typed.endswith("\r"):
            number = int(self._typed[:-1] or "1")
            if 1 <= number <= len(self._devices):
                return self._devices[number - 1]
            self._typed = ""
        return self._devices[0] if time.monotonic() > self._until else None


def _described(device: BootDevice) -> str:
    if isinstance(device, NetworkDevice):
        return f"{device.alias:8} {'network':>10}  {device.path}"
    assert isinstance(device, LogicalUnit)
    kind = _KINDS.get(device.device_type, "disk")
    size = "no medium" if device.unit is None else _size(device.unit.size)
    return f"{device.alias or kind:8} {size:>10}  {device.path}"


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
