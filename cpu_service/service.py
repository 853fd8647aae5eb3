# SPDX-License-Identifier: GPL-2.0-or-later
"""cpu_service: MachineService over one machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from cpu_service.engine.layout import UnsupportedEngineError
from cpu_service.images.loader import LoaderError
from cpu_service.link.errors import BackendRefusedError, BackendUnavailableError
from cpu_service.machine.board import WATCHDOG_ACTIONS, NoMemoryError
from cpu_service.machine.machine import FINAL_STATES, Machine
from cpu_service.machine.placement import OWN_SERVICES, PlacementError, check_devices, vio_slots
from cpu_service.observe.trap_trace import TooManyWatchersError, Watcher, WatchError
from cpu_service.report.events import EventReporter, FarBehindError, MachineEvents
from cpu_service.report.metrics import machine_samples
from cpu_service.report.status import machine_status
from cpu_service.routing.registry import RegistryError
from splitvisor import limits
from splitvisor.errors.problem import Problem, ProblemError
from splitvisor.errors.similar import did_you_mean
from splitvisor.errors.status import NO_SUCH_MACHINE, refuse
from splitvisor.machine.snapshot_file import SnapshotError
from splitvisor.net.addresses import AddressError
from splitvisor.net.pages import PageError, page_of
from splitvisor.net.tls_files import check_address
from splitvisor.observe.metrics import Source
from splitvisor.recording import RecordingError
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc
from splitvisor.service.interface import Started
from splitvisor.service.runtime_directory import private_directory, ram_parents
from splitvisor.service.serve import SettingError
from splitvisor.trap.ram_file import remove_abandoned
from splitvisor.trap.trap_socket import remove_abandoned_sockets

if TYPE_CHECKING:
    from cpu_service.snapshot.load import SnapshotLoader
    from splitvisor.trap.tracing import Tracing

SERVICES = ("splitvisor.control.v1.MachineService",)
WATCH_BATCH = 256
"""Calls in one response of WatchTraps."""
WATCH_PAUSE_S = 0.01
"""Between two responses to one watcher."""
MAX_BACKENDS = len(OWN_SERVICES) + limits.MAX_FURTHER_BACKENDS

_MIB_MIN, _MIB_MAX, _MIB_STEP = (size // limits.MIB for size in (limits.MEMORY_MIN, limits.MEMORY_MAX, limits.MEMORY_STEP))

_Context = grpc.aio.ServicerContext[Any, Any]


class _Named(Protocol):
    """A request about one machine."""

    vm: str
    incarnation: int


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
        if not os.access(options.ram_dir, os.W_OK | os.X_OK) or not options.ram_dir.is_dir():
            raise SettingError(f"--ram-dir {options.ram_dir}: not a directory that this user can write", "make it first")
        await asyncio.to_thread(remove_abandoned, options.ram_dir)
        await asyncio.to_thread(remove_abandoned_sockets, options.ram_dir)
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
        self._events = MachineEvents(self._wake_trap_watchers)
        self._starting = asyncio.Lock()
        self._tracing: Tracing | None = None
        self._trap_watchers: set[asyncio.Event] = set()
        """Set when calls have arrived, or when the machine has ended."""

    async def StartMachine(self, request: pb.StartMachineRequest, context: _Context) -> pb.StartMachineResponse:
        """See the contract."""
        try:
            _check(request.config)
        except ProblemError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        async with self._starting:
            await self._require_none(context)
            machine = self._make(request.config)
            try:
                await asyncio.to_thread(machine.start)
            except BackendUnavailableError as error:
                await refuse(context, grpc.StatusCode.UNAVAILABLE, error)
            except (
                BackendRefusedError,
                LoaderError,
                RegistryError,
                PlacementError,
                UnsupportedEngineError,
                RecordingError,
                NoMemoryError,
                OSError,
            ) as error:
                await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, error)
        return pb.StartMachineResponse(incarnation=machine.incarnation)

    async def PauseMachine(self, request: pb.PauseMachineRequest, context: _Context) -> pb.PauseMachineResponse:
        """See the contract."""
        (await self._require(request, context)).pause()
        return pb.PauseMachineResponse()

    async def ResumeMachine(self, request: pb.ResumeMachineRequest, context: _Context) -> pb.ResumeMachineResponse:
        """See the contract."""
        (await self._require(request, context)).resume()
        return pb.ResumeMachineResponse()

    async def ResetMachine(self, request: pb.ResetMachineRequest, context: _Context) -> pb.ResetMachineResponse:
        """See the contract."""
        (await self._require(request, context)).reset()
        return pb.ResetMachineResponse()

    async def SignalSystemReset(self, request: pb.SignalSystemResetRequest, context: _Context) -> pb.SignalSystemResetResponse:
        """See the contract."""
        machine = await self._require(request, context)
        if machine.state in FINAL_STATES:
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"machine {request.vm!r} has ended", "MACHINE_ENDED")
        vcpus = range(machine.config.vcpus)
        if request.HasField("vcpu") and request.vcpu not in vcpus:
            problem = Problem(f"machine {request.vm!r} has no vCPU {request.vcpu}", f"give 0 to {vcpus[-1]}, or none for all")
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, problem)
        machine.system_reset([request.vcpu] if request.HasField("vcpu") else vcpus)
        return pb.SignalSystemResetResponse()

    async def StopMachine(self, request: pb.StopMachineRequest, context: _Context) -> pb.StopMachineResponse:
        """See the contract."""
        await asyncio.to_thread((await self._require(request, context)).stop)
        return pb.StopMachineResponse()

    async def SaveMachine(self, request: pb.SaveMachineRequest, context: _Context) -> AsyncIterator[pb.SaveMachineResponse]:
        """See the contract."""
        from cpu_service.snapshot import service as snapshot_service  # With zstandard; most machines are never saved.

        machine = await self._require(request, context)
        async for response in snapshot_service.save(machine, request, context):
            yield response

    async def RestoreMachine(
        self, request_iterator: AsyncIterator[pb.RestoreMachineRequest], context: _Context
    ) -> AsyncIterator[pb.RestoreMachineResponse]:
        """See the contract."""
        from cpu_service.snapshot import service as snapshot_service

        def make(loader: SnapshotLoader) -> Machine:
            try:
                _check(loader.config)
            except ProblemError as error:
                problem = error.problem.at("the machine of the snapshot is none")
                raise SnapshotError(problem.what, problem.remedy) from error
            return self._make(loader.config, loader)

        async with self._starting:
            await self._require_none(context)
            async for response in snapshot_service.restore(request_iterator, context, make):
                yield response

    async def MigrateMachine(self, request: pb.MigrateMachineRequest, context: _Context) -> pb.MigrateMachineResponse:
        """See the contract."""
        from cpu_service.snapshot import service as snapshot_service

        machine = await self._require(request, context)
        try:
            check_address(request.target)
        except AddressError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error.problem.at("target"))
        return await snapshot_service.move(machine, request, context)

    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.GetStatusResponse:
        """See the contract."""
        return machine_status(await self._require(request, context))

    async def ListMachines(self, request: pb.ListMachinesRequest, context: _Context) -> pb.ListMachinesResponse:
        """See the contract."""
        found = [] if self._machine is None else [self._machine]
        machines = [pb.Machine(vm=each.config.name, incarnation=each.incarnation, state=each.state) for each in found]
        try:
            page, token = page_of(machines, lambda each: each.vm, request)
        except PageError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        return pb.ListMachinesResponse(machines=page, next_page_token=token)

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: _Context) -> AsyncIterator[pb.WatchEventsResponse]:
        """See the contract."""
        here = self._machine is not None and self._machine.config.name == request.vm
        machine = await self._require(request, context) if here or request.incarnation else None
        try:
            async with aclosing(self._events.watch(request.vm, request.incarnation, machine)) as events:
                async for event in events:
                    yield event
        except FarBehindError as error:
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error)

    async def WatchTraps(self, request: pb.WatchTrapsRequest, context: _Context) -> AsyncIterator[pb.WatchTrapsResponse]:
        """See the contract."""
        machine = await self._require(request, context)
        trace = machine.board.trace if machine.board is not None else None
        if trace is None or machine.state in FINAL_STATES:
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"machine {request.vm!r} has ended", "MACHINE_ENDED")
        arrived = asyncio.Event()

        def wake() -> None:
            self._loop.call_soon_threadsafe(arrived.set)

        try:
            watcher = Watcher(request, wake)
            trace.add(watcher)
        except WatchError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        except TooManyWatchersError as error:
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error)
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

    def _wake_trap_watchers(self) -> None:
        for arrived in self._trap_watchers:
            arrived.set()

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

    def _make(self, config: pb.MachineConfig, loader: SnapshotLoader | None = None) -> Machine:
        """Make the machine here, in place of one that has ended."""
        incarnation = max(time.time_ns(), loader.machine.incarnation + 1 if loader is not None else 0)
        reporter = EventReporter(config.name, incarnation, self._events)
        self._machine = Machine(config, incarnation, self._ram_dir, reporter, self._tracing, loader)
        return self._machine

    async def _require(self, request: _Named, context: _Context) -> Machine:
        """Return the machine that a request names. Aborts the call when it is another one, or another life of it."""
        machine = self._machine
        if machine is None or machine.config.name != request.vm:
            vm = request.vm[: limits.VM_NAME_LENGTH]
            here = [] if machine is None else [machine.config.name]
            remedy = did_you_mean(vm, here) or f"give the address of its cpu_service, or start it with `splitvisor vm start {vm}`"
            await refuse(context, grpc.StatusCode.NOT_FOUND, Problem(f"no machine {vm!r} here", remedy, NO_SUCH_MACHINE))
        if request.incarnation not in (0, machine.incarnation):
            what = f"machine {request.vm!r} was started again since"
            remedy = f"`splitvisor vm status {request.vm}` shows what it does now"
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, Problem(what, remedy, "ANOTHER_LIFE"))
        return machine

    async def _require_none(self, context: _Context) -> None:
        if self._machine is not None and self._machine.state not in FINAL_STATES:
            running = self._machine.config.name
            what = f"machine {running!r} runs here already"
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, what, "MACHINE_RUNS")


async def _watched(watcher: Watcher) -> AsyncIterator[pb.WatchTrapsResponse]:
    """What waits for a watcher, in pieces; between them there is time for others, for the encoding takes the vCPU's."""
    while True:
        seen, missed = watcher.take(WATCH_BATCH)
        if not seen and not missed:
            return
        yield pb.WatchTrapsResponse(traps=[each.message() for each in seen], missed=missed)
        await asyncio.sleep(WATCH_PAUSE_S)


class ConfigurationError(ProblemError):
    """A machine cannot be as it is configured; the message names the key."""


def _check(config: pb.MachineConfig) -> None:
    """Raise ConfigurationError, PlacementError or AddressError when something is wrong with a configuration."""
    names = [backend.name for backend in config.backends]
    checks = (
        (limits.is_vm_name(config.name), "name: not a name", f"give {limits.VM_NAME_RULE}"),
        (
            _MIB_MIN <= config.memory_mib <= _MIB_MAX and config.memory_mib % _MIB_STEP == 0,
            f"memory_mib: {config.memory_mib} does not fit",
            f"give {_MIB_MIN} to {_MIB_MAX}, a multiple of {_MIB_STEP}",
        ),
        (1 <= config.vcpus <= limits.MAX_VCPUS, f"vcpus: {config.vcpus} does not fit", f"give 1 to {limits.MAX_VCPUS}"),
        (
            config.boot_protocol in (pb.BOOT_PROTOCOL_UNSPECIFIED, pb.BOOT_PROTOCOL_EPAPR),
            f"boot_protocol: {config.boot_protocol} is none",
            "give 0 or 1",
        ),
        (
            config.boot_protocol != pb.BOOT_PROTOCOL_EPAPR or bool(config.kernel and not config.firmware),
            "boot_protocol: ePAPR starts a kernel, without firmware",
            "give a kernel and no firmware",
        ),
        (config.watchdog_action in WATCHDOG_ACTIONS, f"watchdog_action: {config.watchdog_action} is none", "give 0 to 4"),
        (len(config.append.encode()) <= limits.BOOTARGS_BYTES, "append: too long", f"give at most {limits.BOOTARGS_BYTES} bytes"),
        (
            all(word in limits.BOOT_SOURCES for word in config.boot) and len(set(config.boot)) == len(config.boot),
            f"boot: {', '.join(config.boot)} is no order to boot in",
            f"give each of {', '.join(limits.BOOT_SOURCES)} once at most",
        ),
        (not config.boot or not config.kernel, "boot: the machine has a kernel, which it boots", "give one of them"),
        (
            bool(names) and len(set(names)) == len(names),
            "backends: none, or two of one name",
            "give each back end a name of its own",
        ),
        (len(names) <= MAX_BACKENDS, f"backends: {len(names)} are too many", f"give at most {MAX_BACKENDS}"),
        (
            len(config.devices) <= limits.MAX_DEVICES,
            f"devices: {len(config.devices)} are too many",
            f"give at most {limits.MAX_DEVICES}",
        ),
    )
    for backend in config.backends:
        try:
            check_address(backend.address)
        except AddressError as error:
            problem = error.problem.at(f"backends: {backend.name}")
            raise ConfigurationError(problem.what, problem.remedy) from error
    check_devices(config)
    vio_slots(config.backends)
    for fits, what, remedy in checks:
        if not fits:
            raise ConfigurationError(what, remedy)
