# SPDX-License-Identifier: GPL-2.0-or-later
"""VERIFY and WRITE AND VERIFY (SBC-3 5.33 and 5.42)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from splitvisor.scsi.block_unit import SCRATCH_BYTES, BlockUnit, addressed
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.disk_unit import DiskUnit
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, MISCOMPARE, CheckError
from splitvisor.scsi.transfers import store

_ALL_BLOCKS = 1
_ONE_BLOCK = 3


async def verify(unit: BlockUnit, exchange: Exchange) -> None:
    """Read blocks; with BYTCHK compare them with the data, or each of them with one block of data."""
    offset, length = unit.extent(*addressed(exchange.cdb))
    check = exchange.cdb[1] >> 1 & 3
    if check == _ALL_BLOCKS:
        exchange.wanted_out = length
        await _compare_all(unit, exchange, offset, length)
    elif check == _ONE_BLOCK:
        exchange.wanted_out = min(length, unit.block_bytes)
        block = exchange.command.data_out.load(0, exchange.wanted_out)
        if len(block) == unit.block_bytes:
            pattern = block * (SCRATCH_BYTES // len(block))
            await _compare(unit, offset, length, lambda done, size: pattern[:size])
            exchange.moved_out = len(block)
    elif check:
        raise CheckError(INVALID_FIELD_IN_CDB.at(1, 2))
    else:
        await _scan(unit, offset, length)


async def _write_and_verify(disk: DiskUnit, exchange: Exchange) -> None:
    check = exchange.cdb[1] >> 1 & 3
    if check not in (0, _ALL_BLOCKS):
        raise CheckError(INVALID_FIELD_IN_CDB.at(1, 2))
    offset, length = disk.extent(*addressed(exchange.cdb))
    await store(disk, exchange, offset, length, fua=True)
    if check:
        await _compare_all(disk, exchange, offset, exchange.moved_out)
    else:
        await _scan(disk, offset, exchange.moved_out)


async def _scan(unit: BlockUnit, offset: int, length: int) -> None:
    async for _ in unit.chunks(offset, length):
        pass


async def _compare_all(unit: BlockUnit, exchange: Exchange, offset: int, length: int) -> None:
    """Compare blocks from an offset with the data, as far as there are whole blocks of it."""
    data = exchange.command.data_out
    available = min(data.length, length)
    available -= available % unit.block_bytes
    await _compare(unit, offset, available, data.load)
    exchange.moved_out = available


async def _compare(unit: BlockUnit, offset: int, length: int, sent: Callable[[int, int], bytes]) -> None:
    """Compare blocks from an offset with what a function of distance and size returns."""
    async for done, piece in unit.chunks(offset, length):
        data = sent(done, len(piece))
        if data != piece:
            raise CheckError(MISCOMPARE.about(done + first_difference(data, bytes(piece))))


def first_difference(one: bytes, other: bytes) -> int:
    """Return where two runs of the same length differ first."""
    start, end = 0, len(one)
    while end - start > 1:
        middle = (start + end) // 2
        if one[start:middle] == other[start:middle]:
            start = middle
        else:
            end = middle
    return start


_TEN = "ff ff ff ff 1f ff ff 00"
_TWELVE = "ff ff ff ff ff ff ff ff 1f 00"
_SIXTEEN = "ff ff ff ff ff ff ff ff ff ff ff ff 1f 00"

VERIFY_10 = Operation[Any](0x2F, "VERIFY(10)", verify, f"16 {_TEN}", medium=True)
COMMANDS: tuple[Operation[Any], ...] = (
    VERIFY_10,
    Operation(0xAF, "VERIFY(12)", verify, f"16 {_TWELVE}", medium=True),
    Operation(0x8F, "VERIFY(16)", verify, f"16 {_SIXTEEN}", medium=True),
    Operation(0x2E, "WRITE AND VERIFY(10)", _write_and_verify, f"16 {_TEN}", access=Access.WRITE, medium=True, writes=True),
    Operation(0xAE, "WRITE AND VERIFY(12)", _write_and_verify, f"16 {_TWELVE}", access=Access.WRITE, medium=True, writes=True),
    Operation(0x8E, "WRITE AND VERIFY(16)", _write_and_verify, f"16 {_SIXTEEN}", access=Access.WRITE, medium=True, writes=True),
)
