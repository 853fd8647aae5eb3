# SPDX-License-Identifier: GPL-2.0-or-later
"""INQUIRY: what a logical unit is (SPC-4 6.6), and the pages of vital product data that all kinds have (SPC-4 7.8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from splitvisor.scsi.codes import DeviceType
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, CheckError
from splitvisor.scsi.unit import REVISION, VENDOR, LogicalUnit

_NO_UNIT = 0x7F
"""Peripheral qualifier 3 with device type 1Fh: this number can have no unit now."""
_SPC_4 = 0x06
_HISUP_FORMAT_2 = 0x12
_COMMAND_QUEUING = 0x02
_STANDARD_BYTES = 96


def text(value: str, length: int) -> bytes:
    """Return ASCII, padded with blanks to a length."""
    return value.encode("ascii").ljust(length)[:length]


def _inquiry(unit: LogicalUnit, exchange: Exchange) -> None:
    page = exchange.cdb[2]
    allocation = exchange.number(3, 2)
    if not exchange.cdb[1] & 1:
        if page:
            raise CheckError(INVALID_FIELD_IN_CDB.at(2))
        exchange.reply(_standard(unit), allocation)
        return
    build = unit.vpd_pages.get(page)
    if build is None:
        raise CheckError(INVALID_FIELD_IN_CDB.at(2))
    content = build(unit)
    exchange.reply(bytes((unit.device_type, page)) + len(content).to_bytes(2, "big") + content, allocation)


def _standard(unit: LogicalUnit) -> bytes:
    head = bytes(
        (
            _NO_UNIT if unit.device_type is DeviceType.NONE else unit.device_type,
            0x80 if unit.removable else 0,
            _SPC_4,
            _HISUP_FORMAT_2,
            _STANDARD_BYTES - 5,
            0,
            0,
            _COMMAND_QUEUING,
        )
    )
    names = text(VENDOR, 8) + text(unit.product, 16) + text(REVISION, 4)
    versions = b"".join(each.to_bytes(2, "big") for each in unit.version_descriptors)
    return ((head + names).ljust(58, b"\0") + versions).ljust(_STANDARD_BYTES, b"\0")


def _supported_pages(unit: LogicalUnit) -> bytes:
    return bytes(sorted(unit.vpd_pages))


def _serial_number(unit: LogicalUnit) -> bytes:
    return unit.identity.serial.encode("ascii")


def _identification(unit: LogicalUnit) -> bytes:
    """Two names of the unit: by vendor, product and serial number, and an NAA identifier (SPC-4 7.8.6)."""
    vendor = text(VENDOR, 8) + text(unit.product, 16) + _serial_number(unit)
    name = unit.identity.name()
    return bytes((0x02, 0x01, 0, len(vendor))) + vendor + bytes((0x01, 0x03, 0, len(name))) + name


COMMON_PAGES: Mapping[int, Callable[[Any], bytes]] = {0x00: _supported_pages, 0x80: _serial_number, 0x83: _identification}

INQUIRY = Operation(0x12, "INQUIRY", _inquiry, "01 ff ff ff 00", access=Access.FREE, through_attention=True)
