# SPDX-License-Identifier: GPL-2.0-or-later
"""One direction of a stream through the fault proxy: messages come in, meet their faults, and go out in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from splitvisor.faults.journal import Journal
from splitvisor.faults.scenario import Direction
from splitvisor.faults.schedule import Happening, Schedule
from splitvisor.rpc import trap_pb2 as pb

LANE_MESSAGES = 256
"""Messages that are delayed at a time; then nothing more is read."""
HOLD_S = 0.25
"""How long a message waits to be overtaken; when none follows it goes as it came."""
MASK_32, MASK_64 = (1 << 32) - 1, (1 << 64) - 1

Message = pb.AttachRequest | pb.AttachResponse
ProcessFault = Callable[[Happening], None]


class LostError(Exception):
    """A fault broke the connection."""


class Lane:
    """Carries one direction of one connection.

    Args:
        direction: where its messages go.
        schedule: decides what they meet.
        journal: told what happened; with these details.
        to_process: does what concerns the back end's process.
    """

    def __init__(
        self, direction: Direction, schedule: Schedule, journal: Journal, details: dict[str, str], to_process: ProcessFault
    ) -> None:
        self._kind: type[Message] = pb.AttachRequest if direction is Direction.TO_BACKEND else pb.AttachResponse
        self._direction, self._schedule, self._journal, self._details = direction, schedule, journal, details
        self._to_process = to_process
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._held: tuple[float, bytes, Happening] | None = None

    async def carry(self, source: AsyncIterator[bytes], sink: Callable[[bytes], Awaitable[Any]]) -> None:
        """Carry everything from source to sink. Raises LostError, and what source and sink raise."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(sink))
            group.create_task(self._read(source))

    async def _read(self, source: AsyncIterator[bytes]) -> None:
        async for data in source:
            message = self._kind.FromString(data)
            await self._meet(message, data)
            while self._waiting.qsize() >= LANE_MESSAGES:
                self._room.clear()
                await self._room.wait()
        self._let_go()
        self._waiting.put_nowait(None)

    async def _meet(self, message: Message, data: bytes) -> None:
        name = message.WhichOneof("message") or ""
        copies, late, overtaken = 1, 0.0, None
        for happening in self._schedule.look(self._direction, name):
            match happening.fault.kind.name:
                case "delay" | "jitter":
                    late += happening.seconds
                case "stall":
                    self._tell(happening, name)
                    await asyncio.sleep(happening.seconds)
                    continue
                case "slow":
                    self._tell(happening, name)
                    await asyncio.sleep(len(data) / max(1, happening.fault.bytes_per_second))
                    continue
                case "duplicate":
                    copies += 1
                case "reorder":
                    overtaken = happening
                    continue
                case "wrong-registers" | "refuse-memory":
                    data = spoil(message)
                case "lose":
                    self._tell(happening, name)
                    raise LostError
                case _:
                    self._to_process(happening)
            self._tell(happening, name)
        self._put(self._loop.time() + late, data, copies, overtaken, name)

    def _put(self, due: float, data: bytes, copies: int, overtaken: Happening | None, name: str) -> None:
        if overtaken is not None and self._held is None:
            self._held = (due, data, overtaken)
            self._loop.call_later(HOLD_S, self._let_go, self._held)
            return
        for _ in range(copies):
            self._waiting.put_nowait((due, data))
        if self._held is not None:
            self._tell(self._held[2], name)
            self._let_go()

    def _let_go(self, held: tuple[float, bytes, Happening] | None = None) -> None:
        """Send the message that waits to be overtaken, if it is this one or none is named."""
        if self._held is not None and (held is None or held is self._held):
            self._waiting.put_nowait(self._held[:2])
            self._held = None

    async def _write(self, sink: Callable[[bytes], Awaitable[Any]]) -> None:
        while (item := await self._waiting.get()) is not None:
            self._room.set()
            due, data = item
            if due > self._loop.time():
                await asyncio.sleep(due - self._loop.time())
            await sink(data)

    def _tell(self, happening: Happening, name: str) -> None:
        self._journal.happened(
            happening.fault.kind.name, direction=str(self._direction), message=name, fault=happening.place,
            number=happening.number, seconds=round(happening.seconds, 6), **self._details,
        )  # fmt: skip


def spoil(message: Message) -> bytes:
    """Return a message with every register of its reply inverted, or with its memory refused; for what has neither, as it is."""
    if isinstance(message, pb.AttachRequest):
        if message.HasField("hello"):
            message.hello.ram_path = ""
        elif message.HasField("memory_result"):
            message.memory_result.CopyFrom(pb.MemoryResult(id=message.memory_result.id))
    elif message.HasField("reply"):
        reply = message.reply
        reply.result = ~reply.result
        reply.outputs[:] = [value ^ MASK_64 for value in reply.outputs]
        reply.returns[:] = [value ^ MASK_32 for value in reply.returns]
    return message.SerializeToString()
