# SPDX-License-Identifier: GPL-2.0-or-later
"""The requests of a VM one at a time and in order, while the loop that reads its connection goes on to take answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.connection import ContractError
from splitvisor.trap.outbox import Outbox

BACKLOG_BYTES = 16 << 20
"""Requests that wait for the one in hand; cpu_service keeps far below: a trap a vCPU, and posted calls as far as credit goes."""

Outcome = pb.AttachResponse | Awaitable[pb.AttachResponse | None] | None
"""Of a request: the response, something to wait for, or nothing to say."""


class RequestQueue:
    """The requests of one VM.

    Args:
        begin: starts a request; may raise ContractError.
        outbox: takes the responses.
    """

    def __init__(self, begin: Callable[[pb.AttachRequest], Outcome], outbox: Outbox) -> None:
        self._begin, self._outbox = begin, outbox
        self._work: asyncio.Task[None] | None = None
        self._backlog: deque[pb.AttachRequest] = deque()
        self._backlog_bytes = 0

    def put(self, request: pb.AttachRequest) -> pb.AttachResponse | None:
        """Handle a request, after those that came before it. Returns its response if it is there; it is to be sent at once.

        Raises ContractError.
        """
        if self._work is not None:
            size = request.ByteSize()
            if self._backlog_bytes + size > BACKLOG_BYTES:
                raise ContractError(f"more than {BACKLOG_BYTES} bytes of requests while one is in hand")
            self._backlog_bytes += size
            self._backlog.append(request)
            return None
        outcome = self._begin(request)
        if outcome is None or isinstance(outcome, pb.AttachResponse):
            return outcome
        self._work = asyncio.get_running_loop().create_task(self._continue(outcome))
        return None

    async def _continue(self, outcome: Awaitable[pb.AttachResponse | None]) -> None:
        """Finish one request that waits for something, then what came in meanwhile."""
        try:
            await self._respond(await outcome)
            while self._backlog:
                request = self._backlog.popleft()
                self._backlog_bytes -= request.ByteSize()
                begun = self._begin(request)
                await self._respond(begun if begun is None or isinstance(begun, pb.AttachResponse) else await begun)
        except ContractError as error:
            if self._outbox.connection is not None:
                self._outbox.connection.end(str(error))
        finally:
            self._work = None

    async def _respond(self, response: pb.AttachResponse | None) -> None:
        if response is not None and (connection := self._outbox.connection) is not None:
            await connection.write(response)

    async def cancel(self) -> None:
        """End the request in hand; the VM has ended."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
