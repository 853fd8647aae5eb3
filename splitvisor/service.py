# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a service, one of the four or somebody else's back end: a gRPC server with health checking and reflection that stops
cleanly.

What a service is: splitvisor/service_names.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from splitvisor.addresses import AddressError, check_address
from splitvisor.logging import get_logger
from splitvisor.service_names import Servable, Started

MESSAGE_BYTES = 4 << 20
"""Largest message in either direction; the contracts promise it."""
STOP_SECONDS = 3.0
"""How long calls under way may go on after a signal."""

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # cpu_service pings every second, with no call under way too: a stopped peer must be noticed.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 900),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 900),
    ("grpc.http2.max_ping_strikes", 0),
    # Two servers on one port would share its connections at random.
    ("grpc.so_reuseport", 0),
)

_health_aio: Any = vars(health)["aio"]  # grpc-stubs does not have it.
_log = get_logger(__name__)


class SettingError(ValueError):
    """A service cannot start with a setting that it was given; the message says which, why, and what to give instead."""


@dataclass(frozen=True)
class Listening:
    """How a service is reached and how it ends."""

    addresses: Sequence[str]
    health: bool = True
    reflection: bool = True
    ready_descriptor: int | None = None
    """Gets one line of JSON once the service listens: its name, pid, addresses, and where metrics are. Closed after."""
    parent_descriptor: int | None = None
    """A pipe whose other end the parent holds: its end of file stops the service."""
    metrics: str | None = None
    """Where Prometheus finds the metrics: HOST:PORT, or PORT for loopback."""
    otel: str | None = None
    """The OTLP collector that gets spans: a URL."""
    otel_optional: bool = False
    """True: go on without spans when they cannot be recorded."""


async def serve(name: Servable, options: Any, listening: Listening) -> None:
    """Run a service until SIGTERM, SIGINT or the end of its parent. Raises SettingError and what its start raises."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if listening.parent_descriptor is not None:
        _watch_parent(loop, listening.parent_descriptor, stopping)

    module = name.load()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    stop = await module.start(server, options)
    watching = AsyncExitStack()
    try:
        health_servicer = await _add_health(server, module.SERVICES) if listening.health else None
        if listening.reflection:
            _add_reflection(server, module.SERVICES)
        bound = [_bind(server, address) for address in listening.addresses]
        told = await _let_watch(name, stop, listening, watching)
        await server.start()
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
            await asyncio.wait_for(stop(), STOP_SECONDS)
        await server.stop(grace=STOP_SECONDS)
        await watching.aclose()


async def _let_watch(name: Servable, started: object, listening: Listening, watching: AsyncExitStack) -> dict[str, str]:
    """Begin to export metrics and spans as far as they are asked for. Returns what there is to tell; raises SettingError."""
    measures, traces = (started.measure, started.trace) if isinstance(started, Started) else ((), ())
    told = {}
    if listening.otel is not None:
        from splitvisor.tracing import TracingError, start_tracing  # and an extra's libraries

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
        from splitvisor.metrics_endpoint import MetricsAddressError, MetricsEndpoint  # and prometheus_client

        endpoint = MetricsEndpoint(name.command, [measure() for measure in measures])
        try:
            told["metrics"] = await endpoint.start(listening.metrics)
        except MetricsAddressError as error:
            raise SettingError(str(error)) from None
        watching.push_async_callback(endpoint.close)
    return told


def _bind(server: grpc.aio.Server, address: str) -> str:
    """Listen, and return the address with the port that was chosen when 0 was asked for."""
    check_address(address)
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:").removeprefix("//"))
        if not path.parent.is_dir():
            raise AddressError(f"{address}: {path.parent} is not a directory; make it first")
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressError(f"{address}: cannot listen there; is another service running at it?") from error
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


async def _add_health(server: grpc.aio.Server, services: Sequence[str]) -> Any:
    servicer = _health_aio.HealthServicer()
    for service in ("", *services):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
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
