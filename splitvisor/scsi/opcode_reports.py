# SPDX-License-Identifier: GPL-2.0-or-later
"""REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.35 and 6.36)."""

from __future__ import annotations

from typing import Any

from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, CheckError
from splitvisor.scsi.unit import LogicalUnit

_WITH_TIMEOUTS = 0x80
_NO_TIMEOUTS = bytes((0, 0x0A)) + bytes(10)
_NOT_SUPPORTED = 0x01
_SUPPORTED = 0x03
_TASK_FUNCTIONS = bytes((0xDA, 0x01))
"""Abort task, abort and clear task set, logical unit and target reset; loss of an I_T nexus."""


def _report_operations(unit: LogicalUnit, exchange: Exchange) -> None:
    options = exchange.cdb[2] & 0x07
    timeouts = bool(exchange.cdb[2] & _WITH_TIMEOUTS)
    if options > 3:
        raise CheckError(INVALID_FIELD_IN_CDB.at(2, 2))
    data = _all_operations(unit, timeouts) if options == 0 else _one_operation(unit, exchange, options, timeouts)
    exchange.reply(data, exchange.number(6, 4))


def _all_operations(unit: LogicalUnit, timeouts: bool) -> bytes:
    parts = []
    for each in unit.table:
        flags = (0x02 if timeouts else 0) | (each.service_action is not None)
        head = bytes((each.opcode, 0)) + (each.service_action or 0).to_bytes(2, "big") + bytes((0, flags))
        parts.append(head + len(each.mask()).to_bytes(2, "big") + (_NO_TIMEOUTS if timeouts else b""))
    data = b"".join(parts)
    return len(data).to_bytes(4, "big") + data


def _one_operation(unit: LogicalUnit, exchange: Exchange, options: int, timeouts: bool) -> bytes:
    """One operation by its code (options 1), with its service action (2), or by whichever it has (3)."""
    found = unit.table.with_opcode(exchange.cdb[3])
    action = exchange.number(4, 2)
    has_actions = bool(found) and found[0].service_action is not None
    if (options == 1 and has_actions) or (options == 2 and found and not has_actions):
        raise CheckError(INVALID_FIELD_IN_CDB.at(2, 2))
    if has_actions:
        found = [each for each in found if each.service_action == action]
    elif options == 3 and action:
        found = []
    if not found:
        return bytes((0, _NOT_SUPPORTED, 0, 0))
    mask = found[0].mask()
    head = bytes((0, _SUPPORTED | (0x80 if timeouts else 0))) + len(mask).to_bytes(2, "big")
    return head + mask + (_NO_TIMEOUTS if timeouts else b"")


def _report_task_functions(unit: LogicalUnit, exchange: Exchange) -> None:
    allocation = exchange.number(6, 4)
    if allocation < 4:
        raise CheckError(INVALID_FIELD_IN_CDB.at(6))
    extended = exchange.cdb[2] & 0x80
    exchange.reply(_TASK_FUNCTIONS + (bytes((0, 12)) + bytes(12) if extended else bytes(2)), allocation)


REPORT_OPERATIONS = Operation[Any](
    0xA3,
    "REPORT SUPPORTED OPERATION CODES",
    _report_operations,
    "00 87 ff ff ff ff ff ff ff 00 00",
    service_action=0x0C,
    access=Access.QUERY,
)
REPORT_TASK_FUNCTIONS = Operation[Any](
    0xA3,
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    _report_task_functions,
    "00 80 00 00 00 ff ff ff ff 00 00",
    service_action=0x0D,
    access=Access.QUERY,
)
