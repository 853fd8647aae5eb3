# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the client interface gets the machine's tree from, and where it puts a changed one: DeviceTreeService."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from splitvisor.limits import MESSAGE_BYTES
from splitvisor.net.channels import explain, open_aio_channel
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import device_tree_pb2_grpc

DEADLINE_S = 10.0
"""How long one exchange may take, attempts included. The guest waits that long, so it is below the trap stream's deadline."""
RETRY_S = 0.2
_TEMPORARY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class TreeStoreError(Exception):
    """The store did not give or take a tree; the text says which store, why, and what to do."""


@dataclass(frozen=True)
class StoredTree:
    """A revision."""

    revision: int
    blob: bytes


class TreeStore(Protocol):
    """Revisions of VMs' trees."""

    async def head(self, vm: str) -> StoredTree:
        """The newest revision. Raises TreeStoreError."""

    async def put(self, vm: str, origin: pb.TreeOrigin, blob: bytes, replaces: int) -> int:
        """Store a revision if the head is still `replaces`, and return its number. Raises TreeStoreError."""


class RemoteTreeStore:
    """A DeviceTreeService at a gRPC target. Made inside a running event loop.

    Args:
        target: "unix:/path" or "host:port".
        deadline: seconds per exchange.

    Raises AddressError for a target that plaintext is not for.
    """

    def __init__(self, target: str, deadline: float = DEADLINE_S) -> None:
        self._target = target
        self._deadline = deadline
        self._channel = open_aio_channel(target, [("grpc.max_receive_message_length", MESSAGE_BYTES)])
        self._stub: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(self._channel)

    async def head(self, vm: str) -> StoredTree:
        """See TreeStore."""
        answer: pb.GetTreeResponse = await self._exchange(self._stub.GetTree, pb.GetTreeRequest(vm=vm))
        return StoredTree(answer.revision.number, answer.blob)

    async def put(self, vm: str, origin: pb.TreeOrigin, blob: bytes, replaces: int) -> int:
        """See TreeStore."""
        request = pb.PutTreeRequest(vm=vm, origin=origin, blob=blob, expected_revision=replaces)
        answer: pb.PutTreeResponse = await self._exchange(self._stub.PutTree, request)
        return answer.revision

    async def _exchange(self, method: Any, request: Any) -> Any:
        clock = asyncio.get_running_loop().time
        end = clock() + self._deadline
        while True:
            try:
                attempt: Awaitable[Any] = method(request, timeout=max(end - clock(), RETRY_S), wait_for_ready=True)
                return await attempt
            except grpc.aio.AioRpcError as error:
                temporary = error.code() in _TEMPORARY
                if temporary and clock() < end:
                    await asyncio.sleep(RETRY_S)
                    continue
                remedy = "; is hcall_service running?" if temporary else ""
                raise TreeStoreError(
                    f"device-tree store at {self._target}: {error.code().name}: {explain(error)}{remedy}"
                ) from error

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(grace=None)
