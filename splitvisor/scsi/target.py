# SPDX-License-Identifier: GPL-2.0-or-later
"""A SCSI target: logical units under numbers, for any transport.

A transport makes a `Command` of what it receives and awaits `Target.execute()` in an asyncio task of its own for each; of the
`Completion` it makes its answer. It asks for task management with `Target.manage()` and says when an initiator has gone with
`Target.nexus_lost()`. What is in a LUN's eight bytes is the transport's business: to the target it is a number, and REPORT LUNS
asks the transport's `LunFormat` for the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from splitvisor.errors.problem import ProblemError
from splitvisor.scsi.absent import AbsentUnit, WellKnownUnit
from splitvisor.scsi.codes import REPORT_LUNS_WELL_KNOWN_LUN, TaskFunction, TaskResponse
from splitvisor.scsi.command import Command, Completion, Initiator
from splitvisor.scsi.sense import COMMANDS_CLEARED, TARGET_WAS_RESET, UNIT_WAS_RESET, UNITS_CHANGED
from splitvisor.scsi.task_set import abort, end_of
from splitvisor.scsi.unit import LogicalUnit

MAX_UNITS = 2048
"""Logical units of a target: REPORT LUNS needs 8 bytes for each."""

LunFormat = Callable[[int, Sequence[int]], Sequence[int]]
"""Given the number that REPORT LUNS was sent to and the numbers of all units, in order: the LUNs to report, of 64 bits each."""


class UnitError(ProblemError):
    """A logical unit that cannot be added or is not there."""


def flat_luns(addressed: int, numbers: Sequence[int]) -> list[int]:
    """Report all units: below 256 with peripheral device addressing, above with flat space addressing (SAM-5 4.7.7)."""
    return [(each if each < 0x100 else 0x4000 | each & 0x3FFF) << 48 for each in numbers]


class Target:
    """Logical units, and the commands of initiators.

    Args:
        lun_format: how REPORT LUNS names the units.
    """

    def __init__(self, lun_format: LunFormat = flat_luns) -> None:
        self._format = lun_format
        self._units: dict[int, LogicalUnit] = {}
        self._absent = AbsentUnit()
        self._well_known = WellKnownUnit()
        self._absent.listing = self._well_known.listing = self._list

    @property
    def units(self) -> Mapping[int, LogicalUnit]:
        """The logical units by their numbers."""
        return MappingProxyType(self._units)

    async def execute(self, command: Command) -> Completion | None:
        """Run a command to its end, in the asyncio task that awaits this.

        Data is moved between the command's buffers and the block device directly. The task may be cancelled from outside; then
        the command ends without effect on others.

        Returns:
            None, if the command was aborted by task management: the initiator gets no answer to it.
        """
        return await self._unit(command.lun).execute(command)

    async def reset(self, seconds: float) -> bool:
        """Reset all units, whatever becomes of the commands that are under way; none of them is answered.

        Returns:
            False, if some had not ended after so many seconds: they may touch their buffers yet.
        """
        return await self._manage_all(TaskFunction.TARGET_RESET, "", seconds) is TaskResponse.COMPLETE

    async def manage(self, function: TaskFunction, initiator: Initiator, lun: int = 0, tag: object = None) -> TaskResponse:
        """Do a task management function (SAM-5 7).

        Commands that it aborts are not answered and no longer touch their buffers when this returns COMPLETE.

        Args:
            function: what to do.
            initiator: who asks.
            lun: the number of the logical unit, for functions of one.
            tag: of the command, for ABORT TASK.
        """
        name = initiator.name
        if function in (TaskFunction.TARGET_RESET, TaskFunction.NEXUS_RESET):
            return await self._manage_all(function, name)
        unit = self._unit(lun)
        if unit is self._absent:
            return TaskResponse.INCORRECT_LUN
        if function is TaskFunction.ABORT_TASK:
            tasks = unit.tasks.matching(lambda each: each.command.initiator.name == name and each.command.tag == tag)
            if not tasks:
                return TaskResponse.NO_SUCH_TASK
        elif function is TaskFunction.ABORT_TASK_SET:
            tasks = unit.tasks.matching(lambda each: each.command.initiator.name == name)
        else:
            tasks = unit.tasks.all()
        ended = await abort(tasks)
        if function is TaskFunction.LOGICAL_UNIT_RESET:
            unit.reset(UNIT_WAS_RESET)
        elif function is TaskFunction.CLEAR_TASK_SET:
            for other in {each.command.initiator.name for each in tasks} - {name}:
                unit.attention(COMMANDS_CLEARED, only=other)
        return _response(ended)

    async def nexus_lost(self, initiator: Initiator) -> None:
        """End what an initiator has as long as it is connected: commands, RESERVE's reservations, locks of media."""
        await self._manage_all(TaskFunction.NEXUS_RESET, initiator.name)

    def add(self, number: int, unit: LogicalUnit) -> None:
        """Add a logical unit; initiators of the others get a unit attention.

        Raises:
            UnitError: there is one with this number, or the number is not one of 16 bits.
        """
        if not 0 <= number < REPORT_LUNS_WELL_KNOWN_LUN:
            raise UnitError(f"logical unit {number}: no such number", f"use 0 to {REPORT_LUNS_WELL_KNOWN_LUN - 1}")
        if number in self._units:
            raise UnitError(f"logical unit {number}: already there", "use another number, or remove it first")
        if len(self._units) >= MAX_UNITS:
            raise UnitError(f"logical unit {number}: the target has {MAX_UNITS}, which is all it can have", "use another target")
        unit.listing = self._list
        self._units[number] = unit
        self._units_changed(unit)

    async def remove(self, number: int) -> LogicalUnit:
        """Remove a logical unit; initiators of the others get a unit attention.

        Its commands end as they would have, for an initiator that knows nothing of this waits for their answers.

        Returns:
            The unit. Nothing uses its block device any more; it is the caller's to close.

        Raises:
            UnitError: there is none with this number, or a transfer does not end; in that case the unit is removed, and the
                device may still be in use.
        """
        unit = self._units.pop(number, None)
        if unit is None:
            raise UnitError(f"logical unit {number}: not there")
        self._units_changed(unit)
        if not await end_of(unit.tasks.all()):
            raise UnitError(f"logical unit {number}: a transfer does not end", "see what holds up the image's file or server")
        return unit

    async def _manage_all(self, function: TaskFunction, initiator: str, seconds: float | None = None) -> TaskResponse:
        """A target reset or the loss of a nexus, on all units."""
        reset = function is TaskFunction.TARGET_RESET
        units = [*self._units.values(), self._absent, self._well_known]
        tasks = [
            task for unit in units for task in unit.tasks.matching(lambda each: reset or each.command.initiator.name == initiator)
        ]
        ended = await abort(tasks, seconds)
        for unit in units:
            if reset:
                unit.reset(TARGET_WAS_RESET)
            else:
                unit.nexus_lost(initiator)
        return _response(ended)

    def _unit(self, number: int) -> LogicalUnit:
        unit = self._units.get(number)
        if unit is None:
            unit = self._well_known if number == REPORT_LUNS_WELL_KNOWN_LUN else self._absent
        return unit

    def _units_changed(self, changed: LogicalUnit) -> None:
        for unit in self._units.values():
            if unit is not changed:
                unit.attention(UNITS_CHANGED)

    def _list(self, select: int, addressed: int, initiator: str) -> bytes:
        """The parameter data of REPORT LUNS (SPC-4 6.33); the initiator need not be told any more that it has changed.

        Without units the list is empty. LUN 0 answers even so (SPC-4 4.6.4), but is none: SLOF would offer it to GRUB as a disk.
        """
        for unit in self._units.values():
            unit.attentions.get(initiator, {}).pop(UNITS_CHANGED, None)
        luns = [] if select == 1 else list(self._format(addressed, sorted(self._units)))
        if select:
            luns.append(REPORT_LUNS_WELL_KNOWN_LUN << 48)
        return (8 * len(luns)).to_bytes(4, "big") + bytes(4) + b"".join(each.to_bytes(8, "big") for each in luns)


def _response(ended: bool) -> TaskResponse:
    return TaskResponse.COMPLETE if ended else TaskResponse.FAILED
