# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks without room of their own: UNMAP, WRITE SAME and GET LBA STATUS (SBC-3 4.7).

A block that is unmapped reads as zeroes (LBPRZ), whatever the device would rather do: both commands zero it and let the device
give its room back.
"""

from __future__ import annotations

from typing import Any

from splitvisor.block.buffers import Buffers
from splitvisor.scsi.block_unit import SCRATCH_BYTES, addressed
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.disk_unit import DiskUnit
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import (
    BLOCK_OUT_OF_RANGE,
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETERS,
    PARAMETER_LIST_LENGTH,
    CheckError,
)

MAX_SAME_BYTES = 1 << 30
"""What a WRITE SAME may write."""
MAX_UNMAP_BLOCKS = 1 << 20
"""What an UNMAP may unmap with all its descriptors."""
MAX_UNMAP_DESCRIPTORS = 256
MAX_STATUS_DESCRIPTORS = 64
_DESCRIPTOR_BYTES = 16
_HEADER_BYTES = 8
_UNMAP = 0x08
_NO_DATA_OUT = 0x01


async def _unmap(disk: DiskUnit, exchange: Exchange) -> None:
    length = exchange.number(7, 2)
    ranges = _unmap_ranges(disk, exchange.parameters(length, _HEADER_BYTES + MAX_UNMAP_DESCRIPTORS * _DESCRIPTOR_BYTES, 7))
    disk.check_writable()
    for offset, size in ranges:
        async with disk.ranges.shared(offset, size):
            await disk.device.write_zeroes(offset, size, unmap=True)
    if ranges:
        await disk.settle()


def _unmap_ranges(disk: DiskUnit, data: bytes) -> list[tuple[int, int]]:
    """Offset and length of what an UNMAP parameter list has, all of it checked (SBC-3 5.28.2)."""
    if not data:
        return []
    if len(data) < _HEADER_BYTES:
        raise CheckError(PARAMETER_LIST_LENGTH)
    listed = min(int.from_bytes(data[2:4], "big"), len(data) - _HEADER_BYTES) // _DESCRIPTOR_BYTES
    ranges: list[tuple[int, int]] = []
    room = MAX_UNMAP_BLOCKS
    for at in range(_HEADER_BYTES, _HEADER_BYTES + listed * _DESCRIPTOR_BYTES, _DESCRIPTOR_BYTES):
        first, blocks = int.from_bytes(data[at : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big")
        if first + blocks > disk.blocks:
            raise CheckError(BLOCK_OUT_OF_RANGE.about(max(first, disk.blocks)))
        room -= blocks
        if room < 0:
            raise CheckError(INVALID_FIELD_IN_PARAMETERS.at(at + 8, in_cdb=False))
        if blocks:
            ranges.append((first * disk.block_bytes, blocks * disk.block_bytes))
    return ranges


async def _write_same_10(disk: DiskUnit, exchange: Exchange) -> None:
    await _write_same(disk, exchange, has_data=True)


async def _write_same_16(disk: DiskUnit, exchange: Exchange) -> None:
    await _write_same(disk, exchange, has_data=not exchange.cdb[1] & _NO_DATA_OUT)


async def _write_same(disk: DiskUnit, exchange: Exchange, has_data: bool) -> None:
    """Write one block, or zeroes, to a range. UNMAP counts only with zeroes: other contents need their room."""
    unmap = bool(exchange.cdb[1] & _UNMAP)
    if unmap and not disk.device.can_discard:
        raise CheckError(INVALID_FIELD_IN_CDB.at(1, 3))
    first, blocks = addressed(exchange.cdb)
    offset, length = disk.extent(first, blocks, MAX_SAME_BYTES // disk.block_bytes)
    if not blocks:
        raise CheckError(INVALID_FIELD_IN_CDB)  # Of the block limits, WSNZ says that 0 does not mean "to the end".
    disk.check_writable()
    block = b""
    if has_data:
        exchange.wanted_out = disk.block_bytes
        if exchange.command.data_out.length != disk.block_bytes:
            raise CheckError(INVALID_FIELD_IN_CDB)
        block = exchange.command.data_out.load()
        exchange.moved_out = disk.block_bytes
    async with disk.ranges.shared(offset, length):
        if block.strip(b"\0"):
            await _fill(disk, offset, length, block)
        else:
            await disk.device.write_zeroes(offset, length, unmap)
    await disk.settle()


async def _fill(disk: DiskUnit, offset: int, length: int, block: bytes) -> None:
    pattern = memoryview(block * (min(length, SCRATCH_BYTES) // len(block)))
    for at in range(0, length, len(pattern)):
        await disk.device.write(offset + at, Buffers((pattern[: length - at],)))


async def _lba_status(disk: DiskUnit, exchange: Exchange) -> None:
    """Say which blocks have room, from a first one on: as many runs as there is space for (SBC-3 5.4)."""
    first = exchange.number(2, 8)
    allocation = exchange.number(10, 4)
    if first >= disk.blocks:
        raise CheckError(BLOCK_OUT_OF_RANGE.about(disk.blocks))
    size = disk.block_bytes
    most = min(max((allocation - _HEADER_BYTES) // _DESCRIPTOR_BYTES, 1), MAX_STATUS_DESCRIPTORS)
    runs: list[bytes] = []
    while first < disk.blocks and len(runs) < most:
        allocated, length = await disk.device.allocated(first * size, min(disk.blocks - first, 0xFFFFFFFF) * size)
        if not allocated and length < size:
            allocated, length = True, size  # A block with some room has room.
        blocks = max(-(-length // size) if allocated else length // size, 1)
        runs.append(first.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes((0 if allocated else 1, 0, 0, 0)))
        first += blocks
    data = b"".join(runs)
    exchange.reply((4 + len(data)).to_bytes(4, "big") + bytes(4) + data, allocation)


WRITE_SAMES: tuple[Operation[Any], ...] = (
    Operation(
        0x41, "WRITE SAME(10)", _write_same_10, "08 ff ff ff ff 1f ff ff 00", access=Access.WRITE, medium=True, writes=True
    ),
    Operation(
        0x93,
        "WRITE SAME(16)",
        _write_same_16,
        "09 ff ff ff ff ff ff ff ff ff ff ff ff 1f 00",
        access=Access.WRITE,
        medium=True,
        writes=True,
    ),
)
THIN_COMMANDS: tuple[Operation[Any], ...] = (
    Operation(0x42, "UNMAP", _unmap, "00 00 00 00 00 1f ff ff 00", access=Access.WRITE, medium=True, writes=True),
    Operation(
        0x9E,
        "GET LBA STATUS",
        _lba_status,
        "00 ff ff ff ff ff ff ff ff ff ff ff ff 00 00",
        service_action=0x12,
        medium=True,
    ),
)
