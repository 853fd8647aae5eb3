# SPDX-License-Identifier: GPL-2.0-or-later
"""A block device as a disk of a guest sees it, whatever holds the bytes."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod

from splitvisor.block.buffers import Buffers

SECTOR_BYTES = 512
"""What offsets and lengths are multiples of, unless a device says more in block_bytes."""


class BlockError(OSError):
    """A transfer failed: ENOSPC, EIO, EROFS, and so on. A transfer that failed may have been done in part."""

    @classmethod
    def of(cls, error: OSError) -> BlockError:
        """Return another error as one of a transfer."""
        return cls(error.errno or errno.EIO, error.strerror or str(error), error.filename)

    @classmethod
    def number(cls, code: int, what: str = "") -> BlockError:
        """Return the error with a number of errno."""
        return cls(code, what or os.strerror(code))


class BlockDevice(ABC):
    """A run of bytes with a fixed size, in blocks.

    Transfers may overlap in time; one that begins after another has ended sees its effect. Ranges are multiples of block_bytes
    and within the size: whoever drives the device has checked the guest's numbers. A cancelled transfer may have been done in
    part; it ends only when it no longer touches its buffers, for they are the guest's memory.
    """

    size: int
    """Bytes."""
    block_bytes: int = SECTOR_BYTES
    """The smallest unit of a transfer."""
    read_only: bool = False
    can_discard: bool = False
    """Whether discard() gives room back to the host."""
    has_write_cache: bool = True
    """Whether a write may be lost with the host before flush()."""
    name: str = ""
    """For messages: a file or an address."""

    @abstractmethod
    async def read(self, offset: int, into: Buffers) -> None:
        """Fill the buffers with what is at the offset. Raises BlockError."""

    @abstractmethod
    async def write(self, offset: int, data: Buffers, fua: bool = False) -> None:
        """Store the buffers at the offset; fua: it is durable when this returns. Raises BlockError."""

    @abstractmethod
    async def flush(self) -> None:
        """Make all writes that have ended durable. Raises BlockError."""

    @abstractmethod
    async def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        """Make a range zero; unmap: and give its room back if that is possible. Raises BlockError."""

    @abstractmethod
    async def discard(self, offset: int, length: int) -> None:
        """The range's contents are not needed any more; what it reads as then is zero or the old bytes. Raises BlockError."""

    async def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        """Return whether there is room for what is at the offset, and for how many of the bytes that answer holds, at least 1.

        A device that does not know says that all has room. Raises BlockError.
        """
        return True, length

    @abstractmethod
    async def close(self) -> None:
        """Let go of what holds the bytes, after all transfers; everything written is with the host."""

    @abstractmethod
    async def hand_over(self) -> None:
        """Flush, and let another process or host have what holds the bytes. Transfers raise EBUSY until take_back()."""

    @abstractmethod
    async def take_back(self, seconds: float) -> None:
        """Have it again after hand_over(). Raises OSError when somebody else has it after so many seconds."""
