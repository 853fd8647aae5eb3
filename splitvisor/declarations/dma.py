# SPDX-License-Identifier: GPL-2.0-or-later
"""DMA windows for devices: guest RAM as far as the guest has mapped it for one device.

A device uses a DmaWindow and cannot tell whether RAM is mapped here or read through the trap stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from splitvisor.block.buffers import Buffers

PAGE_BYTES = 4096
"""Size of an I/O page: what one TCE maps."""
WINDOW_BYTES = 0x1000_0000
"""Size of a DMA window in bytes; Linux uses the size in ibm,my-dma-window."""


class DmaError(Exception):
    """A device's window does not permit an access to memory."""


class Piece(NamedTuple):
    """A range of I/O bus addresses."""

    ioba: int
    length: int


class Scatter:
    """Memory for a device to fill, which the guest sees with commit().

    Args:
        buffers: to be filled from the beginning.
        commit: makes so many bytes visible.
    """

    def __init__(self, buffers: Buffers, commit: Callable[[int], Awaitable[None]]) -> None:
        self.buffers = buffers
        self._commit = commit

    async def commit(self, length: int) -> None:
        """Let the guest have the first length bytes. What lies behind them may have changed in its memory, too.

        Raises DmaError if the guest has unmapped the memory meanwhile.
        """
        await self._commit(length)


class DmaWindow(ABC):
    """Guest RAM for one device: addresses (ioba) from 0 to WINDOW_BYTES, translated and checked page by page.

    A device must bound the length of its accesses: a guest may map one page 65,536 times.
    """

    async def read(self, ioba: int, length: int) -> bytes:
        """Return length bytes from ioba. Raises DmaError."""
        return (await self.gather((Piece(ioba, length),))).load()

    async def write(self, ioba: int, data: bytes) -> None:
        """Store all of data at ioba, or nothing. Raises DmaError."""
        scatter = await self.scatter((Piece(ioba, len(data)),))
        scatter.buffers.store(data)
        await scatter.commit(len(data))

    @abstractmethod
    async def gather(self, pieces: Sequence[Piece]) -> Buffers:
        """Return memory that the guest has filled for a device, guest RAM itself where it is mapped. Raises DmaError."""

    @abstractmethod
    async def scatter(self, pieces: Sequence[Piece]) -> Scatter:
        """Return memory for a device to fill. Raises DmaError."""
