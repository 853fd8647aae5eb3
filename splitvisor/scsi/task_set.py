# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of a logical unit that have not ended: their order, their number, and how they are aborted (SAM-5 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from splitvisor.scsi.codes import TaskAttribute
from splitvisor.scsi.command import Command
from splitvisor.scsi.ending import Ending

MAX_TASKS = 256
"""The commands of a logical unit that run or wait; others get TASK SET FULL."""
ABORT_SECONDS = 50.0
"""How long an aborted command may take to end: below the minute after which Linux takes an abort as failed."""


class Task:
    """A command in a task set."""

    __slots__ = ("aborted", "blocked_by", "command", "ending", "owner")

    def __init__(self, command: Command, owner: asyncio.Task[object], blocked_by: list[Task]) -> None:
        self.command = command
        self.owner = owner
        self.blocked_by = blocked_by
        self.aborted = False
        self.ending = Ending()


class TaskSet:
    """Commands in the order in which they came."""

    def __init__(self) -> None:
        self._tasks: dict[object, Task] = {}
        self._ordered = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(self, command: Command) -> Task | None:
        """Add a command of the running asyncio task; its turn is when all of blocked_by have ended.

        SIMPLE commands run at the same time; an ORDERED one runs after all before it and before all behind it, but for those with
        HEAD OF QUEUE, which never wait (SAM-5 8.6).

        Returns:
            None, if the set is full.

        Raises:
            KeyError: the initiator has a command with this tag in the set.
        """
        tasks = self._tasks
        if len(tasks) >= MAX_TASKS:
            return None
        key = (command.initiator.name, command.tag)
        if key in tasks:
            raise KeyError(key)
        owner = asyncio.current_task()
        if owner is None:
            raise RuntimeError("a command runs in an asyncio task")
        blocked_by: list[Task] = []
        if command.attribute is TaskAttribute.ORDERED:
            self._ordered += 1
            blocked_by = list(tasks.values())
        elif self._ordered and command.attribute is TaskAttribute.SIMPLE:
            blocked_by = [each for each in tasks.values() if each.command.attribute is TaskAttribute.ORDERED]
        task = tasks[key] = Task(command, owner, blocked_by)
        return task

    def leave(self, task: Task) -> None:
        """Remove a command that has ended."""
        command = task.command
        del self._tasks[command.initiator.name, command.tag]
        if command.attribute is TaskAttribute.ORDERED:
            self._ordered -= 1
        task.ending.reached()

    def all(self) -> list[Task]:
        """Return all commands."""
        return list(self._tasks.values())

    def matching(self, wanted: Callable[[Task], bool]) -> list[Task]:
        """Return the commands that a predicate holds for."""
        return [each for each in self._tasks.values() if wanted(each)]


async def wait_for_all(tasks: list[Task]) -> None:
    """Wait until commands have ended."""
    for each in tasks:
        await each.ending.wait()


async def abort(tasks: list[Task], seconds: float | None = None) -> bool:
    """Abort commands: none of them is answered, and when this returns true, none of them touches its buffers any more.

    Returns:
        False, if some had not ended after so many seconds, ABORT_SECONDS when nothing is said.
    """
    for each in tasks:
        if not each.aborted:
            each.aborted = True
            each.owner.cancel()
    return await end_of(tasks, seconds)


async def end_of(tasks: list[Task], seconds: float | None = None) -> bool:
    """Wait until commands have ended, for so many seconds at most, or ABORT_SECONDS. Returns whether they have."""
    try:
        async with asyncio.timeout(ABORT_SECONDS if seconds is None else seconds):
            await wait_for_all(tasks)
    except TimeoutError:
        return False
    return True
