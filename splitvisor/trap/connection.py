# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection of a VM, as a back end writes to it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import grpc

from splitvisor.errors.problem import ProblemError
from splitvisor.rpc import trap_pb2 as pb

MAX_UNSENT = 1 << 16
"""Messages that wait for a cpu_service that does not read; with more, its connection ends."""

TrapContext = grpc.aio.ServicerContext[pb.AttachRequest, pb.AttachResponse]


class ContractError(ProblemError):
    """cpu_service broke the contract of the stream; ends the connection with INVALID_ARGUMENT."""


class Peer(Protocol):
    """Takes the messages once the stream has moved to a socket."""

    def send(self, response: pb.AttachResponse) -> bool:
        """Send in order; False when too many wait."""

    async def room(self) -> None:
        """Wait until few wait."""

    async def sent(self) -> None:
        """Wait until none waits."""


class Connection:
    """One connection. Writes never overlap, as grpc.aio demands."""

    def __init__(self, context: TrapContext, task: asyncio.Task[None]) -> None:
        """Take the connection and the task that reads it."""
        self._context = context
        self._task = task
        self.end_reason = ""
        """Why this side ended the connection."""
        self._queue: deque[pb.AttachResponse] = deque()
        self._writing = False
        self._drainer: asyncio.Task[None] | None = None
        self._peer: Peer | None = None

    def move(self, peer: Peer) -> None:
        """Send what follows to the socket: the other side reads it once it has what went before."""
        self.send(pb.AttachResponse(move=pb.Move()))
        self._peer = peer

    async def write(self, message: pb.AttachResponse) -> None:
        """Send in order; returns once this message, or the task that writes, has it."""
        if self._peer is not None:
            self._send(self._peer, message)
            await self._peer.room()
            return
        self._append(message)
        if not self._writing:
            await self._drain()

    def send(self, message: pb.AttachResponse) -> None:
        """Send in order, from code that does not wait."""
        if self._peer is not None:
            self._send(self._peer, message)
            return
        self._append(message)
        if not self._writing:
            self._writing = True
            self._drainer = asyncio.get_running_loop().create_task(self._drain())

    async def sent(self) -> None:
        """Wait until everything is sent that there was to send."""
        if self._drainer is not None:
            await self._drainer
        if self._peer is not None:
            await self._peer.sent()

    def _send(self, peer: Peer, message: pb.AttachResponse) -> None:
        if not peer.send(message):
            self.end("cpu_service does not read")

    def _append(self, message: pb.AttachResponse) -> None:
        if len(self._queue) >= MAX_UNSENT:
            self._queue.clear()
            self.end(f"cpu_service does not read; {MAX_UNSENT} messages wait for it")
        self._queue.append(message)

    async def _drain(self) -> None:
        self._writing = True
        try:
            while self._queue:
                await self._context.write(self._queue.popleft())
        except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            self._queue.clear()  # The reader sees the end of the connection; what matters is sent again after the next attach.
        finally:
            self._writing = False

    def end(self, reason: str) -> None:
        """End the connection; its reader tells the peer why."""
        self.end_reason = reason
        self._task.cancel()
