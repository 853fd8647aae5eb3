# SPDX-License-Identifier: GPL-2.0-or-later
"""A logical unit with blocks: what disks and CD-ROM drives have in common."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import AsyncIterator

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockDevice
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.sense import BLOCK_OUT_OF_RANGE, INVALID_FIELD_IN_CDB, CheckError
from splitvisor.scsi.unit import LogicalUnit

MAX_TRANSFER_BYTES = 32 << 20
"""What one command may read, write or verify."""
SCRATCH_BYTES = 256 << 10
"""Memory of a command that looks at blocks without giving them away."""

_TEN = struct.Struct(">xxIxH")
_RANGES = {1: _TEN, 2: _TEN, 4: struct.Struct(">xxQI"), 5: struct.Struct(">xxII")}
"""Where a CDB has a block and a number of blocks, by the upper three bits of its operation code."""


def addressed(cdb: bytes) -> tuple[int, int]:
    """Return the first block and the number of blocks of a CDB of 10, 12 or 16 bytes (SPC-4 4.2.5)."""
    first, blocks = _RANGES[cdb[0] >> 5].unpack_from(cdb)
    return first, blocks


class BlockUnit(LogicalUnit):
    """A logical unit with blocks.

    Attributes:
        block_bytes: the size of a logical block.
    """

    block_bytes: int

    @property
    @abstractmethod
    def device(self) -> BlockDevice:
        """What holds the blocks. Raises CheckError, if there is no medium now."""

    def check_medium(self) -> None:
        """Raise CheckError, unless there is a medium that is ready."""
        _ = self.device

    @property
    def blocks(self) -> int:
        """The number of whole blocks."""
        return self.device.size // self.block_bytes

    @property
    def max_blocks(self) -> int:
        """The number of blocks that a command may move."""
        return MAX_TRANSFER_BYTES // self.block_bytes

    def extent(self, first: int, blocks: int, at_most: int | None = None) -> tuple[int, int]:
        """Return the offset and the length of blocks, in bytes.

        Args:
            first: the first block.
            blocks: their number.
            at_most: what the command may have; without it, max_blocks.

        Raises:
            CheckError: they are too many, or not all within the capacity.
        """
        size = self.block_bytes
        if blocks > (self.max_blocks if at_most is None else at_most):
            raise CheckError(INVALID_FIELD_IN_CDB)
        if first + blocks > self.blocks:
            raise CheckError(BLOCK_OUT_OF_RANGE.about(max(first, self.blocks)))
        return first * size, blocks * size

    async def send(self, exchange: Exchange, offset: int, length: int) -> None:
        """Read bytes into an exchange's buffers, as far as there is room, whole blocks without a copy."""
        device = self.device  # A medium that is changed meanwhile is another one.
        exchange.wanted_in = length
        into = exchange.command.data_in
        if into.length != length:
            into = into.part(0, length)
        odd = into.length % self.block_bytes
        whole = into.length - odd
        if whole:
            await device.read(offset, into.part(0, whole) if odd else into)
        if odd:
            block = bytearray(self.block_bytes)
            await device.read(offset + whole, Buffers.of(block))
            into.store(memoryview(block)[:odd], whole)
        exchange.moved_in = into.length

    async def chunks(self, offset: int, length: int) -> AsyncIterator[tuple[int, memoryview]]:
        """Read bytes piece by piece: how far from the offset each is, and its contents, until the next one is asked for."""
        device = self.device
        scratch = memoryview(bytearray(min(length, SCRATCH_BYTES)))
        done = 0
        while done < length:
            piece = scratch[: length - done]
            await device.read(offset + done, Buffers((piece,)))
            yield done, piece
            done += len(piece)
