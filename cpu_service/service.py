# SPDX-License-Identifier: GPL-2.0-or-later
"""cpu_service: MachineService over one machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from cpu_service.engine.layout import UnsupportedEngineError
from cpu_service.images.loader import LoaderError
from cpu_service.link.connection import LinkConnection
from cpu_service.link.contract import BackendUnavailableError
from cpu_service.machine.machine import FINAL_STATES, Machine
from cpu_service.machine.placement import OWN_SERVICES, PlacementError, check_devices, vio_slots
from cpu_service.observe.trap_trace import TooManyWatchersError, Watcher, WatchError
from cpu_service.report.metrics import machine_samples
from cpu_service.report.status import backend_status, machine_status
from cpu_service.routing.registry import RegistryError
from splitvisor import limits
from splitvisor.access.own_vm import OwnVm
from splitvisor.machine.snapshot_file import SnapshotError
from splitvisor.net.addresses import AddressError
from splitvisor.net.tls_files import check_address
from splitvisor.observe.metrics import Source
from splitvisor.recording import RecordingError
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc
from splitvisor.service.interface import Started
from splitvisor.service.runtime_directory import private_directory, ram_parents
from splitvisor.trap.ram_file import remove_abandoned

if TYPE_CHECKING:
    from cpu_service.snapshot.load import SnapshotLoader
    from splitvisor.trap.tracing import Tracing

SERVICES = ("splitvisor.control.v1.MachineService",)
EVENT_BACKLOG = 1000
WATCH_BATCH = 256
"""Calls in one response of WatchTraps."""
WATCH_PAUSE_S = 0.01
"""Between two responses to one watcher."""
MAX_BACKENDS = len(OWN_SERVICES) + limits.MAX_FURTHER_BACKENDS

_MIB_MIN, _MIB_MAX, _MIB_STEP = (size // limits.MIB for size in (limits.MEMORY_MIN, limits.MEMORY_MAX, limits.MEMORY_STEP))

log = structlog.get_logger()

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Options:
    """What `splitvisor service cpu` may set."""

    ram_dir: Path | None = field(
        default=None, metadata={"help": "directory for the file of guest RAM, best on a tmpfs (default: one in /dev/shm)"}
    )


async def start(server: grpc.aio.Server, options: Options) -> Callable[[], Awaitable[None]]:
    """Add MachineService; the result stops the machine."""
    stack = ExitStack()
    directory = options.ram_dir or stack.enter_context(private_directory(ram_parents(0)))
    if options.ram_dir is not None:
        await asyncio.to_thread(remove_abandoned, options.ram_dir)
    servicer = MachineServicer(directory)
    machine_pb2_grpc.add_MachineServiceServicer_to_server(servicer, server)

    async def stop() -> None:
        with stack:
            await servicer.close()

    return Started(stop, measure=(servicer.measure,), trace=(servicer.trace_with,))


class MachineServicer(machine_pb2_grpc.MachineServiceServicer):
    """Serves MachineService (see proto/splitvisor/control/v1/machine.proto).

    Args:
        ram_dir: where the file of guest RAM is made.
    """

    def __init__(self, ram_dir: Path) -> None:
        self._ram_dir = ram_dir
        self._machine: Machine | None = None
        self._loop = asyncio.get_running_loop()
        self._watchers: set[asyncio.Queue[pb.WatchEventsResponse | None]] = set()
        self._starting = asyncio.Lock()
        self._tracing: Tracing | None = None
        self._trap_watchers: set[asyncio.Event] = set()
        """Set when calls have arrived, or when the machine has ended."""

    async def StartMachine(self, request: pb.StartMachineRequest, context: _Context) -> pb.StartMachineResponse:
        """See the contract."""
        wrong = _wrong(request.config)
        if wrong:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, wrong)
        async with self._starting:
            await self._require_none(context)
            OwnVm.name = request.config.name
            machine = self._machine = Machine(request.config, self._ram_dir, self, self._tracing)
            try:
                await asyncio.to_thread(machine.start)
            except BackendUnavailableError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except (LoaderError, RegistryError, PlacementError, UnsupportedEngineError, RecordingError) as error:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            except OSError as error:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"guest RAM: {error}")
        return pb.StartMachineResponse()

    async def PauseMachine(self, request: pb.PauseMachineRequest, context: _Context) -> pb.PauseMachineResponse:
        """See the contract."""
        (await self._require(context)).pause()
        return pb.PauseMachineResponse()

    async def ResumeMachine(self, request: pb.ResumeMachineRequest, context: _Context) -> pb.ResumeMachineResponse:
        """See the contract."""
        (await self._require(context)).resume()
        return pb.ResumeMachineResponse()

    async def ResetMachine(self, request: pb.ResetMachineRequest, context: _Context) -> pb.ResetMachineResponse:
        """See the contract."""
        (await self._require(context)).reset()
        return pb.ResetMachineResponse()

    async def StopMachine(self, request: pb.StopMachineRequest, context: _Context) -> pb.StopMachineResponse:
        """See the contract."""
        await asyncio.to_thread((await self._require(context)).stop)
        return pb.StopMachineResponse()

    async def SaveMachine(self, request: pb.SaveMachineRequest, context: _Context) -> AsyncIterator[pb.SaveMachineResponse]:
        """See the contract."""
        from cpu_service.snapshot import service as snapshot_service  # With zstandard; most machines are never saved.

        machine = await self._require(context)
        async for response in snapshot_service.save(machine, request, context):
            yield response

    async def RestoreMachine(
        self, request_iterator: AsyncIterator[pb.RestoreMachineRequest], context: _Context
    ) -> AsyncIterator[pb.RestoreMachineResponse]:
        """See the contract."""
        from cpu_service.snapshot import service as snapshot_service

        def make(loader: SnapshotLoader) -> Machine:
            wrong = _wrong(loader.config)
            if wrong:
                raise SnapshotError(f"the machine of the snapshot is none: {wrong}")
            OwnVm.name = loader.config.name
            self._machine = Machine(loader.config, self._ram_dir, self, self._tracing, loader)
            return self._machine

        async with self._starting:
            await self._require_none(context)
            async for response in snapshot_service.restore(request_iterator, context, make):
                yield response

    async def MigrateMachine(self, request: pb.MigrateMachineRequest, context: _Context) -> pb.MigrateMachineResponse:
        """See the contract."""
        from cpu_service.snapshot import service as snapshot_service

        machine = await self._require(context)
        try:
            check_address(request.target)
        except AddressError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"target: {error}")
        return await snapshot_service.move(machine, request, context)

    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.GetStatusResponse:
        """See the contract."""
        return machine_status(self._machine)

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: _Context) -> AsyncIterator[pb.WatchEventsResponse]:
        """See the contract."""
        events: asyncio.Queue[pb.WatchEventsResponse | None] = asyncio.Queue(EVENT_BACKLOG)
        self._watchers.add(events)
        try:
            machine = self._machine
            state = pb.StateChanged(state=pb.MACHINE_STATE_NONE)
            if machine is not None:
                state = pb.StateChanged(state=machine.state, detail=machine.detail)
            yield pb.WatchEventsResponse(state=state)
            while (event := await events.get()) is not None:
                yield event
                if event.state.state in FINAL_STATES:
                    return
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {EVENT_BACKLOG} events behind; watch again")
        finally:
            self._watchers.discard(events)

    async def WatchTraps(self, request: pb.WatchTrapsRequest, context: _Context) -> AsyncIterator[pb.WatchTrapsResponse]:
        """See the contract."""
        machine = await self._require(context)
        trace = machine.board.trace if machine.board is not None else None
        if trace is None or machine.state in FINAL_STATES:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no machine runs here")
        assert trace is not None
        arrived = asyncio.Event()

        def wake() -> None:
            self._loop.call_soon_threadsafe(arrived.set)

        try:
            watcher = Watcher(request, wake)
            trace.add(watcher)
        except WatchError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TooManyWatchersError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        self._trap_watchers.add(arrived)
        try:
            await context.send_initial_metadata(())  # From here on, no call is missed unseen.
            while True:
                async for response in _watched(watcher):
                    yield response
                if machine.state in FINAL_STATES:
                    return
                await arrived.wait()
                arrived.clear()
        finally:
            trace.remove(watcher)
            self._trap_watchers.discard(arrived)

    def trace_with(self, tracing: Tracing) -> None:
        """Record the remote calls of machines that are started from now on."""
        self._tracing = tracing

    def measure(self) -> Source:
        """See Started.measure: everything is counted anyway."""
        return lambda: machine_samples(self._machine)

    async def close(self) -> None:
        """Stop the machine."""
        if self._machine is not None:
            await asyncio.to_thread(self._machine.stop)

    async def _require(self, context: _Context) -> Machine:
        if self._machine is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no machine was started here; call StartMachine first")
        assert self._machine is not None
        return self._machine

    async def _require_none(self, context: _Context) -> None:
        if self._machine is not None and self._machine.state not in FINAL_STATES:
            running = self._machine.config.name
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"machine {running!r} runs here already")

    # MachineObserver, called from the machine's threads.

    def state_changed(self, state: pb.MachineState, detail: str) -> None:
        """A new state."""
        log.info("machine", state=pb.MachineState.Name(state).removeprefix("MACHINE_STATE_").lower(), detail=detail)
        self._tell(pb.WatchEventsResponse(state=pb.StateChanged(state=state, detail=detail)))

    def backend_changed(self, link: LinkConnection) -> None:
        """A back end went away or came back."""
        self._tell(pb.WatchEventsResponse(backend=backend_status(link)))

    def progress(self, step: str) -> None:
        """A step of starting up."""
        self._tell(pb.WatchEventsResponse(progress=pb.Progress(step=step)))

    def _tell(self, event: pb.WatchEventsResponse) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish, event)

    def _publish(self, event: pb.WatchEventsResponse) -> None:
        if event.state.state in FINAL_STATES:
            for arrived in self._trap_watchers:
                arrived.set()
        for events in list(self._watchers):
            if events.full():
                self._watchers.discard(events)
                while not events.empty():
                    events.get_nowait()
                events.put_nowait(None)
            else:
                events.put_nowait(event)


async def _watched(watcher: Watcher) -> AsyncIterator[pb.WatchTrapsResponse]:
    """What waits for a watcher, in pieces; between them there is time for others, for the encoding takes the vCPU's."""
    while True:
        seen, missed = watcher.take(WATCH_BATCH)
        if not seen and not missed:
            return
        yield pb.WatchTrapsResponse(traps=[each.message() for each in seen], missed=missed)
        await asyncio.sleep(WATCH_PAUSE_S)


def _wrong(config: pb.MachineConfig) -> str:
    """What is wrong with a configuration, in one line that names the key; empty when nothing is."""
    names = [backend.name for backend in config.backends]
    checks = (
        (not limits.is_vm_name(config.name), f"name: give {limits.VM_NAME_RULE}"),
        (
            not _MIB_MIN <= config.memory_mib <= _MIB_MAX or config.memory_mib % _MIB_STEP != 0,
            f"memory_mib: give {_MIB_MIN} to {_MIB_MAX}, a multiple of {_MIB_STEP}",
        ),
        (not 1 <= config.vcpus <= limits.MAX_VCPUS, f"vcpus: give 1 to {limits.MAX_VCPUS}"),
        (len(config.append.encode()) > limits.BOOTARGS_BYTES, f"append: give at most {limits.BOOTARGS_BYTES} bytes"),
        (not names or len(set(names)) != len(names), "backends: give each back end a name of its own"),
        (len(names) > MAX_BACKENDS, f"backends: give at most {MAX_BACKENDS}"),
        (len(config.devices) > limits.MAX_DEVICES, f"devices: give at most {limits.MAX_DEVICES}"),
    )
    for backend in config.backends:
        try:
            check_address(backend.address)
        except AddressError as error:
            return f"backends: {backend.name}: {error}"
    try:
        check_devices(config)
        vio_slots(config.backends)
    except PlacementError as error:
        return str(error)
    return next((text for wrong, text in checks if wrong), "")
