# SPDX-License-Identifier: GPL-2.0-or-later
"""The rpcs of MachineService that save, restore and move a machine: streams on the event loop, the work on other threads."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import grpc

from cpu_service.link.errors import BackendRefusedError, BackendUnavailableError
from cpu_service.machine.board import Board, NoMemoryError
from cpu_service.machine.machine import BusyError, Machine
from cpu_service.routing.registry import RegistryError
from cpu_service.snapshot.load import SnapshotLoader
from cpu_service.snapshot.migration import MigrationError, Moved, UnknownOwnerError, migrate
from cpu_service.snapshot.save import Capture
from cpu_service.snapshot.streams import Incoming, Outgoing, SlowReaderError
from splitvisor.errors.problem import ProblemError
from splitvisor.errors.status import refuse
from splitvisor.machine.snapshot_file import SnapshotError, Source
from splitvisor.net.times import duration
from splitvisor.process.files import WrongFileError
from splitvisor.process.inputs import open_input
from splitvisor.rpc import machine_pb2 as pb


class ProtocolError(ProblemError):
    """The client breaks the contract of the stream."""


STATUS: Mapping[type[Exception], grpc.StatusCode] = {
    ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    SnapshotError: grpc.StatusCode.INVALID_ARGUMENT,
    BackendRefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    RegistryError: grpc.StatusCode.FAILED_PRECONDITION,
    NoMemoryError: grpc.StatusCode.FAILED_PRECONDITION,
    OSError: grpc.StatusCode.FAILED_PRECONDITION,
    BackendUnavailableError: grpc.StatusCode.UNAVAILABLE,
    SlowReaderError: grpc.StatusCode.ABORTED,
    BusyError: grpc.StatusCode.ABORTED,
    UnknownOwnerError: grpc.StatusCode.UNKNOWN,
}
"""What each failure is on the wire."""
EXPECTED: tuple[type[Exception], ...] = (*STATUS, MigrationError)

_Context = grpc.aio.ServicerContext[Any, Any]


def status_of(error: Exception) -> grpc.StatusCode:
    """The status of one of EXPECTED."""
    if isinstance(error, MigrationError):
        return error.code
    return next(code for kind, code in STATUS.items() if isinstance(error, kind))


async def save(machine: Machine, request: pb.SaveMachineRequest, context: _Context) -> AsyncIterator[pb.SaveMachineResponse]:
    """Serve SaveMachine."""
    outgoing = Outgoing()

    def work(board: Board) -> pb.MachineSaved:
        began = time.monotonic()
        capture = Capture(board, machine.resets)
        try:
            outgoing.send(capture.parts())
            if request.stop:
                machine.leave("saved to a snapshot")
        finally:
            capture.release()
        return pb.MachineSaved(paused=duration(time.monotonic() - began), ram_bytes=capture.ram_bytes)

    def visit() -> pb.MachineSaved:
        try:
            saved = machine.visit(work)
            if request.stop:
                machine.wait_ended()
            return saved
        finally:
            outgoing.end()

    saving = asyncio.create_task(asyncio.to_thread(visit))
    try:
        while (part := await outgoing.receive()) is not None:
            yield pb.SaveMachineResponse(data=part)
        yield pb.SaveMachineResponse(saved=await saving)
    except EXPECTED as error:
        await refuse(context, status_of(error), error)
    finally:
        outgoing.abandon()
        with suppress(Exception):
            await asyncio.shield(saving)


async def move(machine: Machine, request: pb.MigrateMachineRequest, context: _Context) -> pb.MigrateMachineResponse:
    """Serve MigrateMachine."""
    backends = {backend.name: backend.address for backend in request.backends}

    def work(board: Board) -> Moved:
        try:
            moved = migrate(board, machine.resets, request.target, backends)
        except UnknownOwnerError:
            machine.pause()
            raise
        machine.leave(f"moved to {request.target}")
        return moved

    def visit() -> Moved:
        moved = machine.visit(work)
        machine.wait_ended()
        return moved

    try:
        moved = await asyncio.to_thread(visit)
    except EXPECTED as error:
        await refuse(context, status_of(error), error)
    return pb.MigrateMachineResponse(downtime=duration(moved.seconds), sent_bytes=moved.sent_bytes)


async def restore(
    requests: AsyncIterator[pb.RestoreMachineRequest], context: _Context, make: Callable[[SnapshotLoader], Machine]
) -> AsyncIterator[pb.RestoreMachineResponse]:
    """Serve RestoreMachine.

    Args:
        requests: the stream.
        context: of the rpc.
        make: makes the machine of a snapshot and keeps it; called in a thread. Raises SnapshotError for a wrong configuration.
    """
    first = await anext(requests, None)
    if first is None or not first.HasField("options"):
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message of a restore is options")
    assert first is not None
    options = first.options
    backends = {backend.name: backend.address for backend in options.backends}
    incoming = Incoming()
    machines: list[Machine] = []

    def prepare() -> None:
        with _open(options.file) if options.file else nullcontext(incoming) as source:
            loader = SnapshotLoader(source, backends, moved=options.moved)
            if loader.config.name != options.vm:
                raise SnapshotError(f"the snapshot is of VM {loader.config.name!r}, not of {options.vm!r}")
            machine = make(loader)
            machines.append(machine)
            machine.prepare()

    feeding = asyncio.create_task(_feed(requests, incoming, in_parts=not options.file))
    preparing = asyncio.create_task(asyncio.to_thread(prepare))
    running = False
    refused: Exception | None = None
    try:
        await asyncio.wait({feeding, preparing}, return_when=asyncio.FIRST_COMPLETED)
        if feeding.done():
            feeding.result()
        await preparing
        await feeding
        yield pb.RestoreMachineResponse(ready=pb.RestoreReady(vm=machines[0].config.name, incarnation=machines[0].incarnation))
        go = await anext(requests, None)
        if go is None or not go.HasField("go"):
            raise ProtocolError("the restore ended without go, so the machine is dropped")
        running = True
        await asyncio.to_thread(machines[0].go)
        yield pb.RestoreMachineResponse(running=pb.RestoreRunning())
    except EXPECTED as error:
        refused = error
    finally:
        feeding.cancel()
        incoming.end()
        if not running:
            await asyncio.shield(_drop(preparing, machines))
    if refused is not None:
        await refuse(context, status_of(refused), refused)


async def _drop(preparing: asyncio.Task[None], machines: list[Machine]) -> None:
    """End a machine that must not run."""
    with suppress(Exception):
        await preparing  # Its input has ended, and back ends have their deadline; until then there may be more to stop.
    for machine in machines:
        await asyncio.to_thread(machine.stop)


def _open(path: str) -> AbstractContextManager[Source]:
    """Open a snapshot of this host. Raises OSError, and SnapshotError for what is not a file: a pipe would have no end."""
    if not os.path.isabs(path):
        raise SnapshotError(f"{path}: not an absolute path")
    try:
        return open_input(Path(path))
    except WrongFileError as error:
        raise SnapshotError(f"{path}: {error.strerror}") from error


async def _feed(requests: AsyncIterator[pb.RestoreMachineRequest], incoming: Incoming, *, in_parts: bool) -> None:
    """Hand over the snapshot, up to its end. Raises ProtocolError."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "data" if in_parts:
                await incoming.put(request.data)
            case "complete":
                incoming.end()
                return
            case other:
                raise ProtocolError(f"unexpected message {other or 'without content'} in a snapshot")
    raise ProtocolError("the snapshot ended before it was complete")
