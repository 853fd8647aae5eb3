# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a service, one of the four or any other back end: a gRPC server with health checking and reflection that stops
cleanly.

What a service is: splitvisor/service/interface.py.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from splitvisor.errors.problem import ProblemError
from splitvisor.limits import MESSAGE_BYTES
from splitvisor.net.addresses import Address, AddressError, parse_address
from splitvisor.net.listening import check_free
from splitvisor.net.sockets import make_way
from splitvisor.process.extras import require
from splitvisor.process.logging import get_logger
from splitvisor.process.signals import handled_signals
from splitvisor.service.interface import Servable, Started

if TYPE_CHECKING:
    from splitvisor.access.authorization import Authorization

STOP_SECONDS = 3.0
"""How long calls under way may go on after a signal."""
SOCKET_MODE = 0o600
"""Of unix sockets: who may open one may do everything."""

HANDSHAKE_MS = 10_000
"""How long a peer may take to become one."""
MAX_CALLS = 4096
"""Calls and streams under way in a service; one more gets RESOURCE_EXHAUSTED."""
MAX_HEALTH_CALLS = 64
"""Health checks under way at the address that is for nothing else."""

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # cpu_service pings a quiet trap stream after 0.75 s, and other channels each second, with no call under way too: a stopped
    # peer must be noticed.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 700),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 700),
    ("grpc.http2.max_ping_strikes", 0),
    # A client that is gone without a word is noticed too: a console's writer must not hold its place for ever.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Two servers on one port would share its connections at random.
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
)

_Stop = Callable[[], Awaitable[None]]
_log = get_logger(__name__)


class SettingError(ProblemError, ValueError):
    """A service cannot start with a setting that it was given; the message says which, why, and what to give instead."""


@dataclass(frozen=True)
class Listening:
    """How a service is reached and how it ends."""

    addresses: Sequence[str]
    health: bool = True
    reflection: bool = True
    ready_descriptor: int | None = None
    """Gets one line of JSON once the service listens: its name, pid, addresses, the one for health last, and where metrics are.

    Closed after.
    """
    parent_descriptor: int | None = None
    """A pipe whose other end the parent holds: its end of file stops the service."""
    health_address: str | None = None
    """Where a server listens that has health checking and nothing else; so it is in plaintext wherever that is."""
    metrics: str | None = None
    """Where Prometheus finds the metrics: HOST:PORT, or PORT for loopback."""
    otel: str | None = None
    """The OTLP collector that gets spans: a URL."""
    otel_optional: bool = False
    """True: go on without spans when they cannot be recorded."""


async def serve(name: Servable, options: Any, listening: Listening) -> None:
    """Run a service until SIGTERM, SIGINT, SIGHUP or the end of its parent.

    Raises SettingError, MissingExtraError and what its start raises.
    """
    if listening.metrics is not None:
        require("metrics")  # before anything starts
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in handled_signals():
        loop.add_signal_handler(number, stopping.set)
    if listening.parent_descriptor is not None:
        _watch_parent(loop, listening.parent_descriptor, stopping)

    module = name.load()
    addresses = [parse_address(address) for address in listening.addresses]
    interceptors = [_authorization(module.SERVICES)] if any(address.tls for address in addresses) else []
    server = grpc.aio.server(interceptors=interceptors, options=SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    servers = [server]
    stop = await _start_unless(stopping, module.start(server, options))
    if stop is None:
        _log.info("stopping; it had not started yet")
        return
    watching = AsyncExitStack()
    try:
        health_servicer = await _make_health(module.SERVICES) if listening.health or listening.health_address else None
        if listening.health:
            health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        if listening.reflection:
            _add_reflection(server, module.SERVICES)
        bound = [_bind(server, address) for address in addresses]
        if listening.health_address is not None:
            probes = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_HEALTH_CALLS)
            health_pb2_grpc.add_HealthServicer_to_server(health_servicer, probes)
            servers.append(probes)
            bound.append(_bind(probes, replace(parse_address(listening.health_address), tls=False)))
        told = await _let_watch(name, stop, listening, watching)
        for each in servers:
            await each.start()
        # What was loaded stays; the collector need not look at it again and again.
        gc.freeze()
        gc.enable()
        if listening.ready_descriptor is not None:
            _tell_ready(listening.ready_descriptor, name, bound, told)
        _log.info("listening", addresses=bound, pid=os.getpid(), **told)
        await stopping.wait()
        _log.info("stopping")
        if health_servicer is not None:
            await health_servicer.enter_graceful_shutdown()
    finally:
        # The service ends its own streams first, else the server would wait for them until its grace is over.
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await stop()
        await asyncio.gather(*(each.stop(grace=STOP_SECONDS) for each in servers))
        await watching.aclose()


async def _start_unless(stopping: asyncio.Event, start: Awaitable[_Stop]) -> _Stop | None:
    """Return the result of start, or None if the service is stopped first: a start may wait for other services."""
    starting, stop = asyncio.ensure_future(start), asyncio.ensure_future(stopping.wait())
    await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,))
    return None if starting.cancelled() else starting.result()


async def _let_watch(name: Servable, started: object, listening: Listening, watching: AsyncExitStack) -> dict[str, str]:
    """Start exporting metrics and spans if requested. Returns addresses for the log and the ready line. Raises SettingError."""
    measures, traces = (started.measure, started.trace) if isinstance(started, Started) else ((), ())
    told = {}
    if listening.otel is not None:
        from splitvisor.trap.tracing import TracingError, start_tracing  # and an extra's libraries

        try:
            tracing = start_tracing(name.package, listening.otel)
        except TracingError as error:
            if not listening.otel_optional:
                raise SettingError(str(error)) from None
            _log.warning("no spans are recorded", reason=str(error))
        else:
            watching.push_async_callback(tracing.close)
            for take in traces:
                take(tracing)
    if listening.metrics is not None:
        from splitvisor.observe.metrics_endpoint import MetricsAddressError, MetricsEndpoint  # and prometheus_client

        endpoint = MetricsEndpoint(name.command, [measure() for measure in measures])
        try:
            told["metrics"] = await endpoint.start(listening.metrics)
        except MetricsAddressError as error:
            raise SettingError(str(error)) from None
        watching.push_async_callback(endpoint.close)
    return told


def _bind(server: grpc.aio.Server, address: Address) -> str:
    """Listen, and return the address with the port that was chosen when 0 was asked for."""
    check_free(address)
    path = Path(address.socket_path) if address.socket_path is not None else None
    if path is not None:
        make_way(str(path))  # gRPC would take the address of a service that runs.
    try:
        if address.tls:
            from splitvisor.net.tls_files import tls_files  # most services have no use for it
            from splitvisor.net.tls_server import server_credentials

            port = server.add_secure_port(address.target, server_credentials(tls_files(address.text)))
        else:
            port = server.add_insecure_port(address.target)
    except RuntimeError as error:
        raise AddressError(f"{address.text}: cannot listen there", "is another service using it?") from error
    if path is None:
        return f"{address.text.rpartition(':')[0]}:{port}"
    path.chmod(SOCKET_MODE)
    if path.parent.stat().st_mode & 0o077:
        _log.warning("other users can enter the socket's directory; chmod 700 it", directory=str(path.parent))
    return address.text


def _authorization(services: Sequence[str]) -> Authorization:
    from splitvisor.access.authorization import Authorization, rules  # only who has TLS asks who calls

    return Authorization(rules((*services, health.SERVICE_NAME, reflection.SERVICE_NAME)))


async def _make_health(services: Sequence[str]) -> Any:
    servicer = health.aio.HealthServicer()
    for service in ("", *services):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    return servicer


def _add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


def _tell_ready(descriptor: int, name: Servable, addresses: Sequence[str], told: Mapping[str, str]) -> None:
    line = json.dumps({"service": name.command, "pid": os.getpid(), "addresses": addresses, **told})
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def _watch_parent(loop: asyncio.AbstractEventLoop, descriptor: int, stopping: asyncio.Event) -> None:
    def ended() -> None:
        loop.remove_reader(descriptor)
        stopping.set()

    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, ended)
