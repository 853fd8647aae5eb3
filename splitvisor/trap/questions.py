# SPDX-License-Identifier: GPL-2.0-or-later
"""What a handler asks of cpu_service and waits for: guest memory, and hypercalls that another part of the machine owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.connection import ContractError

QUESTION_DEADLINE_S = 60.0
"""How long a handler waits for guest memory or an invoked call; cpu_service may be reconnecting."""


class Questions:
    """The questions of one VM's handlers that have no answer yet.

    Args:
        send: sends a question; without a connection it is for the next attach to send all().
    """

    def __init__(self, send: Callable[[pb.AttachResponse], None]) -> None:
        self._send = send
        self._open: dict[int, tuple[pb.AttachResponse, asyncio.Future[Any]]] = {}
        self._last_id = 1

    async def memory(self, *, read: pb.MemoryRange | None = None, write: pb.MemoryBlock | None = None) -> pb.MemoryResult:
        """Ask for one reading or writing of guest memory; see MemoryRequester."""
        number = self._new_id()
        if read is not None:
            message = pb.AttachResponse(memory_read=pb.MemoryRead(id=number, range=read))
        else:
            message = pb.AttachResponse(memory_write=pb.MemoryWrite(id=number, block=write))
        result: pb.MemoryResult = await self._ask(number, message)
        return result

    async def dma(self, *, read: pb.MemoryRead | None = None, write: pb.MemoryWrite | None = None) -> pb.MemoryResult:
        """Ask for one transfer through a DMA window; see DmaRequester."""
        number = self._new_id()
        if read is not None:
            read.id = number
        elif write is not None:
            write.id = number
        result: pb.MemoryResult = await self._ask(number, pb.AttachResponse(memory_read=read, memory_write=write))
        return result

    async def invoke(self, token: int, arguments: Sequence[int]) -> pb.InvokeResult:
        """Ask for a hypercall."""
        number = self._new_id()
        message = pb.AttachResponse(invoke=pb.Invoke(id=number, token=token, arguments=arguments))
        result: pb.InvokeResult = await self._ask(number, message)
        return result

    def all(self) -> Iterator[pb.AttachResponse]:
        """Yield the questions, the oldest first."""
        for message, _ in self._open.values():
            yield message

    def answer(self, number: int, result: pb.MemoryResult | pb.InvokeResult) -> None:
        """Take an answer; a second one is ignored. Raises ContractError for one of another kind."""
        question, future = self._open.get(number, (None, None))
        if question is None or future is None or future.done():
            return
        if question.HasField("invoke") != isinstance(result, pb.InvokeResult):
            asked, kind = question.WhichOneof("message"), type(result).DESCRIPTOR.name
            raise ContractError(f"{kind} {number} for a request that is {asked}")
        future.set_result(result)

    def _new_id(self) -> int:
        self._last_id = self._last_id % 0xFFFF_FFFF + 1
        return self._last_id

    async def _ask(self, number: int, message: pb.AttachResponse) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[number] = (message, future)
        try:
            self._send(message)
            async with asyncio.timeout(QUESTION_DEADLINE_S):
                return await future
        finally:
            self._open.pop(number, None)
