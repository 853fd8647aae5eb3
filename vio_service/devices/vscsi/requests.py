# SPDX-License-Identifier: GPL-2.0-or-later
"""A request of the guest from its information unit to the bytes of its response."""

from __future__ import annotations

import asyncio

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


class Requests:
    """The requests of one guest.

    Args:
        target: does what they ask.
        initiator: the guest.
    """

    def __init__(self, target: Target, initiator: Initiator) -> None:
        self._target, self._initiator = target, initiator
        self._moving: dict[asyncio.Task[object], CommandUnit] = {}
        """Commands whose data is on its way between guest memory and here: the target does not know them then."""
        self._aborted: set[asyncio.Task[object]] = set()

    async def run(self, unit: CommandUnit, window: DmaWindow) -> bytes | None:
        """Run a command. Returns its response; None: it was aborted, and the guest expects none."""
        task = asyncio.current_task()
        assert task is not None
        self._moving[task] = unit
        try:
            try:
                out, into = await pieces_of(unit, window)
                data_out = await window.gather(out) if out else NOTHING
                scatter = await window.scatter(into) if into else None
            except DescriptorError:
                return response(unit.tag, Status.CHECK_CONDITION, INVALID_FIELD_IN_CDB.fixed())
            except DmaError:
                return response(unit.tag, Status.CHECK_CONDITION, INTERNAL_FAILURE.fixed())
            del self._moving[task]
            data_in = NOTHING if scatter is None else scatter.buffers
            attribute = _ATTRIBUTES.get(unit.attribute, TaskAttribute.SIMPLE)
            command = Command(number_of(unit.lun), unit.cdb, self._initiator, unit.tag, data_out, data_in, attribute)
            completion = await self._target.execute(command)
            if completion is None:
                return None
            if scatter is not None and completion.moved_in:
                self._moving[task] = unit
                try:
                    await scatter.commit(completion.moved_in)
                except DmaError:  # Only memory that is not mapped here says so this late.
                    return response(unit.tag, Status.CHECK_CONDITION, INTERNAL_FAILURE.fixed())
            return _ended(unit, completion, data_out.length, data_in.length)
        except asyncio.CancelledError:
            if task in self._aborted and task.uncancel() == 0:
                return None
            raise
        finally:
            self._moving.pop(task, None)
            self._aborted.discard(task)

    async def manage(self, unit: TaskUnit, tag: bytes) -> bytes:
        """Do what a task management request asks. Returns its response."""
        function, number = _FUNCTIONS.get(unit.function), number_of(unit.lun)
        if function is None:
            return task_response(tag, _FUNCTION_NOT_SUPPORTED)
        one = function is TaskFunction.ABORT_TASK
        moving = [
            task
            for task, each in self._moving.items()
            if number_of(each.lun) == number and (not one or each.tag == unit.task_tag)
        ]
        for task in moving:
            self._aborted.add(task)
            task.cancel()
        if moving:
            await asyncio.wait(moving)
        result = await self._target.manage(function, self._initiator, number, unit.task_tag)
        if result is TaskResponse.NO_SUCH_TASK:
            result = TaskResponse.COMPLETE  # It has ended, and its response is on the way (SAM-5 7.2).
        return task_response(tag, result)


def _ended(unit: CommandUnit, completion: Completion, room_out: int, room_in: int) -> bytes:
    out_residual, in_residual = room_out - completion.moved_out, room_in - completion.moved_in
    return response(unit.tag, completion.status, completion.sense, max(0, out_residual), max(0, in_residual))
