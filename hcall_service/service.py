# SPDX-License-Identifier: GPL-2.0-or-later
"""hcall_service as a gRPC service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc

from hcall_service.device_tree_store import DEFAULT_RETENTION
from hcall_service.device_tree_store.wait import DEFAULT_WAIT_SECONDS, open_store_patiently
from hcall_service.platform.events import PlatformEventServicer
from hcall_service.session import PlatformSession
from hcall_service.trees.service import DeviceTreeServicer
from hcall_service.trees.update_dt import TreeUpdates
from splitvisor.rpc import device_tree_pb2_grpc, platform_event_pb2_grpc, trap_pb2_grpc
from splitvisor.service.interface import Started
from splitvisor.trap.server import TrapServicer

BACKEND = "hcall_service"
SERVICES: tuple[str, ...] = (
    "splitvisor.trap.v1.TrapService",
    "splitvisor.control.v1.DeviceTreeService",
    "splitvisor.internal.v1.PlatformEventService",
)


@dataclass(frozen=True)
class Options:
    """What `splitvisor service hcall` may set."""

    store: str = field(
        metadata={
            "metavar": "PLACE",
            "help": "where device trees are kept: a path, sqlite:///PATH, postgresql://USER@HOST:PORT/DATABASE, or :memory:, "
            "until the process ends; put a password into ~/.pgpass or PGPASSWORD, not here",
        }
    )
    retention: int = field(
        default=DEFAULT_RETENTION,
        metadata={"metavar": "N", "help": f"revisions to keep of each VM, at least 2 (default: {DEFAULT_RETENTION})"},
    )
    store_wait: float = field(
        default=DEFAULT_WAIT_SECONDS,
        metadata={
            "metavar": "SECONDS",
            "help": "how long to wait for a PostgreSQL database that is not available yet; refusals fail at once "
            f"(default: {DEFAULT_WAIT_SECONDS:.0f})",
        },
    )


async def start(server: grpc.aio.Server, options: Options) -> Callable[[], Awaitable[None]]:
    """Add the servicers to a server that has not been started. Returns what stops them. Raises SettingError."""
    store = await open_store_patiently(options.store, options.retention, options.store_wait)
    trees = DeviceTreeServicer(store)
    updates = TreeUpdates(store)
    traps = TrapServicer(BACKEND, lambda vm: PlatformSession(vm, trees.identity, updates))
    trap_pb2_grpc.add_TrapServiceServicer_to_server(traps, server)
    device_tree_pb2_grpc.add_DeviceTreeServiceServicer_to_server(trees, server)
    platform_event_pb2_grpc.add_PlatformEventServiceServicer_to_server(PlatformEventServicer(traps), server)

    async def stop() -> None:
        await trees.close()
        await traps.close()
        await asyncio.to_thread(store.close)

    return Started(stop, measure=(traps.measure, lambda: store.counts.samples), trace=(traps.observe,))
