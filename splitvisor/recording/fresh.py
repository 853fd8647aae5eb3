# SPDX-License-Identifier: GPL-2.0-or-later
"""A service to replay against, in a process of its own that ends with the replay, and the trees of the recording beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import grpc.aio

from splitvisor.net.sockets import make_way
from splitvisor.recording.trees import RecordedTrees
from splitvisor.rpc import device_tree_pb2_grpc
from splitvisor.service.names import ServiceName
from splitvisor.service.processes import ServiceCommand, ServiceProcess, start_forks, stop_all
from splitvisor.service.runtime_directory import private_directory, socket_parents
from splitvisor.service.serve import SERVER_OPTIONS

_ARGUMENTS: dict[str, Callable[[str], Sequence[str]]] = {
    "hcall": lambda _trees: ("--store", ":memory:"),
    "vio": lambda _trees: (),
    "of-client": lambda trees: ("--device-tree", trees),
}
"""What each needs to know to run alone; trees: where the recording's are served."""


@asynccontextmanager
async def serve_trees(trees: RecordedTrees, path: Path) -> AsyncIterator[str]:
    """Serve trees at a unix socket while inside; yields its target. Raises AddressError."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    device_tree_pb2_grpc.add_DeviceTreeServiceServicer_to_server(trees, server)
    make_way(str(path))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield f"unix:{path}"
    finally:
        await server.stop(grace=None)


@asynccontextmanager
async def fresh_service(name: ServiceName, trees: RecordedTrees) -> AsyncIterator[str]:
    """Run a service while inside; yields its target. Raises ServiceFailedError when it does not start, and OSError."""
    with private_directory(socket_parents()) as directory:
        async with serve_trees(trees, directory / "trees.sock") as trees_at:
            command = ServiceCommand(
                name.command, name.package, f"unix:{directory}/{name.command}.sock", _ARGUMENTS[name.command](trees_at)
            )
            with closing(start_forks()) as forks:
                process = ServiceProcess(command, "info", None, forks)
            try:
                process.watch()
                await process.wait_ready()
                yield command.address
            finally:
                await stop_all([process])
