# SPDX-License-Identifier: GPL-2.0-or-later
"""The device trees of a recording, served: cpu_service and of_client_service ask DeviceTreeService for them."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from splitvisor.errors.status import refuse
from splitvisor.net.times import timestamp
from splitvisor.recording.rules import masked_request
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import device_tree_pb2_grpc
from splitvisor.rpc import recording_pb2 as rpb

KEPT = 16
"""Revisions of a VM; a client that needs an older one has fallen behind too far."""
MAX_VMS = 16

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class _Trees:
    """One VM's newest revisions, and how many there were."""

    count: int = 0
    kept: deque[tuple[pb.TreeRevision, bytes]] = field(default_factory=lambda: deque(maxlen=KEPT))


class RecordedTrees(device_tree_pb2_grpc.DeviceTreeServiceServicer):
    """Keeps trees in memory, and answers BuildTree from a recording. Has what cpu_service and of_client_service need, no more.

    Args:
        left: told when a machine wants a tree that the recording does not have.
    """

    def __init__(self, left: Callable[[str], None] = lambda _reason: None) -> None:
        self._left = left
        self._vms: dict[str, _Trees] = {}
        self._seeds: deque[rpb.SeedTree] = deque()

    def expect(self, seed: rpb.SeedTree) -> None:
        """Answer a coming BuildTree with this."""
        self._seeds.append(seed)

    def put(self, vm: str, origin: pb.TreeOrigin, blob: bytes) -> int:
        """Make a tree the head and return its revision."""
        trees = self._vms.setdefault(vm, _Trees())
        if len(self._vms) > MAX_VMS:
            del self._vms[next(iter(self._vms))]
        trees.count += 1
        revision = pb.TreeRevision(
            number=trees.count,
            time=timestamp(time.time_ns()),
            origin=origin,
            sha256=hashlib.sha256(blob).digest(),
            size=len(blob),
        )
        trees.kept.append((revision, blob))
        return trees.count

    async def BuildTree(self, request: pb.BuildTreeRequest, context: _Context) -> pb.BuildTreeResponse:
        """The next tree of the recording. INVALID_ARGUMENT when the recorded machine asked for another one."""
        seed = self._seeds[0] if self._seeds else None
        if seed is None or masked_request(seed.request) != masked_request(request):
            reason = "it has no tree for a machine like this: same RAM, vCPUs, guest and back ends as when it was recorded?"
            self._left(reason)
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"the guest leaves the recording: {reason}")
        assert seed is not None
        if len(self._seeds) > 1:  # The last one is good for every further reset.
            self._seeds.popleft()
        number = self.put(request.vm, pb.TREE_ORIGIN_SEED, seed.response.blob)
        return pb.BuildTreeResponse(revision=number, blob=seed.response.blob)

    async def GetTree(self, request: pb.GetTreeRequest, context: _Context) -> pb.GetTreeResponse:
        """See the contract."""
        trees = self._vms.get(request.vm, _Trees())
        kept = next((each for each in reversed(trees.kept) if request.revision in {0, each[0].number}), None)
        if kept is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, f"no tree {request.revision or ''} of VM {request.vm!r} here")
        return pb.GetTreeResponse(revision=kept[0], blob=kept[1])

    async def _refuse(self, request: Any, context: _Context) -> Any:
        await refuse(context, grpc.StatusCode.UNIMPLEMENTED, "a recording stands in for this service: it has the trees, no more")

    GetProperty = ListRevisions = LookUpNode = GetInterruptParent = ChangeNodes = _refuse

    async def WatchRevisions(
        self, request: pb.WatchRevisionsRequest, context: _Context
    ) -> AsyncIterator[pb.WatchRevisionsResponse]:
        """Not here."""
        yield await self._refuse(request, context)

    async def PutTree(self, request: pb.PutTreeRequest, context: _Context) -> pb.PutTreeResponse:
        """See the contract."""
        head = self._vms.get(request.vm, _Trees()).count
        if request.expected_revision and request.expected_revision != head:
            await refuse(context, grpc.StatusCode.ABORTED, f"the head is revision {head}")
        return pb.PutTreeResponse(revision=self.put(request.vm, request.origin, request.blob))
