# SPDX-License-Identifier: GPL-2.0-or-later
"""MODE SENSE and MODE SELECT, of 6 and of 10 bytes (SPC-4 6.11 to 6.14)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from splitvisor.scsi.command import Exchange
from splitvisor.scsi.mode_pages import ALL_PAGES, PageControl
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETERS,
    PARAMETER_LIST_LENGTH,
    SAVING_NOT_SUPPORTED,
    CheckError,
)
from splitvisor.scsi.unit import LogicalUnit

_NO_DESCRIPTORS = 0x08
_LONG_DESCRIPTOR = 0x10
_PAGE_FORMAT = 0x10
_ALL_SUBPAGES = 0xFF
MAX_LIST = 1024
"""The bytes of a MODE SELECT's parameter list: all pages with a header need fewer."""


def _mode_sense_6(unit: LogicalUnit, exchange: Exchange) -> None:
    descriptor, pages = _sensed(unit, exchange, long=False)
    length = 3 + len(descriptor) + len(pages)
    head = bytes((length, 0, unit.mode_flags(), len(descriptor)))
    exchange.reply(head + descriptor + pages, exchange.cdb[4])


def _mode_sense_10(unit: LogicalUnit, exchange: Exchange) -> None:
    long = bool(exchange.cdb[1] & _LONG_DESCRIPTOR)
    descriptor, pages = _sensed(unit, exchange, long=long)
    length = 6 + len(descriptor) + len(pages)
    is_long = long and bool(descriptor)
    head = length.to_bytes(2, "big") + bytes((0, unit.mode_flags(), is_long, 0)) + len(descriptor).to_bytes(2, "big")
    exchange.reply(head + descriptor + pages, exchange.number(7, 2))


def _sensed(unit: LogicalUnit, exchange: Exchange, long: bool) -> tuple[bytes, bytes]:
    """The block descriptor and the pages that the CDB asks for."""
    control = PageControl(exchange.cdb[2] >> 6)
    code = exchange.cdb[2] & 0x3F
    if control is PageControl.SAVED:
        raise CheckError(SAVING_NOT_SUPPORTED)
    codes = unit.modes.codes()
    if code != ALL_PAGES and code not in codes:
        raise CheckError(INVALID_FIELD_IN_CDB.at(2, 5))
    if exchange.cdb[3] not in (0, _ALL_SUBPAGES):
        raise CheckError(INVALID_FIELD_IN_CDB.at(3))
    wanted = codes if code == ALL_PAGES else [code]
    pages = b""
    for each in wanted:
        values = unit.modes.values(each, control)
        pages += bytes((each, len(values))) + values
    return b"" if exchange.cdb[1] & _NO_DESCRIPTORS else unit.block_descriptor(long), pages


def _mode_select_6(unit: LogicalUnit, exchange: Exchange) -> None:
    data = _parameters(exchange, exchange.cdb[4], 4)
    if data:
        _select(unit, exchange, data, head=4, descriptor_length=data[3] if len(data) > 3 else 0, long=False)


def _mode_select_10(unit: LogicalUnit, exchange: Exchange) -> None:
    data = _parameters(exchange, exchange.number(7, 2), 7)
    if data:
        _select(unit, exchange, data, head=8, descriptor_length=int.from_bytes(data[6:8], "big"), long=bool(data[4:5] == b"\x01"))


def _parameters(exchange: Exchange, length: int, field_at: int) -> bytes:
    if not exchange.cdb[1] & _PAGE_FORMAT:
        raise CheckError(INVALID_FIELD_IN_CDB.at(1, 4))
    return exchange.parameters(length, MAX_LIST, field_at)


def _select(unit: LogicalUnit, exchange: Exchange, data: bytes, head: int, descriptor_length: int, long: bool) -> None:
    """Check all of a parameter list, then change what it changes."""
    if len(data) < head + descriptor_length:
        raise CheckError(PARAMETER_LIST_LENGTH)
    descriptor = data[head : head + descriptor_length]
    if descriptor and not _same_blocks(unit, descriptor, long):
        raise CheckError(INVALID_FIELD_IN_PARAMETERS.at(head, in_cdb=False))
    pages = list(_pages(unit, data, head + descriptor_length))
    if sum([unit.modes.change(code, values) for code, values in pages]):
        unit.modes_changed(exchange.initiator)


def _same_blocks(unit: LogicalUnit, descriptor: bytes, long: bool) -> bool:
    """Whether a block descriptor leaves number and size of the blocks as they are; a number of 0 or of all ones is such."""
    now = unit.block_descriptor(long)
    if len(descriptor) != len(now):
        return False
    count = 8 if long else 4
    return descriptor[-3:] == now[-3:] and descriptor[:count] in (now[:count], bytes(count), b"\xff" * count)


def _pages(unit: LogicalUnit, data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """The pages of a parameter list, each with values that are allowed."""
    while at < len(data):
        code = data[at] & 0x3F
        if data[at] & 0x40 or code not in unit.modes.codes():
            raise CheckError(INVALID_FIELD_IN_PARAMETERS.at(at, in_cdb=False))
        if at + 2 > len(data):
            raise CheckError(PARAMETER_LIST_LENGTH)
        length = len(unit.modes.values(code))
        if data[at + 1] != length:
            raise CheckError(INVALID_FIELD_IN_PARAMETERS.at(at + 1, in_cdb=False))
        values = data[at + 2 : at + 2 + length]
        if len(values) < length:
            raise CheckError(PARAMETER_LIST_LENGTH)
        wrong = unit.modes.wrong_byte(code, values)
        if wrong is not None:
            raise CheckError(INVALID_FIELD_IN_PARAMETERS.at(at + wrong, in_cdb=False))
        yield code, values
        at += 2 + length


MODE_COMMANDS: tuple[Operation[Any], ...] = (
    Operation(0x1A, "MODE SENSE(6)", _mode_sense_6, "08 ff ff ff 00", access=Access.WRITE),
    Operation(0x5A, "MODE SENSE(10)", _mode_sense_10, "18 ff ff 00 00 00 ff ff 00", access=Access.WRITE),
    # Without the bit that saves pages: there is nowhere to save them.
    Operation(0x15, "MODE SELECT(6)", _mode_select_6, "10 00 00 ff 00", access=Access.WRITE),
    Operation(0x55, "MODE SELECT(10)", _mode_select_10, "10 00 00 00 00 00 ff ff 00", access=Access.WRITE),
)
