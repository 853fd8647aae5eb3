# SPDX-License-Identifier: GPL-2.0-or-later
"""A request of the guest from its information unit to the bytes of its response."""

from __future__ import annotations

from splitvisor.backend.vio import DmaError, DmaWindow
from splitvisor.scsi.codes import Status, TaskAttribute, TaskFunction, TaskResponse
from splitvisor.scsi.command import NOTHING, Command, Completion, Initiator
from splitvisor.scsi.sense import INTERNAL_FAILURE, INVALID_FIELD_IN_CDB
from splitvisor.scsi.target import Target
from vio_service.devices.vscsi.information import CommandUnit, TaskUnit, response, task_response
from vio_service.devices.vscsi.luns import number_of
from vio_service.devices.vscsi.transfer import DescriptorError, pieces_of

_ATTRIBUTES = {each.value: each for each in TaskAttribute}
_FUNCTIONS = {
    each.value: each
    for each in (
        TaskFunction.ABORT_TASK,
        TaskFunction.ABORT_TASK_SET,
        TaskFunction.CLEAR_TASK_SET,
        TaskFunction.LOGICAL_UNIT_RESET,
    )
}
_FUNCTION_NOT_SUPPORTED = 4
"""A response code of SRP."""


async def run_command(unit: CommandUnit, target: Target, window: DmaWindow, initiator: Initiator) -> bytes | None:
    """Run a command. Returns its response; None: it was aborted, and the guest expects none."""
    try:
        out, into = await pieces_of(unit, window)
        data_out = await window.gather(out) if out else NOTHING
        scatter = await window.scatter(into) if into else None
    except DescriptorError:
        return response(unit.tag, Status.CHECK_CONDITION, INVALID_FIELD_IN_CDB.fixed())
    except DmaError:
        return response(unit.tag, Status.CHECK_CONDITION, INTERNAL_FAILURE.fixed())
    data_in = NOTHING if scatter is None else scatter.buffers
    attribute = _ATTRIBUTES.get(unit.attribute, TaskAttribute.SIMPLE)
    completion = await target.execute(Command(number_of(unit.lun), unit.cdb, initiator, unit.tag, data_out, data_in, attribute))
    if completion is None:
        return None
    if scatter is not None and completion.moved_in:
        try:
            await scatter.commit(completion.moved_in)
        except DmaError:  # Only memory that is not mapped here says so this late.
            return response(unit.tag, Status.CHECK_CONDITION, INTERNAL_FAILURE.fixed())
    return _ended(unit, completion, data_out.length, data_in.length)


def _ended(unit: CommandUnit, completion: Completion, room_out: int, room_in: int) -> bytes:
    out_residual, in_residual = room_out - completion.moved_out, room_in - completion.moved_in
    return response(unit.tag, completion.status, completion.sense, max(0, out_residual), max(0, in_residual))


async def manage(unit: TaskUnit, tag: bytes, target: Target, initiator: Initiator) -> bytes:
    """Do what a task management request asks. Returns its response."""
    function = _FUNCTIONS.get(unit.function)
    if function is None:
        return task_response(tag, _FUNCTION_NOT_SUPPORTED)
    result = await target.manage(function, initiator, number_of(unit.lun), unit.task_tag)
    if result is TaskResponse.NO_SUCH_TASK:
        result = TaskResponse.COMPLETE  # It has ended, and its response is on the way (SAM-5 7.2).
    return task_response(tag, result)
