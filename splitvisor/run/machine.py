# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine, from StartMachine to its end, with the terminal attached: the gRPC half of `splitvisor run`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from splitvisor.machine.config import MachineConfig
from splitvisor.net.channels import explain, open_aio_channel
from splitvisor.net.times import seconds
from splitvisor.process.streams import OutputError
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc
from splitvisor.run.exit_status import ExitStatus
from splitvisor.run.request import Outcome, RunRequest
from splitvisor.service.names import SERVICE_NAMES, VIO_SERVICE
from splitvisor.terminal.session import (
    NoConsoleError,
    TerminalEnd,
    TerminalError,
    TerminalResult,
    attach_terminal,
    stay_without_console,
)

if TYPE_CHECKING:
    from splitvisor.rpc.machine_pb2_grpc import MachineServiceAsyncStub as _Stub

_T = TypeVar("_T")

START_SECONDS = 60.0
LAST_OUTPUT_SECONDS = 5.0
"""How long to wait for what the guest wrote last, once it has ended."""
CONTROL_SECONDS = 5.0
STATISTICS_SECONDS = 2.0
FAILURE_SECONDS = 1.0
"""How long after its last connection a process may take to be seen ended."""

_FINAL: Mapping[pb.MachineState, ExitStatus] = {
    pb.MACHINE_STATE_POWERED_OFF: ExitStatus.POWERED_OFF,
    pb.MACHINE_STATE_STOPPED: ExitStatus.POWERED_OFF,
    pb.MACHINE_STATE_CRASHED: ExitStatus.CRASHED,
    pb.MACHINE_STATE_FAILED: ExitStatus.SERVICE_FAILED,
}

_START_ERRORS: Mapping[grpc.StatusCode, ExitStatus] = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitStatus.USAGE,
    grpc.StatusCode.FAILED_PRECONDITION: ExitStatus.USAGE,
}


async def run_machine(
    request: RunRequest,
    addresses: Mapping[str, str],
    failures: Sequence[asyncio.Task[Any]],
    via: Mapping[str, str],
    facts: dict[str, Any],
    running: asyncio.Event,
) -> Outcome:
    """Run the machine.

    Args:
        request: what the run was asked for.
        addresses: of the services, by flag name.
        failures: tasks that raise when a service ends early.
        running: set once the guest runs.
        via: what cpu_service reaches a back end through when it is not the service itself; by flag name.
        facts: gets what the machine did, at every end, for reports.
    """
    reached = {**addresses, **via}
    backends = {name.package: reached[name.command] for name in SERVICE_NAMES if name.command != "cpu"}
    async with open_aio_channel(addresses["cpu"]) as channel:
        stub = machine_pb2_grpc.MachineServiceStub(channel)
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        refused = False
        ended = asyncio.create_task(_watch(stub, request.config.name, started, request))
        # Before the machine: it may say all it has to say, and end, before an attach after its start came through.
        terminal = asyncio.create_task(_terminal(request, addresses["vio"], ended, running))
        try:
            try:
                starting = asyncio.ensure_future(_start(stub, request, backends))
                await asyncio.wait({starting, terminal, *failures}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done() and (left := _left(terminal)) is not None:
                    await _cancel(starting)
                    return left
                started.set_result(await _first(starting, failures))
                running.set()
            except grpc.aio.AioRpcError as error:
                refused = error.code() in _START_ERRORS
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    await _raise_failure(failures)
                why = _without_own(explain(error, addresses["cpu"]), request, backends)
                return Outcome(_START_ERRORS.get(error.code(), ExitStatus.SERVICE_FAILED), why)
            except OSError as error:
                return Outcome(ExitStatus.USAGE, f"{request.snapshot}: {error.strerror}")
            request.progress("")
            return await _end(ended, terminal, failures, request.exit_on)
        except grpc.aio.AioRpcError as error:
            # When its process has ended, that is the better explanation, and known a moment later.
            await _raise_failure(failures)
            return Outcome(ExitStatus.SERVICE_FAILED, f"cpu_service: {explain(error)}")
        except (TerminalError, OutputError) as error:
            if isinstance(error, TerminalError):
                outcome = Outcome(ExitStatus.SERVICE_FAILED, str(error))
            else:
                outcome = Outcome(ExitStatus.OUTPUT_FAILED, f"standard output: {error}")
            return outcome
        finally:
            await _cancel(ended, terminal)
            if started.done():
                with suppress(grpc.aio.AioRpcError):
                    facts.update(await _statistics(stub, request.config.name, started.result()))
            # With a service gone an orderly end is out of reach: its calls wait for it.
            # And what runs at a cpu_service that refused to start this machine is another one.
            # One of our own that is still starting the machine ends with its process.
            unborn = not running.is_set() and "cpu" not in request.connect
            if not (refused or unborn) and not any(failure.done() for failure in failures):
                incarnation = started.result() if started.done() else 0
                stop = pb.StopMachineRequest(vm=request.config.name, incarnation=incarnation)
                with suppress(grpc.aio.AioRpcError):
                    await stub.StopMachine(stop, timeout=CONTROL_SECONDS)
                if request.record is not None and incarnation:
                    # What waited for the disk is known to be there once the machine has ended.
                    with suppress(grpc.aio.AioRpcError):
                        request.record.failure = (await _status(stub, request.config.name, incarnation)).recording_failure


def _without_own(why: str, request: RunRequest, backends: Mapping[str, str]) -> str:
    """Return a message without which of this run's own services says so, and where it listens: that helps nobody."""
    for own in SERVICE_NAMES:
        if own.package in backends and own.command not in request.connect:
            why = why.removeprefix(f"back end {own.package} at {backends[own.package]}: ")
    return why


async def _terminal(
    request: RunRequest, vio: str, ended: asyncio.Task[pb.StateChanged], running: asyncio.Event
) -> TerminalResult:
    """Be at the machine's first console, or wait for its end when it has none. Raises TerminalError."""
    name, stdin = request.config.name, sys.stdin.fileno()
    address = _console_address(request.config, vio)
    try:
        return await attach_terminal(
            address, name, 0, stdin=stdin, stdout=sys.stdout.fileno(), exit_text=request.exit_on, running=running
        )
    except NoConsoleError:
        request.progress("")
        return await stay_without_console(name, ended, stdin=stdin)


def _console_address(config: MachineConfig, vio: str) -> str:
    """Return where the machine's first console is: at vio_service, unless all terminals are placed elsewhere."""
    places = [device.backend for device in config.devices if device.kind == "vty"]
    if not places or VIO_SERVICE in places:
        return vio
    return next(backend.address for backend in config.backends if backend.name == places[0])


def _left(terminal: asyncio.Task[TerminalResult]) -> Outcome | None:
    """Return what it means that the user has left before the guest ran; None when the terminal did not end so."""
    if not terminal.done() or terminal.exception() is not None:
        return None
    end = terminal.result().end
    if end is TerminalEnd.INTERRUPTED:
        return Outcome(ExitStatus.INTERRUPTED)
    return Outcome(ExitStatus.POWERED_OFF) if end in (TerminalEnd.LEFT, TerminalEnd.OUTPUT_CLOSED) else None


_UNREAD = "the console's output was closed before it showed the text"


async def _start(stub: _Stub, request: RunRequest, backends: Mapping[str, str]) -> int:
    """Start the machine, as configured or from its snapshot; return its incarnation.

    Raises AioRpcError, and OSError for the snapshot.
    """
    if request.snapshot is None:
        config = request.config.message(backends)
        config.record_file = str(request.record.path.absolute()) if request.record is not None else ""
        return (await stub.StartMachine(pb.StartMachineRequest(config=config), timeout=START_SECONDS)).incarnation
    from splitvisor.machine.snapshot_transfer import restore_requests  # not needed without a snapshot

    own = "cpu" not in request.connect
    requests = restore_requests(request.config.name, request.snapshot, backends, same_host=own)
    incarnation = 0
    async for response in stub.RestoreMachine(requests, timeout=START_SECONDS):
        incarnation = response.ready.incarnation or incarnation
    return incarnation


async def _first(task: asyncio.Future[_T], failures: Sequence[asyncio.Task[Any]]) -> _T:
    """Return the result of a task, or raise what ended a service meanwhile."""
    done, _ = await asyncio.wait({task, *failures}, return_when=asyncio.FIRST_COMPLETED)
    for finished in done:
        if finished is not task:
            task.cancel()
            finished.result()
    return task.result()


async def _raise_failure(failures: Sequence[asyncio.Task[Any]]) -> None:
    """Raise what ended a service, when one has ended."""
    if failures:
        done, _ = await asyncio.wait(failures, timeout=FAILURE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for failure in done:
            failure.result()


async def _end(
    ended: asyncio.Task[pb.StateChanged],
    terminal: asyncio.Task[TerminalResult],
    failures: Sequence[asyncio.Task[Any]],
    exit_on: bytes | None,
) -> Outcome:
    """Wait for the machine, the user or a service to end it."""
    await asyncio.wait({ended, terminal, *failures}, return_when=asyncio.FIRST_COMPLETED)
    for failure in failures:
        if failure.done() and not ended.done():
            failure.result()
    if terminal.done() and not ended.done():
        if terminal.result().end in (TerminalEnd.LEFT, TerminalEnd.EXIT_TEXT):
            return Outcome(ExitStatus.POWERED_OFF)
        if terminal.result().end is TerminalEnd.OUTPUT_CLOSED:  # As after `| head`; the guest could be neither seen nor reached.
            missing = exit_on is not None
            return Outcome(ExitStatus.TEXT_MISSING if missing else ExitStatus.POWERED_OFF, _UNREAD if missing else "")
        # Its console is gone; the machine decides what that means.
        await _first(ended, failures)
    state = await ended
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_OUTPUT_SECONDS):
            result = await asyncio.shield(terminal)
        if result.end is TerminalEnd.EXIT_TEXT:
            return Outcome(ExitStatus.POWERED_OFF)
    status = _FINAL[state.state]
    if status is ExitStatus.POWERED_OFF and exit_on is not None:
        return Outcome(ExitStatus.TEXT_MISSING, f"the guest powered off without writing {exit_on.decode(errors='replace')!r}")
    return Outcome(status, "" if status is ExitStatus.POWERED_OFF else state.detail)


async def _watch(stub: _Stub, vm: str, started: asyncio.Future[int], run: RunRequest) -> pb.StateChanged:
    """Return the machine's final state. Those of the VM's earlier lives at the same cpu_service do not count."""
    request = pb.WatchEventsRequest(vm=vm)
    while True:
        async for event in stub.WatchEvents(request):
            if event.WhichOneof("event") == "progress" and not started.done():
                run.progress(event.progress.step)
            own = started.done() and event.incarnation == started.result()
            if own and event.WhichOneof("event") == "state":
                if event.state.state in _FINAL:
                    return event.state
                if event.state.state == pb.MACHINE_STATE_PAUSED and event.state.detail:
                    run.notice(f"{vm} is paused: {event.state.detail}")
        request.incarnation = await asyncio.shield(started)


async def _status(stub: _Stub, vm: str, incarnation: int) -> pb.GetStatusResponse:
    return await stub.GetStatus(pb.GetStatusRequest(vm=vm, incarnation=incarnation), timeout=STATISTICS_SECONDS)


async def _statistics(stub: _Stub, vm: str, incarnation: int) -> dict[str, Any]:
    status = await _status(stub, vm, incarnation)
    return {
        "vm": status.vm,
        "state": pb.MachineState.Name(status.state),
        "uptime_seconds": seconds(status.uptime),
        "waiting_seconds": seconds(status.waiting),
        "backends": [
            {"name": each.name, "ram_mapped": each.ram_mapped, "reconnects": each.reconnects} for each in status.backends
        ],
        "calls": [
            {"name": each.name, "owner": each.owner, "count": each.count, "seconds": each.seconds} for each in status.calls
        ],
    }


async def _cancel(*tasks: asyncio.Task[Any] | None) -> None:
    pending = [task for task in tasks if task is not None]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
