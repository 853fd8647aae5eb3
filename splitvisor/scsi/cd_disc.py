# SPDX-License-Identifier: GPL-2.0-or-later
"""What is on a disc: one data track in one complete session. READ CAPACITY, READ TOC, and the information commands (MMC-6 6)."""

from __future__ import annotations

from typing import Any

from splitvisor.scsi.cd_unit import CdUnit
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import BLOCK_OUT_OF_RANGE, INVALID_FIELD_IN_CDB, CheckError

_DATA_TRACK = 0x14
"""Q sub-channel with a position; a data track that is recorded without interruption."""
_LEAD_OUT = 0xAA
_PREGAP_FRAMES = 150
_FRAMES = 75
_COMPLETE = 0x0E
"""The disc and its last session are complete."""


def _read_capacity(drive: CdUnit, exchange: Exchange) -> None:
    exchange.reply(max(drive.blocks - 1, 0).to_bytes(4, "big") + drive.block_bytes.to_bytes(4, "big"), 8)


def _read_toc(drive: CdUnit, exchange: Exchange) -> None:
    """Formats 0 (tracks), 1 (sessions) and 2 (as it is on the disc); SFF-8020 has the format in the control byte."""
    layout = exchange.cdb[2] & 0x0F or exchange.cdb[9] >> 6
    msf = bool(exchange.cdb[1] & 0x02)
    if layout == 0:
        data = _tracks(drive, exchange.cdb[6], msf)
    elif layout == 1:
        data = bytes((0, _DATA_TRACK, 1, 0)) + _address(0, msf)
    elif layout == 2:
        data = _raw_toc(drive)
    else:
        raise CheckError(INVALID_FIELD_IN_CDB.at(2, 3))
    exchange.reply((len(data) + 2).to_bytes(2, "big") + bytes((1, 1)) + data, exchange.number(7, 2))


def _tracks(drive: CdUnit, first: int, msf: bool) -> bytes:
    if first > 1 and first != _LEAD_OUT:
        raise CheckError(INVALID_FIELD_IN_CDB.at(6))
    track = bytes((0, _DATA_TRACK, 1, 0)) + _address(0, msf)
    lead_out = bytes((0, _DATA_TRACK, _LEAD_OUT, 0)) + _address(drive.blocks, msf)
    return lead_out if first == _LEAD_OUT else track + lead_out


def _raw_toc(drive: CdUnit) -> bytes:
    """The entries of the lead-in: first and last track, start of the lead-out, and the track."""
    points = (
        (0xA0, bytes((1, 0, 0))),
        (0xA1, bytes((1, 0, 0))),
        (0xA2, _address(drive.blocks, True)[1:]),
        (1, _address(0, True)[1:]),
    )
    return b"".join(bytes((1, _DATA_TRACK, 0, point, 0, 0, 0, 0)) + where for point, where in points)


def _address(block: int, msf: bool) -> bytes:
    """A block as a number, or as minute, second and frame; a DVD has more minutes than there is room for."""
    if not msf:
        return min(block, 0xFFFFFFFF).to_bytes(4, "big")
    seconds, frame = divmod(block + _PREGAP_FRAMES, _FRAMES)
    return bytes((0, min(seconds // 60, 0xFF), seconds % 60, frame))


def _disc_information(drive: CdUnit, exchange: Exchange) -> None:
    if exchange.cdb[1] & 0x07:
        raise CheckError(INVALID_FIELD_IN_CDB.at(1, 2))
    exchange.reply(bytes((0, 32, _COMPLETE, 1, 1, 1, 1)).ljust(34, b"\0"), exchange.number(7, 2))


def _track_information(drive: CdUnit, exchange: Exchange) -> None:
    """Information about the track: of a block (address type 0), or by its number (1); by the number of a session (2)."""
    kind, number = exchange.cdb[1] & 0x03, exchange.number(2, 4)
    if kind == 3 or (kind != 0 and number != 1):
        raise CheckError(INVALID_FIELD_IN_CDB.at(2))
    if kind == 0 and number >= drive.blocks:
        raise CheckError(BLOCK_OUT_OF_RANGE.about(number))
    data = bytes((0, 34, 1, 1, 0, 0x04, 0x01, 0)).ljust(24, b"\0") + min(drive.blocks, 0xFFFFFFFF).to_bytes(4, "big")
    exchange.reply(data.ljust(36, b"\0"), exchange.number(7, 2))


COMMANDS: tuple[Operation[Any], ...] = (
    Operation(0x25, "READ CAPACITY(10)", _read_capacity, "00 00 00 00 00 00 00 00 00", access=Access.QUERY, medium=True),
    Operation(0x43, "READ TOC/PMA/ATIP", _read_toc, "02 0f 00 00 00 ff ff ff 00", medium=True),
    Operation(0x51, "READ DISC INFORMATION", _disc_information, "07 00 00 00 00 00 ff ff 00", medium=True),
    Operation(0x52, "READ TRACK INFORMATION", _track_information, "03 ff ff ff ff 00 ff ff 00", medium=True),
)
