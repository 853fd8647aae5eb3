# SPDX-License-Identifier: GPL-2.0-or-later
"""vio_service as a service: traps from cpu_service, consoles for terminals, and what is on the buses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio

from splitvisor.rpc import console_pb2, console_pb2_grpc, trap_pb2_grpc, vio_bus_pb2_grpc
from splitvisor.service_names import Started
from splitvisor.trap_server import TrapServicer
from vio_service.bus import VioSession
from vio_service.bus_server import VioBusServicer
from vio_service.console_metrics import console_samples
from vio_service.console_server import ConsoleServicer
from vio_service.platform import Platform

SERVICES = ("splitvisor.v1.TrapService", "splitvisor.v1.ConsoleService", "splitvisor.v1.VioBusService")


@dataclass(frozen=True)
class Options:
    """What `splitvisor service vio` may set; devices and their settings come with each VM."""

    device_tree: str = ""
    """gRPC target of the hcall_service whose trees follow the buses; without it no device can be added to a running guest."""


async def start(server: grpc.aio.Server, options: Options) -> Callable[[], Awaitable[None]]:
    """Add the servicers to a server that has not started; the result is awaited when the service ends."""
    platform = Platform(options.device_tree) if options.device_tree else None
    traps = TrapServicer("vio_service", lambda vm: VioSession(vm, platform))
    trap_pb2_grpc.add_TrapServiceServicer_to_server(traps, server)
    console_pb2_grpc.add_ConsoleServiceServicer_to_server(ConsoleServicer(traps), server)
    vio_bus_pb2_grpc.add_VioBusServiceServicer_to_server(VioBusServicer(traps), server)

    async def stop() -> None:
        for session in traps.sessions().values():
            if isinstance(session, VioSession):
                for console in session.consoles():
                    console.end(console_pb2.CONSOLE_END_REASON_SHUTDOWN, "vio_service shuts down")
        await traps.close()
        if platform is not None:
            await platform.close()

    return Started(stop, measure=(traps.measure, lambda: lambda: console_samples(traps)), trace=(traps.observe,))
