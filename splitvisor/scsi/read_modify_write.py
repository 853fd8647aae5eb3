# SPDX-License-Identifier: GPL-2.0-or-later
"""COMPARE AND WRITE and ORWRITE: they read, decide and write, and nothing is written between (SBC-3 5.2 and 5.7)."""

from __future__ import annotations

from typing import Any

from splitvisor.block.buffers import Buffers
from splitvisor.scsi.block_unit import addressed
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.disk_unit import DiskUnit
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, MISCOMPARE, CheckError
from splitvisor.scsi.transfers import FUA
from splitvisor.scsi.verification import first_difference

MAX_BYTES = 128 << 10
"""What such a command writes at a time, and COMPARE AND WRITE at all; it needs that much memory twice."""


def max_compare_blocks(disk: DiskUnit) -> int:
    """Return the maximum compare and write length; the CDB has one byte for it."""
    return min(0xFF, MAX_BYTES // disk.block_bytes)


async def _compare_and_write(disk: DiskUnit, exchange: Exchange) -> None:
    offset, length = disk.extent(exchange.number(2, 8), exchange.cdb[13], max_compare_blocks(disk))
    disk.check_writable()
    exchange.wanted_out = 2 * length
    if exchange.command.data_out.length != exchange.wanted_out:
        raise CheckError(INVALID_FIELD_IN_CDB.at(13))
    if not length:
        return
    expected = exchange.command.data_out.load(0, length)
    async with disk.ranges.exclusive(offset, length):
        present = bytearray(length)
        await disk.device.read(offset, Buffers.of(present))
        exchange.moved_out = exchange.wanted_out
        if present != expected:
            raise CheckError(MISCOMPARE.about(first_difference(expected, bytes(present))))
        new = exchange.command.data_out.part(length, length)
        await disk.device.write(offset, new, bool(exchange.cdb[1] & FUA) or disk.write_through)


async def _or_write(disk: DiskUnit, exchange: Exchange) -> None:
    """Set the bits that the data has set, piece by piece, with all of the blocks kept from other writers."""
    offset, length = disk.extent(*addressed(exchange.cdb))
    disk.check_writable()
    exchange.wanted_out = length
    data = exchange.command.data_out
    available = min(data.length, length)
    available -= available % disk.block_bytes
    if not available:
        return
    fua = bool(exchange.cdb[1] & FUA) or disk.write_through
    async with disk.ranges.exclusive(offset, available):
        for at in range(0, available, MAX_BYTES):
            new = data.load(at, min(MAX_BYTES, available - at))
            present = bytearray(len(new))
            await disk.device.read(offset + at, Buffers.of(present))
            united = int.from_bytes(present, "big") | int.from_bytes(new, "big")
            await disk.device.write(offset + at, Buffers.of(united.to_bytes(len(new), "big")), fua)
    exchange.moved_out = available


COMMANDS: tuple[Operation[Any], ...] = (
    Operation(
        0x89,
        "COMPARE AND WRITE",
        _compare_and_write,
        "18 ff ff ff ff ff ff ff ff 00 00 00 ff 1f 00",
        access=Access.WRITE,
        medium=True,
        writes=True,
    ),
    Operation(
        0x8B,
        "ORWRITE(16)",
        _or_write,
        "18 ff ff ff ff ff ff ff ff ff ff ff ff 1f 00",
        access=Access.WRITE,
        medium=True,
        writes=True,
    ),
)
