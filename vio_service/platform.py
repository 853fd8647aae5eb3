# SPDX-License-Identifier: GPL-2.0-or-later
"""What the bus needs of the platform when a device comes or goes: hcall_service has the stored trees, and tells the guest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import structlog

from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc, platform_event_pb2, platform_event_pb2_grpc, trap_pb2

DEADLINE_S = 5.0

log = structlog.get_logger()


class PlatformError(Exception):
    """hcall_service did not do what was asked; the text says where it is, why, and what to do."""


class Platform:
    """An hcall_service at a gRPC target. Made inside a running event loop.

    Args:
        target: "unix:/path" or "host:port".
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = grpc.aio.insecure_channel(target)
        self._trees: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(self._channel)
        self._events: Any = platform_event_pb2_grpc.PlatformEventServiceStub(self._channel)
        self._changes = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def interrupt_parent(self, vm: str) -> device_tree_pb2.GetInterruptParentResponse:
        """Return what a new device's `interrupt-parent` must be. Raises PlatformError."""
        request = device_tree_pb2.GetInterruptParentRequest(vm=vm)
        answer: device_tree_pb2.GetInterruptParentResponse = await self._ask(self._trees.GetInterruptParent, request)
        return answer

    async def raise_hotplug(self, vm: str, action: platform_event_pb2.HotplugAction, drc_index: int) -> None:
        """Tell the guest about a slot. Raises PlatformError."""
        request = platform_event_pb2.RaiseHotplugRequest(
            vm=vm, resource=platform_event_pb2.HOTPLUG_RESOURCE_SLOT, action=action, drc_index=drc_index
        )
        await self._ask(self._events.RaiseHotplug, request)

    def change_tree(self, vm: str, *, remove: Sequence[str] = (), add: Sequence[trap_pb2.TreeNode] = ()) -> None:
        """Have the stored tree follow what the guest has. Changes are made in order; one that fails is logged."""
        request = device_tree_pb2.ChangeNodesRequest(vm=vm, remove=remove, add=add)
        task = asyncio.get_running_loop().create_task(self._change(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _change(self, request: device_tree_pb2.ChangeNodesRequest) -> None:
        async with self._changes:
            try:
                await self._ask(self._trees.ChangeNodes, request)
            except PlatformError as error:
                log.warning("the stored tree does not follow the bus", vm=request.vm, reason=str(error))

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=DEADLINE_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            details = error.details() or error.code().name.lower()
            remedy = "; is it running?" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else ""
            raise PlatformError(f"hcall_service at {self._target}: {details}{remedy}") from error

    async def close(self) -> None:
        """Make the changes that wait, and close the channel."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DEADLINE_S)
        await self._channel.close(grace=None)
