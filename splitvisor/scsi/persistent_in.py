# SPDX-License-Identifier: GPL-2.0-or-later
"""PERSISTENT RESERVE IN: who is registered, and what is reserved (SPC-4 6.15)."""

from __future__ import annotations

from typing import Any

from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.reservations import Reservations, ReservationType
from splitvisor.scsi.unit import LogicalUnit

_TYPE_MASK_VALID = 0x80
_TYPE_BITS = {
    ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS: 0x8000,
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: 0x4000,
    ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY: 0x2000,
    ReservationType.EXCLUSIVE_ACCESS: 0x0800,
    ReservationType.WRITE_EXCLUSIVE: 0x0200,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS: 0x0001,
}
_PORT = 1
"""The relative target port identifier: a target has one port."""


def _listed(held: Reservations, data: bytes) -> bytes:
    return held.generation.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data


def _read_keys(unit: LogicalUnit, exchange: Exchange) -> None:
    held = unit.reservations
    keys = b"".join(each.key.to_bytes(8, "big") for each in held.registrations.values())
    exchange.reply(_listed(held, keys), exchange.number(7, 2))


def _read_reservation(unit: LogicalUnit, exchange: Exchange) -> None:
    held = unit.reservations
    data = b""
    if held.persistent is not None:
        key = 0 if held.persistent.type.all_registrants else held.registrations[held.persistent.holder].key
        data = key.to_bytes(8, "big") + bytes(5) + bytes((held.persistent.type, 0, 0))
    exchange.reply(_listed(held, data), exchange.number(7, 2))


def _report_capabilities(unit: LogicalUnit, exchange: Exchange) -> None:
    """Neither RESERVE's commands for registered initiators, nor all ports at once, nor what survives a loss of power."""
    types = sum(_TYPE_BITS.values())
    exchange.reply(bytes((0, 8, 0, _TYPE_MASK_VALID)) + types.to_bytes(2, "big") + bytes(2), exchange.number(7, 2))


def _read_full_status(unit: LogicalUnit, exchange: Exchange) -> None:
    held = unit.reservations
    parts = []
    for each in held.registrations.values():
        holds = held.holds(each.initiator)
        scope_and_type = held.persistent.type if held.persistent is not None and holds else 0
        parts.append(
            each.key.to_bytes(8, "big")
            + bytes((0, 0, 0, 0, holds, scope_and_type, 0, 0, 0, 0))
            + _PORT.to_bytes(2, "big")
            + len(each.transport_id).to_bytes(4, "big")
            + each.transport_id
        )
    exchange.reply(_listed(held, b"".join(parts)), exchange.number(7, 2))


_USAGE = "00 00 00 00 00 00 ff ff 00"

COMMANDS: tuple[Operation[Any], ...] = tuple(
    Operation(0x5E, f"PERSISTENT RESERVE IN, {name}", handler, _USAGE, service_action=action, access=Access.QUERY)
    for action, name, handler in (
        (0, "READ KEYS", _read_keys),
        (1, "READ RESERVATION", _read_reservation),
        (2, "REPORT CAPABILITIES", _report_capabilities),
        (3, "READ FULL STATUS", _read_full_status),
    )
)
