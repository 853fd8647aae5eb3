# SPDX-License-Identifier: GPL-2.0-or-later
"""Types into the consoles of a vio_service, so that a guest's reads find what they found when they were recorded."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from splitvisor.net.channels import explain
from splitvisor.rpc import console_pb2 as pb
from splitvisor.rpc import console_pb2_grpc

DEADLINE_S = 10.0
CLIENT_NAME = "splitvisor replay"


class TypistError(Exception):
    """A console does not take input; the message says why."""


class Typist:
    """A writer at each console of one VM that needs one.

    Args:
        channel: to vio_service; whoever opened it closes it.
        vm: the VM.
    """

    def __init__(self, channel: grpc.aio.Channel, vm: str) -> None:
        self._stub: Any = console_pb2_grpc.ConsoleServiceStub(channel)
        self._vm = vm
        self._consoles: dict[int, _Writer] = {}

    async def type(self, unit_address: int, data: bytes) -> None:
        """Have input wait for the guest at a terminal. Raises TypistError."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                if unit_address not in self._consoles:
                    self._consoles[unit_address] = _Writer(self._stub.AttachConsole())
                    await self._consoles[unit_address].open(self._vm, unit_address)
                await self._consoles[unit_address].type(data)
        except (grpc.aio.AioRpcError, EOFError, TimeoutError) as error:
            reason = explain(error) if isinstance(error, grpc.aio.AioRpcError) else "no answer"
            raise TypistError(f"the console at {unit_address:#x} takes no input: {reason}") from error

    async def close(self) -> None:
        """Detach from every console."""
        for writer in self._consoles.values():
            await writer.close()


class _Writer:
    def __init__(self, call: Any) -> None:
        self._call = call
        self._taken = 0
        self._ended = False
        self._changed = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None

    async def open(self, vm: str, unit_address: int) -> None:
        opening = pb.ConsoleOpen(vm=vm, unit_address=unit_address, writer=True, force=True, client_name=CLIENT_NAME)
        await self._call.write(pb.AttachConsoleRequest(open=opening))
        if (await self._call.read()) is grpc.aio.EOF:
            raise EOFError
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def type(self, data: bytes) -> None:
        async with self._changed:
            wanted = self._taken + len(data)
            await self._call.write(pb.AttachConsoleRequest(input=data))
            await self._changed.wait_for(lambda: self._taken >= wanted or self._ended)
            if self._taken < wanted:
                raise EOFError

    async def _read(self) -> None:
        """Count what was taken; output is of no interest."""
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                async with self._changed:
                    self._taken += response.input_accepted
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def close(self) -> None:
        self._call.cancel()
        if self._reader is not None:
            with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await self._reader
