# SPDX-License-Identifier: GPL-2.0-or-later
"""of_client_service as a gRPC service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc

from of_client_service.session import ClientInterfaceSession
from of_client_service.tree_store import RemoteTreeStore
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.service.interface import Started
from splitvisor.trap.server import TrapServicer

BACKEND = "of_client_service"
SERVICES: tuple[str, ...] = ("splitvisor.trap.v1.TrapService",)


@dataclass(frozen=True)
class Options:
    """What `splitvisor service of-client` may set."""

    device_tree: str = field(
        metadata={"metavar": "ADDRESS", "help": "the hcall_service that stores the machines' trees: unix:/path or host:port"}
    )


async def start(server: grpc.aio.Server, options: Options) -> Callable[[], Awaitable[None]]:
    """Add the servicers to a server that has not been started. Returns what stops them."""
    store = RemoteTreeStore(options.device_tree)
    servicer = TrapServicer(BACKEND, lambda vm: ClientInterfaceSession(vm, store))
    trap_pb2_grpc.add_TrapServiceServicer_to_server(servicer, server)

    async def stop() -> None:
        await servicer.close()
        await store.close()

    return Started(stop, measure=(servicer.measure,), trace=(servicer.observe,))
