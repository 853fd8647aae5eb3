# SPDX-License-Identifier: GPL-2.0-or-later
"""An initiator for tests of SCSI targets."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from splitvisor.block.buffers import Buffers
from splitvisor.scsi.codes import Status, TaskAttribute
from splitvisor.scsi.command import Command, Completion, Initiator
from splitvisor.scsi.target import Target
from splitvisor.scsi.unit import LogicalUnit

DEADLINE = 20.0
T = TypeVar("T")


@dataclass
class Answer:
    """What an initiator sees of a completion."""

    end: Completion
    data: bytes

    @property
    def good(self) -> bool:
        return self.end.status is Status.GOOD

    @property
    def sense(self) -> tuple[int, int, int]:
        """Sense key, additional sense code and qualifier."""
        sense = self.end.sense
        assert self.end.status is Status.CHECK_CONDITION, self.end.status
        return (sense[1], sense[2], sense[3]) if sense[0] == 0x72 else (sense[2] & 0xF, sense[12], sense[13])


class Host:
    """An initiator of a target."""

    def __init__(self, target: Target, name: str = "host") -> None:
        self.target = target
        self.initiator = Initiator(name)
        self._tags = itertools.count()

    async def send(
        self,
        cdb: str | bytes,
        data_out: bytes | list[bytes] = b"",
        room: int = 0,
        lun: int = 0,
        attribute: TaskAttribute = TaskAttribute.SIMPLE,
        tag: object = None,
    ) -> Answer:
        """Send a command, and receive its answer."""
        made = bytearray(room)
        pieces = data_out if isinstance(data_out, list) else [data_out]
        command = Command(
            lun,
            bytes.fromhex(cdb) if isinstance(cdb, str) else cdb,
            self.initiator,
            next(self._tags) if tag is None else tag,
            Buffers(memoryview(each) for each in pieces),
            Buffers.of(made),
            attribute,
        )
        end = await self.target.execute(command)
        assert end is not None, "aborted"
        return Answer(end, bytes(made[: end.moved_in]))

    async def ready(self, lun: int = 0) -> Host:
        """Take the unit attention of a new initiator."""
        answer = await self.send("00 00 00 00 00 00", lun=lun)
        assert answer.sense == (6, 0x29, 0)
        return self


def target_of(*units: LogicalUnit) -> Target:
    """Return a target with units from 0 on."""
    target = Target()
    for number, unit in enumerate(units):
        target.add(number, unit)
    return target


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine."""

    async def limited() -> T:
        async with asyncio.timeout(DEADLINE):
            return await work

    return asyncio.run(limited())


async def until(holds: Any) -> None:
    """Let others run until something holds."""
    while not holds():
        await asyncio.sleep(0)
