# SPDX-License-Identifier: GPL-2.0-or-later
"""What a target keeps for its initiators, as a message: for snapshots and for a process that takes over from another.

No command may run meanwhile. Units are not part of it: who restores has added them, with the same numbers.
"""

from __future__ import annotations

from splitvisor.errors.problem import ProblemError
from splitvisor.rpc import scsi_state_pb2
from splitvisor.scsi.cd_unit import CdUnit, MediaEvent
from splitvisor.scsi.codes import SenseKey
from splitvisor.scsi.disk_unit import DiskUnit
from splitvisor.scsi.reservations import PersistentReservation, Registration, ReservationType
from splitvisor.scsi.sense import Sense
from splitvisor.scsi.target import Target
from splitvisor.scsi.unit import LogicalUnit


class TargetStateError(ProblemError):
    """A state that a target cannot take over."""


def save(target: Target, kind: type[LogicalUnit] = LogicalUnit) -> scsi_state_pb2.ScsiTargetState:
    """Return the state of a target's units, or of those of a kind."""
    units = [_save_unit(number, unit) for number, unit in sorted(target.units.items()) if isinstance(unit, kind)]
    return scsi_state_pb2.ScsiTargetState(units=units)


def restore(target: Target, state: scsi_state_pb2.ScsiTargetState) -> None:
    """Take over a state. Units that it has nothing about stay as they are after power-on.

    Raises:
        TargetStateError: it is about a unit that is not there, or has what no unit can have.
    """
    for saved in state.units:
        unit = target.units.get(saved.number)
        if unit is None:
            raise TargetStateError(f"logical unit {saved.number}: saved, but not there", "add it before you restore")
        try:
            _restore_unit(unit, saved)
        except (KeyError, ValueError) as error:
            raise TargetStateError(f"logical unit {saved.number}: its saved state is broken") from error


def _save_unit(number: int, unit: LogicalUnit) -> scsi_state_pb2.ScsiUnitState:
    held = unit.reservations
    state = scsi_state_pb2.ScsiUnitState(
        number=number,
        mode_pages={code: unit.modes.values(code) for code in unit.modes.codes()},
        reserved_by=held.reserved_by or "",
        registrations=[
            scsi_state_pb2.ScsiRegistration(initiator=each.initiator, key=each.key, transport_id=each.transport_id)
            for each in held.registrations.values()
        ],
        generation=held.generation,
        attentions=[
            scsi_state_pb2.ScsiAttentions(initiator=name, pending=[each.asc << 8 | each.ascq for each in pending])
            for name, pending in unit.attentions.items()
        ],
    )
    if held.persistent is not None:
        state.holder, state.reservation_type = held.persistent.holder, held.persistent.type
    if isinstance(unit, DiskUnit):
        state.stopped, state.size = unit.stopped, unit.known_size
    if isinstance(unit, CdUnit):
        state.tray_open, state.media_event = unit.tray_open, unit.event
        state.locks.extend(sorted(unit.locks))
    return state


def _restore_unit(unit: LogicalUnit, state: scsi_state_pb2.ScsiUnitState) -> None:
    for code, values in state.mode_pages.items():
        if unit.modes.wrong_byte(code, values) is None:  # Else the kind of device has changed: its defaults are right.
            unit.modes.change(code, values)
    held = unit.reservations
    held.reserved_by = state.reserved_by or None
    held.registrations = {
        each.initiator: Registration(each.initiator, each.key, each.transport_id) for each in state.registrations
    }
    held.generation = state.generation
    held.persistent = None
    if state.reservation_type:
        kind = ReservationType(state.reservation_type)
        if not kind.all_registrants and state.holder not in held.registrations:
            raise ValueError(state.holder)
        held.persistent = PersistentReservation(state.holder, kind)
    unit.attentions = {
        each.initiator: {Sense(SenseKey.UNIT_ATTENTION, code >> 8 & 0xFF, code & 0xFF): None for code in each.pending}
        for each in state.attentions
    }
    if isinstance(unit, DiskUnit):
        unit.stopped, unit.known_size = state.stopped, state.size
        unit.resized()
    if isinstance(unit, CdUnit):
        unit.tray_open, unit.event = state.tray_open, MediaEvent(state.media_event)
        unit.locks = set(state.locks)
