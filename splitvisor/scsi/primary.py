# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that all kinds of logical units have, or those with media (SPC-4 6)."""

from __future__ import annotations

from typing import Any

from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, CheckError
from splitvisor.scsi.unit import LogicalUnit

_REPORT_LUNS_LEAST = 16
_SELF_TEST = 0x04
_SELF_TEST_CODE = 0xE0
_EXCEPTIONS_PAGE = 0x2F
_LOG_PAGES: dict[int, bytes] = {
    0x00: bytes((0x00, _EXCEPTIONS_PAGE)),
    # One parameter, 0000h: no exception, and a temperature that is not known.
    _EXCEPTIONS_PAGE: bytes((0x00, 0x00, 0x03, 0x04, 0x00, 0x00, 0xFF, 0x00)),
}


def _test_unit_ready(unit: LogicalUnit, exchange: Exchange) -> None:
    """Nothing is left to do: that the unit is ready was seen before."""


def _request_sense(unit: LogicalUnit, exchange: Exchange) -> None:
    sense = unit.requested_sense(exchange.initiator)
    exchange.reply(sense.encoded(bool(exchange.cdb[1] & 1)), exchange.cdb[4])


def _report_luns(unit: LogicalUnit, exchange: Exchange) -> None:
    select = exchange.cdb[2]
    allocation = exchange.number(6, 4)
    if select > 2:
        raise CheckError(INVALID_FIELD_IN_CDB.at(2))
    if allocation < _REPORT_LUNS_LEAST:
        raise CheckError(INVALID_FIELD_IN_CDB.at(6))
    exchange.reply(unit.listing(select, exchange.command.lun, exchange.initiator), allocation)


def _send_diagnostic(unit: LogicalUnit, exchange: Exchange) -> None:
    """The default self-test. It finds nothing: what holds the blocks reports its errors with each transfer."""
    if exchange.cdb[1] & _SELF_TEST_CODE or not exchange.cdb[1] & _SELF_TEST:
        raise CheckError(INVALID_FIELD_IN_CDB.at(1))


def _log_sense(unit: LogicalUnit, exchange: Exchange) -> None:
    code = exchange.cdb[2] & 0x3F
    page = _LOG_PAGES.get(code)
    if page is None:
        raise CheckError(INVALID_FIELD_IN_CDB.at(2, 5))
    if exchange.number(5, 2):
        raise CheckError(INVALID_FIELD_IN_CDB.at(5))
    exchange.reply(bytes((code, 0)) + len(page).to_bytes(2, "big") + page, exchange.number(7, 2))


TEST_UNIT_READY = Operation[Any](0x00, "TEST UNIT READY", _test_unit_ready, "00 00 00 00 00", access=Access.QUERY, medium=True)
REQUEST_SENSE = Operation[Any](
    0x03, "REQUEST SENSE", _request_sense, "01 00 00 ff 00", access=Access.FREE, through_attention=True
)
REPORT_LUNS = Operation[Any](
    0xA0, "REPORT LUNS", _report_luns, "00 ff 00 00 00 ff ff ff ff 00 00", access=Access.FREE, through_attention=True
)
SEND_DIAGNOSTIC = Operation[Any](0x1D, "SEND DIAGNOSTIC", _send_diagnostic, "e4 00 00 00 00", access=Access.WRITE)
LOG_SENSE = Operation[Any](0x4D, "LOG SENSE", _log_sense, "00 ff 00 00 ff ff ff ff 00", access=Access.QUERY)
