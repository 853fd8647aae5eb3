# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest RAM for back ends: through a shared mapping on the same host, through the trap stream elsewhere.

A device uses GuestMemory and cannot tell which of the two it has. Every access is checked against the size of RAM first.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod

LOGICAL_ADDRESS_MASK = 0x0FFF_FFFF_FFFF_FFFF
"""Linux passes some addresses with its linear map's top nibble (0xC) still in place; hypercalls mask it off."""


class GuestAddressError(Exception):
    """A guest passed a range outside its RAM.

    Handlers turn it into PAPR's return code for the argument; if they do not catch it, the call returns H_PARAMETER.
    """

    def __init__(self, address: int, length: int, size: int) -> None:
        super().__init__(f"range {address:#x}+{length:#x} is not in guest RAM of {size:#x} bytes")


class GuestMemory(ABC):
    """Guest RAM, from physical address 0."""

    size: int
    """Bytes of RAM."""

    def check(self, address: int, length: int) -> None:
        """Raise GuestAddressError unless length bytes from address are RAM."""
        if address < 0 or length < 0 or address + length > self.size:
            raise GuestAddressError(address, length, self.size)

    @abstractmethod
    async def read(self, address: int, length: int) -> bytes:
        """Return length bytes. Raises GuestAddressError."""

    @abstractmethod
    async def write(self, address: int, data: bytes) -> None:
        """Store data; the guest's code there is translated again. Raises GuestAddressError."""

    async def read_string(self, address: int, limit: int) -> bytes:
        """Return the bytes before the first NUL, which must be among the first limit bytes.

        Raises GuestAddressError if the string leaves RAM, ValueError if it does not end within limit.
        """
        available = min(limit, self.size - address) if 0 <= address <= self.size else 0
        if available <= 0:
            raise GuestAddressError(address, limit, self.size)
        text, terminator, _ = (await self.read(address, available)).partition(b"\0")
        if not terminator:
            if available < limit:
                raise GuestAddressError(address, limit, self.size)
            raise ValueError(f"string at {address:#x} does not end within {limit} bytes")
        return text

    async def read_words(self, address: int, count: int) -> tuple[int, ...]:
        """Return count big-endian 32-bit words. Raises GuestAddressError."""
        return struct.unpack(f">{count}I", await self.read(address, 4 * count))

    async def write_words(self, address: int, *words: int) -> None:
        """Store big-endian 32-bit words. Raises GuestAddressError."""
        await self.write(address, struct.pack(f">{len(words)}I", *(word & 0xFFFF_FFFF for word in words)))
