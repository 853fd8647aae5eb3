# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of hcall_service for devices that come and go: it has the stored trees, and notifies the guest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from splitvisor.net.channels import CONNECT_MS, explain, open_aio_channel
from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc, platform_event_pb2, platform_event_pb2_grpc, trap_pb2

DEADLINE_S = 5.0
RETRY_S = 0.2
"""Seconds after which a failed change is retried: hcall_service is restarting, or its store is unavailable."""
CHANNEL_OPTIONS = (
    # gRPC's own pause between attempts grows to minutes; guests wait for the tree to follow.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", 250),
)
_FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)
"""Statuses that a retry cannot change. All others may come from a process that ended during a change."""

log = structlog.get_logger()


class HcallServiceError(Exception):
    """hcall_service did not carry out a request; the text has its address, the reason and the remedy."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing
        """Whether a retry may succeed."""


@dataclass
class _Change:
    """A change of a node in a stored tree: remove it, add it, or both in this order."""

    remove: bool = False
    add: trap_pb2.TreeNode | None = None

    def then(self, later: _Change) -> _Change:
        """Return this change and a later change of the same node as one."""
        return later if later.remove else _Change(self.remove, later.add or self.add)


class HcallServiceClient:
    """An hcall_service at a gRPC target. Made inside a running event loop.

    Args:
        target: "unix:/path" or "host:port".
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = open_aio_channel(target, CHANNEL_OPTIONS)
        self._trees: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(self._channel)
        self._events: Any = platform_event_pb2_grpc.PlatformEventServiceStub(self._channel)
        self._changes: dict[str, dict[str, _Change]] = {}
        """Changes that stored trees lack, by VM and path. An unhindered guest makes changes faster than a disk stores
        them.
        """
        self._writer: asyncio.Task[None] | None = None

    async def interrupt_parent(self, vm: str) -> device_tree_pb2.GetInterruptParentResponse:
        """Return the `interrupt-parent` of a new device. Raises HcallServiceError."""
        request = device_tree_pb2.GetInterruptParentRequest(vm=vm)
        answer: device_tree_pb2.GetInterruptParentResponse = await self._ask(self._trees.GetInterruptParent, request)
        return answer

    async def raise_hotplug(self, vm: str, action: platform_event_pb2.HotplugAction, drc_index: int) -> None:
        """Send the guest an event for a slot. Raises HcallServiceError."""
        request = platform_event_pb2.RaiseHotplugRequest(
            vm=vm, resource=platform_event_pb2.HOTPLUG_RESOURCE_SLOT, action=action, drc_index=drc_index
        )
        await self._ask(self._events.RaiseHotplug, request)

    def add_node(self, vm: str, node: trap_pb2.TreeNode) -> None:
        """Add a node of the guest to the stored tree."""
        self._change(vm, node.path, _Change(add=node))

    def remove_node(self, vm: str, path: str) -> None:
        """Remove a node from the stored tree."""
        self._change(vm, path, _Change(remove=True))

    def _change(self, vm: str, path: str, change: _Change) -> None:
        _follow(self._changes.setdefault(vm, {}), {path: change})
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write_changes())

    async def _write_changes(self) -> None:
        try:
            while self._changes:
                vm = next(iter(self._changes))
                changes = self._changes.pop(vm)
                request = device_tree_pb2.ChangeNodesRequest(
                    vm=vm,
                    remove=[path for path, change in changes.items() if change.remove],
                    add=[change.add for change in changes.values() if change.add is not None],
                )
                try:
                    await self._ask(self._trees.ChangeNodes, request)
                except HcallServiceError as error:
                    log.warning("the stored tree does not follow the bus", vm=vm, again=error.passing, reason=str(error))
                    if error.passing:
                        _follow(changes, self._changes.pop(vm, {}))
                        self._changes[vm] = changes
                        await asyncio.sleep(RETRY_S)
        finally:
            self._writer = None

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=DEADLINE_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            remedy = "; is it running?" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else ""
            text = f"hcall_service at {self._target}: {explain(error)}{remedy}"
            raise HcallServiceError(text, passing=error.code() not in _FINAL) from error

    async def written(self) -> None:
        """Wait until the stored trees have every change, for at most a few seconds."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=DEADLINE_S)

    async def close(self) -> None:
        """Make the pending changes, if hcall_service is available, and close the channel."""
        await self.written()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait({self._writer})
        await self._channel.close(grace=None)


def _follow(changes: dict[str, _Change], later: Mapping[str, _Change]) -> None:
    """Add later changes to earlier ones, by path."""
    for path, change in later.items():
        changes[path] = changes[path].then(change) if path in changes else change
