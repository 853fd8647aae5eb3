# SPDX-License-Identifier: GPL-2.0-or-later
"""PERSISTENT RESERVE OUT: register, reserve, release, clear and preempt (SPC-4 6.16 and 5.12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.reservations import MAX_REGISTRATIONS, PersistentReservation, Registration, ReservationType
from splitvisor.scsi.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETERS,
    INVALID_RELEASE,
    OUT_OF_REGISTRATIONS,
    PARAMETER_LIST_LENGTH,
    REGISTRATIONS_PREEMPTED,
    RESERVATIONS_PREEMPTED,
    RESERVATIONS_RELEASED,
    CheckError,
    ConflictError,
)
from splitvisor.scsi.task_set import abort
from splitvisor.scsi.unit import LogicalUnit

_LIST_BYTES = 24
_FLAGS_AT = 20


@dataclass(frozen=True)
class _Request:
    """The parameters of a command."""

    initiator: str
    key: int
    action_key: int
    type: int


def _request(unit: LogicalUnit, exchange: Exchange, *, checks_key: bool = True) -> _Request:
    """The parameters, checked: without other ports, and without what survives a loss of power."""
    length = exchange.number(5, 4)
    if length != _LIST_BYTES:
        raise CheckError(PARAMETER_LIST_LENGTH)
    data = exchange.parameters(length, _LIST_BYTES, 5)
    if data[_FLAGS_AT]:
        raise CheckError(INVALID_FIELD_IN_PARAMETERS.at(_FLAGS_AT, in_cdb=False))
    key, action_key = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
    initiator = exchange.initiator
    if checks_key:
        registered = unit.reservations.registrations.get(initiator)
        if registered is None or registered.key != key:
            raise ConflictError
    return _Request(initiator, key, action_key, exchange.cdb[2])


def _register(unit: LogicalUnit, exchange: Exchange) -> None:
    request = _request(unit, exchange, checks_key=False)
    registered = unit.reservations.registrations.get(request.initiator)
    if request.key != (registered.key if registered is not None else 0):
        raise ConflictError
    _set_key(unit, exchange, request)


def _register_and_ignore(unit: LogicalUnit, exchange: Exchange) -> None:
    _set_key(unit, exchange, _request(unit, exchange, checks_key=False))


def _set_key(unit: LogicalUnit, exchange: Exchange, request: _Request) -> None:
    held = unit.reservations
    if request.action_key:
        if request.initiator not in held.registrations and len(held.registrations) >= MAX_REGISTRATIONS:
            raise CheckError(OUT_OF_REGISTRATIONS)
        identifier = exchange.command.initiator.identifier()
        held.registrations[request.initiator] = Registration(request.initiator, request.action_key, identifier)
    elif request.initiator in held.registrations:
        before = held.persistent
        if held.unregister(request.initiator) and before is not None and before.type.for_registrants:
            _attention_to_registrants(unit, but=request.initiator)
    held.generation = held.generation + 1 & 0xFFFFFFFF


def _reserve(unit: LogicalUnit, exchange: Exchange) -> None:
    request = _request(unit, exchange)
    kind = _type(exchange)
    held = unit.reservations
    if held.persistent is not None:
        if not held.holds(request.initiator) or held.persistent.type is not kind:
            raise ConflictError
        return
    held.persistent = PersistentReservation(request.initiator, kind)


def _release(unit: LogicalUnit, exchange: Exchange) -> None:
    request = _request(unit, exchange)
    held = unit.reservations
    if held.persistent is None or not held.holds(request.initiator):
        return
    if held.persistent.type != request.type:
        raise CheckError(INVALID_RELEASE)
    with_registrants = held.persistent.type.for_registrants
    held.persistent = None
    if with_registrants:
        _attention_to_registrants(unit, but=request.initiator)


def _clear(unit: LogicalUnit, exchange: Exchange) -> None:
    request = _request(unit, exchange)
    held = unit.reservations
    for each in held.registrations:
        if each != request.initiator:
            unit.attention(RESERVATIONS_PREEMPTED, only=each)
    held.registrations.clear()
    held.persistent = None
    held.generation = held.generation + 1 & 0xFFFFFFFF


def _preempt(unit: LogicalUnit, exchange: Exchange) -> None:
    _preempted(unit, exchange)


async def _preempt_and_abort(unit: LogicalUnit, exchange: Exchange) -> None:
    """Preempt, and abort the commands of those whose registrations go; the answer waits for their end (SPC-4 5.12.11.2.6)."""
    victims = set(_preempted(unit, exchange)) - {exchange.initiator}
    await abort(unit.tasks.matching(lambda each: each.command.initiator.name in victims))


def _preempted(unit: LogicalUnit, exchange: Exchange) -> list[str]:
    """Remove the registrations with a key, and take the reservation over, if its holder has that key (SPC-4 5.12.11.2.4)."""
    request = _request(unit, exchange)
    held = unit.reservations
    before = held.persistent
    victims = held.with_key(request.action_key)
    if before is not None and before.type.all_registrants:
        takes_over = not request.action_key
        if takes_over:
            victims = list(held.registrations)
    elif not request.action_key:
        raise CheckError(INVALID_FIELD_IN_PARAMETERS.at(8, in_cdb=False))
    else:
        takes_over = before is not None and before.holder in victims
    kind = _type(exchange) if takes_over else None
    if not victims:
        raise ConflictError
    for each in victims:
        if each != request.initiator or not takes_over:
            held.unregister(each)
        if each != request.initiator:
            unit.attention(REGISTRATIONS_PREEMPTED, only=each)
    if kind is not None:
        held.persistent = PersistentReservation(request.initiator, kind)
        if before is not None and before.type is not kind:
            for each in held.registrations:
                if each != request.initiator:
                    unit.attention(RESERVATIONS_RELEASED, only=each)
    held.generation = held.generation + 1 & 0xFFFFFFFF
    return victims


def _type(exchange: Exchange) -> ReservationType:
    """The type of the CDB, which must be one, with the scope of a logical unit."""
    try:
        return ReservationType(exchange.cdb[2])
    except ValueError:
        raise CheckError(INVALID_FIELD_IN_CDB.at(2)) from None


def _attention_to_registrants(unit: LogicalUnit, but: str) -> None:
    for each in unit.reservations.registrations:
        if each != but:
            unit.attention(RESERVATIONS_RELEASED, only=each)


_USAGE = "00 ff 00 00 ff ff ff ff 00"

COMMANDS: tuple[Operation[Any], ...] = tuple(
    Operation(0x5F, f"PERSISTENT RESERVE OUT, {name}", handler, _USAGE, service_action=action, access=Access.QUERY)
    for action, name, handler in (
        (0, "REGISTER", _register),
        (1, "RESERVE", _reserve),
        (2, "RELEASE", _release),
        (3, "CLEAR", _clear),
        (4, "PREEMPT", _preempt),
        (5, "PREEMPT AND ABORT", _preempt_and_abort),
        (6, "REGISTER AND IGNORE EXISTING KEY", _register_and_ignore),
    )
)
