# SPDX-License-Identifier: GPL-2.0-or-later
"""DeviceTreeService: builds seed trees, checks what others put, and serves the store. See its .proto for the contract."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from hcall_service.device_tree_store import HeadMovedError, Revision, Store, StoreError, UnknownRevisionError
from hcall_service.trees.builder import TreeBuildError, build_tree
from hcall_service.trees.changes import change_head
from hcall_service.trees.lookup import NodeNotFoundError, TreeLookup
from splitvisor.errors.problem import Problem
from splitvisor.errors.status import refuse
from splitvisor.limits import VM_NAME_RULE, is_vm_name
from splitvisor.net.pages import PageError, page_of
from splitvisor.net.times import timestamp
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import device_tree_pb2_grpc, trap_pb2
from splitvisor.tree import fdt

MAX_WATCHERS = 64
WATCH_SECONDS = 1.0
"""How often a watcher looks for revisions that other services have put into the same database."""
SEED_BYTES = 32
"""Random bytes for /chosen/rng-seed."""
_NEWEST = (1 << 64) - 1
"""Larger than every revision's number: lists begin with the newest."""

_T = TypeVar("_T")
_Context = grpc.aio.ServicerContext[Any, Any]


class DeviceTreeServicer(device_tree_pb2_grpc.DeviceTreeServiceServicer):
    """Serves a store. Its calls run in threads, as the store blocks on the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lookup = TreeLookup(store)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers: set[asyncio.Event] = set()
        self._closing = False
        store.subscribe(self._stored)

    def _stored(self) -> None:
        """Somebody has put a revision; in any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_watchers)

    def _wake_watchers(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    async def close(self) -> None:
        """End the streams of watchers, for which the server would wait."""
        self._closing = True
        self._wake_watchers()

    async def identity(self, vm: str) -> bytes:
        """Return a VM's UUID (16 bytes) as its tree has it; nothing when there is none. Raises StoreError."""
        try:
            _, blob = await asyncio.to_thread(self._store.get, vm)
            return uuid.UUID(fdt.read(blob).root.properties["vm,uuid"].rstrip(b"\0").decode("ascii")).bytes
        except (UnknownRevisionError, KeyError, ValueError):
            # The last: what a guest has made of its tree is not ours to trust.
            return b""

    async def BuildTree(self, request: pb.BuildTreeRequest, context: _Context) -> pb.BuildTreeResponse:
        """See the contract."""
        await _check_vm(request.vm, context)
        try:
            blob = fdt.emit(build_tree(request, os.urandom(SEED_BYTES)))
        except (TreeBuildError, fdt.FdtError) as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        revision = await self._run(context, lambda: self._store.put(request.vm, pb.TREE_ORIGIN_SEED, blob))
        return pb.BuildTreeResponse(revision=revision, blob=blob)

    async def PutTree(self, request: pb.PutTreeRequest, context: _Context) -> pb.PutTreeResponse:
        """See the contract."""
        await _check_vm(request.vm, context)
        if request.origin == pb.TREE_ORIGIN_UNSPECIFIED or request.origin not in pb.TreeOrigin.values():
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"origin {request.origin} is not one of TreeOrigin")
        if len(request.blob) > fdt.MAX_SIZE:
            text = f"the blob has {len(request.blob)} bytes, at most {fdt.MAX_SIZE}"
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        try:
            await asyncio.to_thread(fdt.read, request.blob)
        except fdt.FdtError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        revision = await self._run(
            context, lambda: self._store.put(request.vm, request.origin, request.blob, request.expected_revision)
        )
        return pb.PutTreeResponse(revision=revision)

    async def GetTree(self, request: pb.GetTreeRequest, context: _Context) -> pb.GetTreeResponse:
        """See the contract."""
        revision, blob = await self._run(context, lambda: self._store.get(request.vm, request.revision))
        return pb.GetTreeResponse(revision=_to_message(revision), blob=blob)

    async def GetProperty(self, request: pb.GetPropertyRequest, context: _Context) -> pb.GetPropertyResponse:
        """See the contract."""
        revision, blob = await self._run(context, lambda: self._store.get(request.vm, request.revision))
        node = (await asyncio.to_thread(fdt.read, blob)).root.find(request.path)
        if node is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, f"no node {request.path!r} in revision {revision.number}")
        if request.name not in node.properties:
            await refuse(context, grpc.StatusCode.NOT_FOUND, f"{request.path!r} has no property {request.name!r}")
        return pb.GetPropertyResponse(revision=revision.number, value=node.properties[request.name])

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: _Context) -> pb.ListRevisionsResponse:
        """See the contract."""
        revisions = await self._run(context, lambda: self._store.revisions(request.vm))
        try:
            page, token = page_of(revisions, lambda revision: f"{_NEWEST - revision.number:020}", request)
        except PageError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        return pb.ListRevisionsResponse(revisions=[_to_message(revision) for revision in page], next_page_token=token)

    async def LookUpNode(self, request: pb.LookUpNodeRequest, context: _Context) -> pb.LookUpNodeResponse:
        """See the contract."""
        vm, revision = request.vm, request.revision
        match request.WhichOneof("key"):
            case "path":
                found = await self._run(context, lambda: self._lookup.by_path(vm, request.path, revision))
            case "phandle":
                found = await self._run(context, lambda: self._lookup.by_phandle(vm, request.phandle, revision))
            case _:
                await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "give a path or a phandle")
        properties = [trap_pb2.TreeProperty(name=name, value=value) for name, value in found.node.properties.items()]
        return pb.LookUpNodeResponse(
            revision=found.revision,
            node=trap_pb2.TreeNode(path=found.path, properties=properties),
            phandle=found.phandle,
            children=[pb.NodeChild(name=child.name) for child in found.node.children],
        )

    async def GetInterruptParent(self, request: pb.GetInterruptParentRequest, context: _Context) -> pb.GetInterruptParentResponse:
        """See the contract."""
        parent = await self._run(context, lambda: self._lookup.interrupt_parent(request.vm))
        source = pb.INTERRUPT_PARENT_SOURCE_STORED_TREE if parent.from_tree else pb.INTERRUPT_PARENT_SOURCE_FALLBACK
        return pb.GetInterruptParentResponse(
            phandle=parent.phandle, source=source, revision=parent.revision, path=parent.path, reason=parent.reason
        )

    async def ChangeNodes(self, request: pb.ChangeNodesRequest, context: _Context) -> pb.ChangeNodesResponse:
        """See the contract."""
        revision = await self._run(context, lambda: change_head(self._store, request.vm, request.remove, request.add))
        return pb.ChangeNodesResponse(revision=revision)

    async def WatchRevisions(
        self, request: pb.WatchRevisionsRequest, context: _Context
    ) -> AsyncIterator[pb.WatchRevisionsResponse]:
        """See the contract."""
        await _check_vm(request.vm, context)
        if len(self._watchers) == MAX_WATCHERS:
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} streams watch trees already")
        self._loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self._watchers.add(woken)
        try:
            known = request.after_revision
            while not self._closing:
                woken.clear()
                if await self._run(context, lambda: self._store.head(request.vm)) > known:
                    kept = await self._run(context, lambda: self._store.revisions(request.vm))
                    for revision in reversed(kept):
                        if revision.number > known:
                            known = revision.number
                            yield pb.WatchRevisionsResponse(revision=_to_message(revision))
                with suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_SECONDS):
                        await woken.wait()
        finally:
            self._watchers.discard(woken)

    async def _run(self, context: _Context, call: Callable[[], _T]) -> _T:
        """Call the store; its errors end the rpc with the code that the contract has for them."""
        try:
            return await asyncio.to_thread(call)
        except (UnknownRevisionError, NodeNotFoundError) as error:
            await refuse(context, grpc.StatusCode.NOT_FOUND, error)
        except (TreeBuildError, fdt.FdtError) as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        except HeadMovedError as error:
            await refuse(context, grpc.StatusCode.ABORTED, error)
        except StoreError as error:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, error)


async def _check_vm(name: str, context: _Context) -> None:
    if not is_vm_name(name):
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, Problem(f"VM name {name!r}", f"give {VM_NAME_RULE}"))


def _to_message(revision: Revision) -> pb.TreeRevision:
    return pb.TreeRevision(
        number=revision.number,
        time=timestamp(revision.time_ns),
        origin=pb.TreeOrigin.Name(revision.origin),
        sha256=revision.sha256,
        size=revision.size,
    )
