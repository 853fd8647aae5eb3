# SPDX-License-Identifier: GPL-2.0-or-later
"""SPLITVISOR_H_BLOCK: how a firmware outside the guest reads the guest's disks, without a driver and without a queue.

The back end that has an adapter owns the call for the adapter's unit address, and moves the bytes itself between the medium and
guest memory. Nothing keeps a guest from making it, too: it reaches its own disks only.

Arguments: unit address, operation, logical unit, offset, address, length. Results:

    READ, WRITE   r4 bytes moved; less than asked for at the end of the medium
    DESCRIBE      r4 bytes per block, r5 blocks, r6 SCSI device type, r7 the largest transfer, r8 1 if it is read-only
    LIST          r4 logical units; their 64-bit LUNs, big-endian, are at address as far as length allows

Errors: H_PARAMETER (there is no such adapter, logical unit or operation; a range that is not whole blocks, or not RAM),
H_NOT_FOUND (no medium in the drive), H_HARDWARE (the medium failed), H_PERMISSION (a write to what is read-only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

ARGUMENTS = 6
MAX_TRANSFER = 1 << 20
"""Bytes that one call moves."""
LUN_BYTES = 8
MIN_BLOCK_BYTES, MAX_BLOCK_BYTES = 512, 4096
DISK, CD_ROM = 0, 5
"""SCSI device types (SPC-4 6.4.2)."""

_ADDRESS_MASK = 0xFFFF_FFFF
_LARGEST = (1 << 64) - 1


class BlockOperation(IntEnum):
    """What a call does."""

    READ = 0
    WRITE = 1
    DESCRIBE = 2
    LIST = 3


@dataclass(frozen=True)
class BlockRequest:
    """The arguments of a call."""

    unit_address: int
    operation: BlockOperation
    lun: int = 0
    """The 64-bit LUN of a device path (SAM-5 4.7): 0x8100000000000000."""
    offset: int = 0
    """Of READ and WRITE: from the medium's start, in bytes, a multiple of the block size."""
    address: int = 0
    """In guest memory."""
    length: int = 0
    """Bytes from address: a multiple of the block size for READ and WRITE."""

    def arguments(self) -> tuple[int, ...]:
        """Return them as the hypercall takes them."""
        return (self.unit_address, self.operation, self.lun, self.offset, self.address, self.length)

    @classmethod
    def parse(cls, arguments: Sequence[int], ram_bytes: int) -> BlockRequest | None:
        """Check the arguments of a hypercall: r4 and up. None: the answer is H_PARAMETER.

        The owner checks what depends on the logical unit: that it exists, and whole blocks.
        """
        if len(arguments) < ARGUMENTS:
            return None
        unit_address, operation, lun, offset, address, length = arguments[:ARGUMENTS]
        if operation not in BlockOperation._value2member_map_:
            return None
        request = cls(unit_address & _ADDRESS_MASK, BlockOperation(operation), lun, offset, address, length)
        uses_memory = request.operation is not BlockOperation.DESCRIBE
        if uses_memory and (length > MAX_TRANSFER or address + length > ram_bytes):
            return None
        return request


@dataclass(frozen=True)
class BlockUnit:
    """What DESCRIBE says of a logical unit."""

    block_bytes: int
    blocks: int
    device_type: int = DISK
    max_transfer: int = MAX_TRANSFER
    """Bytes, a multiple of block_bytes."""
    read_only: bool = False

    @property
    def size(self) -> int:
        """Bytes of the medium."""
        return self.block_bytes * self.blocks

    def outputs(self) -> tuple[int, ...]:
        """Return it as r4 and up."""
        return (self.block_bytes, self.blocks, self.device_type, self.max_transfer, int(self.read_only))

    @classmethod
    def parse(cls, outputs: Sequence[int]) -> BlockUnit | None:
        """Check r4 and up; None when they cannot describe a logical unit."""
        if len(outputs) < 5:
            return None
        block_bytes, blocks, device_type, max_transfer, read_only = outputs[:5]
        is_power_of_two = MIN_BLOCK_BYTES <= block_bytes <= MAX_BLOCK_BYTES and not block_bytes & (block_bytes - 1)
        if not is_power_of_two or block_bytes * blocks > _LARGEST or max_transfer < block_bytes or device_type > 0x1F:
            return None
        largest = min(max_transfer, MAX_TRANSFER)
        return cls(block_bytes, blocks, device_type, largest - largest % block_bytes, bool(read_only))
