# SPDX-License-Identifier: GPL-2.0-or-later
"""The fault proxy as a service: stands between cpu_service and one back end, and passes every rpc on.

Trap streams meet the faults of a scenario; every other rpc passes as it is, whatever it is, so that consoles and device trees are
reached through the proxy too. Messages are bytes here, except on a trap stream that has faults to meet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog

from splitvisor.faults import PROCESS_SIGNALS
from splitvisor.faults.journal import Journal
from splitvisor.faults.lane import Lane, LostError
from splitvisor.faults.process import NoProcessError, listener, send_signal
from splitvisor.faults.scenario import Direction, Scenario, ScenarioError, read_scenario
from splitvisor.faults.schedule import Happening, Schedule
from splitvisor.net.addresses import AddressError
from splitvisor.net.channels import SERVICE_OPTIONS, open_aio_channel
from splitvisor.rpc import console_pb2, device_tree_pb2, platform_event_pb2, vio_bus_pb2
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.service.serve import SettingError

SERVICES: tuple[str, ...] = ()
"""It has none of its own; nobody with a certificate is let through, for who may call what is the back end's to decide."""
_CONTRACTS = (console_pb2, device_tree_pb2, platform_event_pb2, vio_bus_pb2)
_ONE_REQUEST = frozenset(
    f"/{service.full_name}/{method.name}"
    for contract in _CONTRACTS
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.client_streaming
)
"""Rpcs whose request goes out whole: one that goes out as a stream may be cut off by its own answer, which is lost then."""
ATTACH = "/splitvisor.trap.v1.TrapService/Attach"
SETTLE_S = 5.0
"""How long a caller may take to read what was written last, when its call ends with an error."""
MAX_SCHEDULES = 256
"""VMs whose faults are remembered over their connections."""

Status = tuple[grpc.StatusCode, str]
log = structlog.get_logger()


@dataclass(frozen=True)
class Options:
    """What the command line may set."""

    to: str = field(metadata={"metavar": "ADDRESS", "help": "the back end"})
    scenario: Path = field(metadata={"metavar": "FILE", "help": "the scenario, a TOML file"})
    backend: str = field(default="", metadata={"metavar": "NAME", "help": "the back end's name in the scenario"})
    journal: Path | None = field(
        default=None, metadata={"metavar": "FILE", "help": "write a line of JSON to this file for each fault"}
    )


async def start(server: grpc.aio.Server, options: Options) -> Callable[[], Awaitable[None]]:
    """Add the proxy. Returns what stops it; raises SettingError."""
    try:
        scenario = read_scenario(options.scenario)
        journal = Journal(options.journal)
        channel = open_aio_channel(options.to, SERVICE_OPTIONS)
    except (ScenarioError, AddressError) as error:
        raise SettingError(str(error)) from None
    except OSError as error:
        raise SettingError(f"{options.journal}: {error.strerror or error}", "give the path of a file") from None
    proxy = Proxy(channel, options.to, scenario, options.backend, journal)
    server.add_generic_rpc_handlers((proxy,))
    return proxy.close


class Proxy(grpc.GenericRpcHandler):
    """Passes calls on to a back end.

    Args:
        channel: for asyncio, to the back end, with what notices that it stands still.
        address: where that is.
        scenario: what may go wrong.
        backend: the back end's name in the scenario.
        journal: told of each fault.
    """

    def __init__(self, channel: Any, address: str, scenario: Scenario, backend: str, journal: Journal) -> None:
        self._channel, self._address, self._scenario, self._backend = channel, address, scenario, backend
        self._journal = journal
        self._schedules: dict[str, Schedule] = {}
        self._stopped: dict[int, asyncio.TimerHandle] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Every method is a pair of streams of bytes: on the wire there is no difference."""
        method = handler_call_details.method
        carry = self._attach if method == ATTACH else _answer if method in _ONE_REQUEST else _pass

        async def handler(requests: AsyncIterator[bytes], context: Any) -> None:
            settings = {"timeout": context.time_remaining(), "metadata": _metadata(context)}
            if method in _ONE_REQUEST:
                call = self._channel.unary_stream(method)(await anext(requests, b""), **settings)
            else:
                call = self._channel.stream_stream(method)(**settings)
            writer = _Writer(context)
            try:
                code, details = await carry(requests, call, writer)
                context.set_trailing_metadata(tuple(await call.trailing_metadata() or ()))
            except* LostError:
                code, details = grpc.StatusCode.UNAVAILABLE, "a fault broke the connection"
            finally:
                call.cancel()
            if code is not grpc.StatusCode.OK:
                await writer.settle()
                await context.abort(code, details)

        return grpc.stream_stream_rpc_method_handler(handler)

    async def close(self) -> None:
        """End: who was stopped goes on."""
        for pid, timer in self._stopped.items():
            timer.cancel()
            _continue(pid)
        await self._channel.close(None)
        self._journal.close()

    async def _attach(self, requests: AsyncIterator[bytes], call: Any, writer: _Writer) -> Status:
        first = await anext(requests, None)
        if first is None:
            return grpc.StatusCode.OK, ""
        request = pb.AttachRequest.FromString(first)
        vm = request.hello.vm
        if request.hello.socket_path:  # The connection would move to a socket, past the faults.
            request.hello.ClearField("socket_path")
            first = request.SerializeToString()
        schedule = self._schedule(vm)
        details = {"vm": vm, "backend": self._backend}

        def lane(direction: Direction) -> Lane:
            return Lane(direction, schedule, self._journal, details, self._to_process)

        async def send() -> None:
            await lane(Direction.TO_BACKEND).carry(_after(first, requests), call.write)
            await call.done_writing()

        receive = lane(Direction.TO_CPU).carry(_responses(call), writer.write)
        return await _both(send(), receive, call)

    def _schedule(self, vm: str) -> Schedule:
        known = self._schedules.pop(vm, None) or Schedule(self._scenario, self._backend, vm)
        while len(self._schedules) >= MAX_SCHEDULES:
            self._schedules.pop(next(iter(self._schedules)))
        self._schedules[vm] = known
        return known

    def _to_process(self, happening: Happening) -> None:
        """Kill or stop the back end."""
        name = happening.fault.kind.name
        try:
            pid = listener(self._address)
            send_signal(pid, PROCESS_SIGNALS[name])
        except NoProcessError as error:
            log.warning("no process for a fault", kind=name, reason=str(error))
            return
        if name == "stop":
            if pid in self._stopped:
                self._stopped.pop(pid).cancel()
            self._stopped[pid] = asyncio.get_running_loop().call_later(happening.seconds, self._go_on, pid)

    def _go_on(self, pid: int) -> None:
        self._stopped.pop(pid, None)
        _continue(pid)


def _continue(pid: int) -> None:
    with suppress(NoProcessError):
        send_signal(pid, PROCESS_SIGNALS["continue"])


class _Writer:
    """Writes to the caller. gRPC cannot end a call while a write is under way, even one that nobody waits for any more."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._write: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write; when this is cancelled the write goes on."""
        self._write = asyncio.ensure_future(self._context.write(data))
        await asyncio.shield(self._write)

    async def settle(self) -> None:
        """Wait until no write is under way."""
        if self._write is not None:
            await asyncio.wait({self._write}, timeout=SETTLE_S)


async def _receive(call: Any, writer: _Writer) -> None:
    async for data in _responses(call):
        await writer.write(data)


async def _answer(_requests: AsyncIterator[bytes], call: Any, writer: _Writer) -> Status:
    """Pass the answers to one request on."""
    return await _both(asyncio.sleep(0), _receive(call, writer), call)


async def _pass(requests: AsyncIterator[bytes], call: Any, writer: _Writer) -> Status:
    """Pass both directions on as they are."""

    async def send() -> None:
        async for data in requests:
            await call.write(data)
        await call.done_writing()

    return await _both(send(), _receive(call, writer), call)


async def _both(sending: Any, receiving: Any, call: Any) -> Status:
    """Carry both directions until the back end has said everything; return how it ended. Raises LostError."""
    send, receive = asyncio.ensure_future(sending), asyncio.ensure_future(receiving)
    try:
        await asyncio.wait({send, receive}, return_when=asyncio.FIRST_COMPLETED)
        if not receive.done() and send.exception() is None:
            await asyncio.wait({receive})
        errors = [task.exception() for task in (send, receive) if task.done()]
    finally:
        for task in (send, receive):
            task.cancel()
        await asyncio.gather(send, receive, return_exceptions=True)
    for error in errors:
        _raise_lost(error)
    if any(errors):
        call.cancel()  # When it is not what ended, it has nobody to talk to.
    return await call.code(), await call.details() or ""


def _raise_lost(error: BaseException | None) -> None:
    """Raise what a fault did; what the connection itself ended with, the call tells."""
    if isinstance(error, BaseExceptionGroup):
        lost = error.subgroup(LostError)
        if lost is not None:
            raise lost


async def _responses(call: Any) -> AsyncIterator[bytes]:
    while (data := await call.read()) is not grpc.aio.EOF:
        yield data


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for data in rest:
        yield data


def _metadata(context: Any) -> Sequence[tuple[str, str | bytes]]:
    """What the caller said beside its messages, without what gRPC adds by itself."""
    return [(key, value) for key, value in context.invocation_metadata() or () if key != "user-agent" and key[:5] != "grpc-"]
