# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests of the guest whose transfer failed, and that wait for an operator: `werror=stop` and its kin.

The machine is paused meanwhile, and its time stands still. When it goes on, the transfer that failed is made again; the guest
has noticed nothing. When the machine is saved, such requests are set aside instead: guest memory has them and their data until
they are answered, so that they can be done again from their beginning, here or wherever the state is restored.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog

from splitvisor.block.device import BlockError
from splitvisor.scsi.target import Target

log = structlog.get_logger()


class Request(NamedTuple):
    """A request, as its queue entry says it."""

    kind: int
    """The entry's format."""
    ioba: int
    """Where its information unit is."""
    length: int
    """Bytes of that."""


class Parking:
    """The requests of an adapter.

    Args:
        target: has their commands.
        pause: pauses the machine; is given why.
    """

    def __init__(self, target: Target, pause: Callable[[str], None]) -> None:
        self._target, self._pause = target, pause
        self._requests: dict[asyncio.Task[Any], tuple[int, Request]] = {}
        """Under way, each with its number."""
        self._numbers = itertools.count()
        self._waiting: dict[asyncio.Task[Any], str] = {}
        """Those that wait for an operator, and what for."""
        self._aside: dict[asyncio.Task[Any], tuple[int, Request]] = {}
        self._restored: Sequence[Request] = ()
        self._is_saving = self._has_asked = False
        self._goes_on = asyncio.Event()

    @property
    def reasons(self) -> frozenset[str]:
        """What requests wait for; empty: none does."""
        return frozenset(self._waiting.values())

    def began(self, request: Request) -> asyncio.Task[Any]:
        """Note a request, which the running task serves, until done(). Returns the task."""
        task = asyncio.current_task()
        assert task is not None
        self._requests[task] = next(self._numbers), request
        return task

    def done(self, task: asyncio.Task[Any]) -> None:
        """The request of a task has been carried out, it only lacks its answer; or it has ended."""
        self._requests.pop(task, None)

    async def wait(self, place: str, error: BlockError) -> bool:
        """Wait in the task of a request until the machine goes on; for OnError.

        Args:
            place: the image.
            error: of its transfer.

        Returns:
            True: it is to be tried again. False: there is nobody to wait, for the firmware asked.
        """
        task = asyncio.current_task()
        if task is None or task not in self._requests:
            return False
        if self._is_saving:
            self._set_aside()
            self._aside[task] = self._requests[task]
            raise asyncio.CancelledError
        why = f"{place}: {error.strerror or error}"
        self._waiting[task] = why
        if not self._has_asked:
            self._has_asked = True
            log.warning("a transfer failed, and the machine is paused", reason=why)
            self._pause(f"{why}; when that is put right, `vm resume` tries again")
        try:
            await self._goes_on.wait()
        finally:
            del self._waiting[task]
        return True

    def go_on(self) -> None:
        """Let those that wait try again; the first of them that fails pauses the machine again."""
        self._has_asked = False
        goes_on, self._goes_on = self._goes_on, asyncio.Event()
        goes_on.set()

    def save(self) -> None:
        """Set aside the requests that wait, and those that will fail until saved()."""
        self._is_saving = True
        if self._waiting:
            self._set_aside()

    def _set_aside(self) -> None:
        """End the requests that wait for an operator, and all that have not begun yet: they may have to come after those."""
        begun = {
            task.owner for unit in self._target.units.values() for task in unit.tasks.matching(lambda each: not each.blocked_by)
        }
        for task, request in self._requests.items():
            if task not in self._aside and (task in self._waiting or task not in begun):
                self._aside[task] = request
                task.cancel()

    @property
    def set_aside(self) -> Sequence[Request]:
        """Those that were set aside, in the order in which they came."""
        return [*self._restored, *(request for _, request in sorted(self._aside.values()))]

    def restore(self, requests: Sequence[Request]) -> None:
        """Take over what set_aside was."""
        self._restored = requests

    def saved(self) -> Sequence[Request]:
        """End save(). Returns the requests that are to be done again."""
        self._is_saving = False
        requests = self.set_aside
        self.forget()
        return requests

    def forget(self) -> None:
        """Forget what was set aside: nobody waits for its answers."""
        self._aside.clear()
        self._restored = ()
