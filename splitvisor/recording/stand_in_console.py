# SPDX-License-Identifier: GPL-2.0-or-later
"""The console of a back end that a recording stands in for: shows what the guest writes; what is typed goes nowhere, as the guest
reads what was typed when it was recorded.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from splitvisor.errors.status import refuse
from splitvisor.net.pages import PageError, console_key, page_of
from splitvisor.rpc import console_pb2 as pb
from splitvisor.rpc import console_pb2_grpc
from splitvisor.terminal.sequences import LOOK_BACK_BYTES, boundary_after, without_queries

OUTPUT_BYTES = 1 << 20
"""Of each VM's output that are kept for a terminal that comes late or reads slowly."""
OUTPUT_CHUNK = 64 << 10
MAX_VMS = 16

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class _Log:
    kept: bytearray = field(default_factory=bytearray)
    start: int = 0
    """Position of the first byte that is kept."""
    ended: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Replaced at each change."""

    def change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Output:
    """What guests wrote, by VM."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}

    def log(self, vm: str) -> _Log:
        """Return a VM's, which may be yet to come."""
        if vm not in self._logs and len(self._logs) >= MAX_VMS:
            del self._logs[next(iter(self._logs))]
        return self._logs.setdefault(vm, _Log())

    def describe(self, vm: str) -> list[pb.Console]:
        """Describe the consoles of a VM, or of every VM when it is empty."""
        logs = self._logs.items()
        return [pb.Console(vm=name, output_bytes=log.start + len(log.kept)) for name, log in logs if vm in {"", name}]

    def known(self, vm: str) -> _Log | None:
        """Return a VM's, when it has begun."""
        return self._logs.get(vm)

    def write(self, vm: str, data: bytes) -> None:
        """The guest writes."""
        log = self.log(vm)
        log.kept += data
        surplus = max(0, len(log.kept) - OUTPUT_BYTES)
        del log.kept[:surplus]
        log.start += surplus
        log.change()

    def end(self, vm: str) -> None:
        """The VM has ended; one of its name starts anew."""
        log = self._logs.pop(vm, _Log())
        log.ended = True
        log.change()


class StandInConsoles(console_pb2_grpc.ConsoleServiceServicer):
    """ConsoleService as far as a terminal needs it."""

    def __init__(self, output: Output) -> None:
        self._output = output

    async def ListConsoles(self, request: pb.ListConsolesRequest, context: _Context) -> pb.ListConsolesResponse:
        """See the contract."""
        try:
            page, token = page_of(self._output.describe(request.vm), console_key, request)
        except PageError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        return pb.ListConsolesResponse(consoles=page, next_page_token=token)

    async def ReadTranscript(
        self, request: pb.ReadTranscriptRequest, context: _Context
    ) -> AsyncIterator[pb.ReadTranscriptResponse]:
        """See the contract; no attachment resumes here, so no instance is told."""
        log = self._output.known(request.vm)
        if log is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, f"no VM {request.vm!r} is attached here")
        assert log is not None
        kept = bytes(log.kept)
        wanted = max(len(kept) - request.max_bytes, 0) if request.max_bytes else 0
        kept = kept[boundary_after(kept, wanted) if wanted else 0 :]
        yield pb.ReadTranscriptResponse(end_position=log.start + len(log.kept))
        for start in range(0, len(kept), OUTPUT_CHUNK):
            yield pb.ReadTranscriptResponse(data=kept[start : start + OUTPUT_CHUNK])

    async def AttachConsole(
        self, request_iterator: AsyncIterator[pb.AttachConsoleRequest], context: _Context
    ) -> AsyncIterator[pb.AttachConsoleResponse]:
        """See the contract; input is not acknowledged, as nobody reads it."""
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("open"):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message of an attachment is open")
        assert first is not None
        log = self._output.log(first.open.vm)
        kept = bytes(log.kept)
        begin = boundary_after(kept, LOOK_BACK_BYTES) if log.start else 0
        old, position = without_queries(kept[begin:]), log.start + begin
        opened = pb.ConsoleOpened(
            unit_address=first.open.unit_address, offset=position, input_window=OUTPUT_CHUNK, instance=secrets.randbits(63) | 1
        )
        yield pb.AttachConsoleResponse(opened=opened)
        for start in range(0, len(old), OUTPUT_CHUNK):
            yield pb.AttachConsoleResponse(output=old[start : start + OUTPUT_CHUNK])
        position += len(old)
        while True:
            changed = log.changed
            if position < log.start:
                yield pb.AttachConsoleResponse(skipped=log.start - position)
                position = log.start
                continue
            data = bytes(log.kept[position - log.start :][:OUTPUT_CHUNK])
            if data:
                position += len(data)
                yield pb.AttachConsoleResponse(output=data)
            elif log.ended:
                yield pb.AttachConsoleResponse(
                    ended=pb.ConsoleEnded(reason=pb.CONSOLE_END_REASON_VM_ENDED, text="the VM has ended")
                )
                return
            else:
                await changed.wait()
