# SPDX-License-Identifier: GPL-2.0-or-later
"""READ, WRITE, and the commands for the cache (SBC-3 5)."""

from __future__ import annotations

from typing import Any

from splitvisor.scsi.block_unit import BlockUnit, addressed
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.disk_unit import DiskUnit
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import BLOCK_OUT_OF_RANGE, CheckError

FUA = 0x08


async def read(unit: BlockUnit, exchange: Exchange) -> None:
    """READ with 10, 12 or 16 bytes of CDB. FUA has to do nothing: the device knows what it has not written yet."""
    offset, length = unit.extent(*addressed(exchange.cdb))
    await unit.send(exchange, offset, length)


async def _read_6(unit: BlockUnit, exchange: Exchange) -> None:
    offset, length = unit.extent(*_addressed_6(exchange))
    await unit.send(exchange, offset, length)


async def _write(disk: DiskUnit, exchange: Exchange) -> None:
    offset, length = disk.extent(*addressed(exchange.cdb))
    await store(disk, exchange, offset, length, fua=bool(exchange.cdb[1] & FUA))


async def _write_6(disk: DiskUnit, exchange: Exchange) -> None:
    offset, length = disk.extent(*_addressed_6(exchange))
    await store(disk, exchange, offset, length, fua=False)


def _addressed_6(exchange: Exchange) -> tuple[int, int]:
    return exchange.number(1, 3) & 0x1FFFFF, exchange.cdb[4] or 256


async def store(disk: DiskUnit, exchange: Exchange, offset: int, length: int, fua: bool) -> None:
    """Write an exchange's data, as far as there is some; a block of which there is only a part stays as it is."""
    disk.check_writable()
    exchange.wanted_out = length
    data = exchange.command.data_out
    if data.length != length:
        available = min(data.length, length)
        data = data.part(0, available - available % disk.block_bytes)
    if data.length:
        async with disk.ranges.shared(offset, data.length):
            await disk.device.write(offset, data, fua or disk.write_through)
    exchange.moved_out = data.length


async def _synchronize(disk: DiskUnit, exchange: Exchange) -> None:
    """Write all of the cache: a device cannot do so for some blocks only. IMMED has no use, for the end comes soon enough."""
    _check_range(disk, exchange)
    await disk.device.flush()


def _prefetch(disk: DiskUnit, exchange: Exchange) -> None:
    """Check the range: what the host caches is its own business. GOOD says that not all blocks are in the cache (SBC-3 5.10)."""
    _check_range(disk, exchange)


def _check_range(disk: DiskUnit, exchange: Exchange) -> None:
    """Check a range that is as long as it likes; a length of 0 is one to the end."""
    first, blocks = addressed(exchange.cdb)
    if first + blocks > disk.blocks:
        raise CheckError(BLOCK_OUT_OF_RANGE.about(max(first, disk.blocks)))


_TEN = "ff ff ff ff 1f ff ff 00"
_TWELVE = "ff ff ff ff ff ff ff ff 1f 00"
_SIXTEEN = "ff ff ff ff ff ff ff ff ff ff ff ff 1f 00"

READ_10 = Operation[Any](0x28, "READ(10)", read, f"18 {_TEN}", medium=True)
READ_12 = Operation[Any](0xA8, "READ(12)", read, f"18 {_TWELVE}", medium=True)
READS: tuple[Operation[Any], ...] = (
    Operation(0x08, "READ(6)", _read_6, "1f ff ff ff 00", medium=True),
    READ_10,
    READ_12,
    Operation(0x88, "READ(16)", read, f"18 {_SIXTEEN}", medium=True),
)
WRITES: tuple[Operation[Any], ...] = (
    Operation(0x0A, "WRITE(6)", _write_6, "1f ff ff ff 00", access=Access.WRITE, medium=True, writes=True),
    Operation(0x2A, "WRITE(10)", _write, f"18 {_TEN}", access=Access.WRITE, medium=True, writes=True),
    Operation(0xAA, "WRITE(12)", _write, f"18 {_TWELVE}", access=Access.WRITE, medium=True, writes=True),
    Operation(0x8A, "WRITE(16)", _write, f"18 {_SIXTEEN}", access=Access.WRITE, medium=True, writes=True),
)
CACHE_COMMANDS: tuple[Operation[Any], ...] = (
    Operation(0x35, "SYNCHRONIZE CACHE(10)", _synchronize, f"06 {_TEN}", access=Access.WRITE, medium=True, writes=True),
    Operation(0x91, "SYNCHRONIZE CACHE(16)", _synchronize, f"06 {_SIXTEEN}", access=Access.WRITE, medium=True, writes=True),
    Operation(0x34, "PRE-FETCH(10)", _prefetch, f"02 {_TEN}", medium=True),
    Operation(0x90, "PRE-FETCH(16)", _prefetch, f"02 {_SIXTEEN}", medium=True),
)
