# SPDX-License-Identifier: GPL-2.0-or-later
"""The boot menu: a list of devices on the console, and a number that somebody types."""

from __future__ import annotations

import time
from collections.abc import Sequence

from of_client_service.disks.units import LogicalUnit
from splitvisor.papr.block_access import CD_ROM

TIMEOUT_SECONDS = 30.0
"""After which the first device is booted."""
MAX_ENTRIES = 99
_ENTER = b"\r\n"
_RUBOUT = b"\b\x7f"
_KINDS = {CD_ROM: "CD-ROM"}


class Menu:
    """A choice among devices.

    Args:
        units: the devices, at least one.
    """

    def __init__(self, units: Sequence[LogicalUnit]) -> None:
        self._units = tuple(units[:MAX_ENTRIES])
        self._typed = ""
        self._until = time.monotonic() + TIMEOUT_SECONDS

    def lines(self) -> list[str]:
        """Return what is shown, the prompt last."""
        rows = [f"{number:3}  {_described(unit)}" for number, unit in enumerate(self._units, 1)]
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

    def choice(self) -> LogicalUnit | None:
        """Return the device that was chosen; None: not yet."""
        if self._typed.endswith("\r"):
            number = int(self._typed[:-1] or "1")
            if 1 <= number <= len(self._units):
                return self._units[number - 1]
            self._typed = ""
        return self._units[0] if time.monotonic() > self._until else None


def _described(unit: LogicalUnit) -> str:
    kind = _KINDS.get(unit.device_type, "disk")
    size = "no medium" if unit.unit is None else _size(unit.unit.size)
    return f"{unit.alias or kind:8} {size:>10}  {unit.path}"


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
