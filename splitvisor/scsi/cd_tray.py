# SPDX-License-Identifier: GPL-2.0-or-later
"""The tray, and what happens to the medium: to open, close and lock it, and to ask for events (MMC-6 6)."""

from __future__ import annotations

from typing import Any

from splitvisor.scsi.cd_unit import CdUnit
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, REMOVAL_PREVENTED, CheckError
from splitvisor.scsi.start_stop import LOAD_EJECT, START

_POLLED = 0x01
_MEDIA_CLASS = 4
_NO_EVENTS = 0x80
_TRAY_OPEN = 0x01
_PRESENT = 0x02
_DOOR_OPEN = 0x10


def _start_stop(drive: CdUnit, exchange: Exchange) -> None:
    """Open or close the tray; whether the medium turns has no meaning."""
    flags = exchange.cdb[4]
    if not flags & LOAD_EJECT:
        return
    if flags & START:
        drive.close_tray(exchange.initiator)
        return
    if drive.locks:
        raise CheckError(REMOVAL_PREVENTED)
    drive.open_tray()


def _prevent_allow(drive: CdUnit, exchange: Exchange) -> None:
    if exchange.cdb[4] & 1:
        drive.locks.add(exchange.initiator)
    else:
        drive.locks.discard(exchange.initiator)


def _event_status(drive: CdUnit, exchange: Exchange) -> None:
    """Report the last event of the medium, once. Without Polled it would wait for one, which is not supported."""
    if not exchange.cdb[1] & _POLLED:
        raise CheckError(INVALID_FIELD_IN_CDB.at(1, 0))
    supported = 1 << _MEDIA_CLASS
    allocation = exchange.number(7, 2)
    if not exchange.cdb[4] & supported:
        exchange.reply(bytes((0, 2, _NO_EVENTS, supported)), allocation)
        return
    event = drive.take_event() if allocation > 4 else 0
    status = (_TRAY_OPEN if drive.tray_open else 0) | (_PRESENT if drive.ready is not None else 0)
    exchange.reply(bytes((0, 6, _MEDIA_CLASS, supported, event, status, 0, 0)), allocation)


def _mechanism_status(drive: CdUnit, exchange: Exchange) -> None:
    exchange.reply(bytes((0, _DOOR_OPEN if drive.tray_open else 0)) + bytes(6), exchange.number(8, 2))


COMMANDS: tuple[Operation[Any], ...] = (
    Operation(0x1B, "START STOP UNIT", _start_stop, "01 00 00 07 00", access=Access.WRITE),
    Operation(0x1E, "PREVENT ALLOW MEDIUM REMOVAL", _prevent_allow, "00 00 00 01 00", access=Access.WRITE),
    Operation(
        0x4A,
        "GET EVENT STATUS NOTIFICATION",
        _event_status,
        "01 00 00 ff 00 00 ff ff 00",
        access=Access.FREE,
        through_attention=True,
    ),
    Operation(0xBD, "MECHANISM STATUS", _mechanism_status, "00 00 00 00 00 00 00 ff ff 00 00", access=Access.QUERY),
)
