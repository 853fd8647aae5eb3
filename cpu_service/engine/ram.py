# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest RAM as cpu_service sees it: always mapped, and tied to the engine's translated code."""

from __future__ import annotations

import mmap
from collections.abc import Callable

from splitvisor.declarations.guest_memory import GuestAddressError

_ZEROES = bytes(1 << 20)


class GuestRam:
    """Guest RAM from physical address 0, with bounds checked.

    Args:
        area: the mapping; its length is the size of RAM.
    """

    def __init__(self, area: mmap.mmap) -> None:
        self.map = area
        self.size = len(area)
        self.on_write: Callable[[int, int], None] = lambda address, length: None
        """Told of (address, length) after each write: code translated from there is stale."""

    def clear(self) -> None:
        """Make every byte zero and give the memory behind it back to the host."""
        try:
            self.map.madvise(mmap.MADV_REMOVE)
        except OSError:  # Not every file system can punch holes.
            for start in range(0, self.size, len(_ZEROES)):
                self.map[start : start + len(_ZEROES)] = _ZEROES[: self.size - start]

    def read(self, address: int, length: int) -> bytes:
        """Return length bytes. Raises GuestAddressError."""
        if address < 0 or length < 0 or address + length > self.size:
            raise GuestAddressError(address, length, self.size)
        return self.map[address : address + length]

    def write(self, address: int, data: bytes) -> None:
        """Store data. Raises GuestAddressError."""
        if address < 0 or address + len(data) > self.size:
            raise GuestAddressError(address, len(data), self.size)
        self.map[address : address + len(data)] = data
        self.on_write(address, len(data))
