# SPDX-License-Identifier: GPL-2.0-or-later
"""of_client_service over real gRPC: a trap stream as cpu_service holds it, and a device-tree service to read from."""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from hcall_service import service as hcall_service
from of_client_service.service import Options, start
from of_client_service.tree_store import RemoteTreeStore, TreeStoreError
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import device_tree_pb2_grpc, trap_pb2_grpc
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.ram_file import RamFile
from splitvisor.tree import fdt
from tests.unit.of_machine import ARRAY, BUFFER, RAM_BYTES, STRINGS, cells, sample_tree

DEADLINE_S = 20


class TreeService(device_tree_pb2_grpc.DeviceTreeServiceServicer):
    """Revisions of one VM in a list; fails on purpose as often as asked."""

    def __init__(self) -> None:
        self.blobs = [fdt.emit(sample_tree())]
        self.origins = [dt.TREE_ORIGIN_SEED]
        self.failures = 0

    async def GetTree(self, request: dt.GetTreeRequest, context: Any) -> dt.GetTreeResponse:
        """The head."""
        if request.vm != "vm":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no VM {request.vm}")
        if self.failures:
            self.failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return dt.GetTreeResponse(revision=dt.TreeRevision(number=len(self.blobs)), blob=self.blobs[-1])

    async def PutTree(self, request: dt.PutTreeRequest, context: Any) -> dt.PutTreeResponse:
        """Compare and swap."""
        if request.expected_revision != len(self.blobs):
            await context.abort(grpc.StatusCode.ABORTED, f"the head is {len(self.blobs)}")
        self.blobs.append(request.blob)
        self.origins.append(request.origin)
        return dt.PutTreeResponse(revision=len(self.blobs))

    def WatchRevisions(self, request: Any, context: Any) -> Any:
        """of_client_service does not use this."""
        raise NotImplementedError

    async def _refuse(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "of_client_service does not use this")

    BuildTree = GetProperty = ListRevisions = _refuse
    LookUpNode = GetInterruptParent = ChangeNodes = _refuse


@dataclass
class Machine:
    """The other end of a trap stream: RAM, and a call at a time."""

    stream: Any
    ram: Any
    shared: bool
    offer: pb.Offer
    trees: str
    """Address of the tree service."""
    sequence: int = 0
    reads: int = 0
    effects: list[pb.Effect] = field(default_factory=list)

    async def reset(self) -> list[pb.AttachResponse]:
        """Reset the back end; return what it said before it was done."""
        await self.stream.write(pb.AttachRequest(reset=pb.Reset(count=1)))
        said: list[pb.AttachResponse] = []
        while True:
            response = await self.stream.read()
            if response.HasField("reset_done"):
                return said
            said.append(response)

    async def trap(self, array: int) -> int:
        """H_OF_CLIENT; serves memory requests, applies the reply, returns r3."""
        self.sequence += 1
        operands = [] if self.shared else [pb.MemoryBlock(address=array, data=bytes(self.ram[array : array + 52]))]
        trap = pb.Trap(vcpu=0, sequence=self.sequence, route=0, arguments=[array], operands=operands)
        await self.stream.write(pb.AttachRequest(trap=trap))
        while True:
            response = await self.stream.read()
            if response.HasField("reply"):
                break
            assert response.HasField("memory_read"), response
            self.reads += 1
            wanted = response.memory_read.range
            data = bytes(self.ram[wanted.address : wanted.address + wanted.length])
            result = pb.MemoryResult(id=response.memory_read.id, ok=True, data=data)
            await self.stream.write(pb.AttachRequest(memory_result=result))
        for block in response.reply.writes:
            self.ram[block.address : block.address + len(block.data)] = block.data
        self.effects = list(response.reply.effects)
        return int(response.reply.result)

    async def call(self, service: str, *arguments: int | str, returns: int = 1) -> list[int]:
        """Call a client service; return its cells."""
        free, words = STRINGS, []
        for argument in (service, *arguments):
            if isinstance(argument, str):
                self.ram[free : free + len(argument) + 1] = argument.encode() + b"\0"
                words.append(free)
                free += len(argument) + 1
            else:
                words.append(argument)
        data = cells(words[0], len(arguments), returns, *words[1:])
        self.ram[ARRAY : ARRAY + len(data)] = data
        assert await self.trap(ARRAY) == H.SUCCESS
        return list(struct.unpack_from(f">{returns}i", self.ram, ARRAY + len(data)))


@asynccontextmanager
async def running(shared: bool, trees: TreeService | None) -> AsyncIterator[Machine]:
    """of_client_service and a tree service (hcall_service without one) on unix sockets, with one VM attached."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    servers, stops = [], []
    ram = RamFile.create(directory / "guest.ram", RAM_BYTES)
    try:
        tree_server, server = grpc.aio.server(), grpc.aio.server()
        if trees is None:
            stops.append(await hcall_service.start(tree_server, hcall_service.Options(store=":memory:")))
        else:
            device_tree_pb2_grpc.add_DeviceTreeServiceServicer_to_server(trees, tree_server)
        tree_server.add_insecure_port(f"unix:{directory}/trees")
        stops.append(await start(server, Options(device_tree=f"unix:{directory}/trees")))
        server.add_insecure_port(f"unix:{directory}/of")
        servers = [tree_server, server]
        for each in servers:
            await each.start()
        async with grpc.aio.insecure_channel(f"unix:{directory}/of") as channel:
            stub: Any = trap_pb2_grpc.TrapServiceStub(channel)
            stream = stub.Attach()
            path = str(ram.path) if shared else ""
            await stream.write(
                pb.AttachRequest(
                    hello=pb.Hello(
                        vm="vm", beginning=pb.BEGINNING_RUNNING, incarnation=1, vcpus=1, ram_bytes=RAM_BYTES, ram_path=path
                    )
                )
            )
            offer = (await stream.read()).offer
            yield Machine(stream, ram.map, shared, offer, f"unix:{directory}/trees")
            stream.cancel()
    finally:
        for stop in stops:
            await stop()
        for each in servers:
            await each.stop(None)
        ram.close()
        shutil.rmtree(directory)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine, with a deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test()

    asyncio.run(bounded())


@pytest.mark.parametrize("shared", [True, False])
def test_a_client_walks_the_tree_prints_and_quiesces(shared: bool) -> None:
    trees = TreeService()

    async def test() -> None:
        async with running(shared, trees) as machine:
            assert machine.offer.ram_mapped == shared
            assert [route.token for route in machine.offer.routes] == [Hcall.H_OF_CLIENT, Hcall.H_CAS]
            assert await machine.reset() == []
            (chosen,) = await machine.call("finddevice", "/chosen")
            assert await machine.call("getprop", chosen, "stdout", BUFFER, 4) == [4]
            stdout = int.from_bytes(machine.ram[BUFFER : BUFFER + 4], "big")
            machine.ram[BUFFER : BUFFER + 20] = b"Hello, Open Firmware"
            assert await machine.call("write", stdout, BUFFER, 20) == [20]
            assert [effect.invoke.token for effect in machine.effects] == [Hcall.H_PUT_TERM_CHAR] * 2
            assert await machine.call("setprop", chosen, "bootargs", BUFFER, 5) == [5]
            await machine.call("quiesce", returns=0)

    run(test)
    assert trees.origins == [dt.TREE_ORIGIN_SEED, dt.TREE_ORIGIN_QUIESCE]
    stored = fdt.read(trees.blobs[-1]).root.find("/chosen")
    assert stored is not None
    assert stored.properties["bootargs"] == b"Hello"


def test_what_travels_with_the_trap_is_not_asked_for() -> None:
    async def test() -> None:
        async with running(False, TreeService()) as machine:
            await machine.reset()
            machine.ram[STRINGS : STRINGS + 5] = b"peer\0"
            machine.ram[ARRAY : ARRAY + 20] = cells(STRINGS, 1, 1, 0, 0)
            assert await machine.trap(ARRAY) == H.SUCCESS
            assert machine.reads <= 1  # the service's name alone: this client sends the array only

    run(test)


def test_a_tree_service_that_starts_late_is_waited_for() -> None:
    trees = TreeService()
    trees.failures = 2

    async def test() -> None:
        async with running(True, trees) as machine:
            assert await machine.reset() == []
            assert (await machine.call("finddevice", "/chosen"))[0] > 0

    run(test)
    assert trees.failures == 0


def test_without_a_tree_service_the_store_says_what_to_start() -> None:
    async def test() -> None:
        store = RemoteTreeStore("unix:/tmp/nobody-listens-here", deadline=0.5)
        try:
            with pytest.raises(TreeStoreError, match=r"unix:/tmp/nobody-listens-here.*is hcall_service running\?"):
                await store.head("vm")
        finally:
            await store.close()

    run(test)


def test_a_tree_that_was_changed_by_another_is_not_overwritten() -> None:
    trees = TreeService()

    async def test() -> None:
        async with running(True, trees) as machine:
            await machine.reset()
            trees.blobs.append(trees.blobs[0])
            trees.origins.append(dt.TREE_ORIGIN_HOTPLUG)
            assert await machine.call("quiesce", returns=0) == []

    run(test)
    assert trees.origins == [dt.TREE_ORIGIN_SEED, dt.TREE_ORIGIN_HOTPLUG]


def test_a_trap_that_is_sent_again_is_answered_again_and_done_once() -> None:
    trees = TreeService()

    async def test() -> None:
        async with running(True, trees) as machine:
            await machine.reset()
            assert await machine.call("open", "/") == [3]
            machine.sequence -= 1
            assert await machine.trap(ARRAY) == H.SUCCESS
            assert await machine.call("open", "/") == [4]

    run(test)


def test_the_agreed_and_the_final_tree_reach_the_store_of_hcall_service() -> None:
    terminal = pb.TreeNode(
        path="/vdevice/vty@71000000",
        properties=[
            pb.TreeProperty(name="device_type", value=b"serial\0"),
            pb.TreeProperty(name="reg", value=cells(0x71000000)),
        ],
    )
    request = dt.BuildTreeRequest(
        vm="vm",
        ram_bytes=RAM_BYTES,
        vcpus=2,
        hash_table_shift=18,
        bootargs="quiet",
        kernel=pb.MemoryRange(address=0x400000, length=0x100000),
        nodes=[pb.TreeNode(path="/vdevice"), terminal],
        uuid=bytes(16),
    )
    power8_and_five_vectors = cells(0xFFFF0000, 0x004D0000, 0xFFFFFFFE, 0x0F000001) + bytes([4]) + b"\0\0" * 5

    async def test() -> None:
        async with running(True, None) as machine, grpc.aio.insecure_channel(machine.trees) as channel:
            trees: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(channel)
            await trees.BuildTree(request)
            assert await machine.reset() == []
            (root,) = await machine.call("open", "/")
            machine.ram[BUFFER : BUFFER + len(power8_and_five_vectors)] = power8_and_five_vectors
            assert await machine.call("call-method", "ibm,client-architecture-support", root, BUFFER, returns=2) == [0, 0]
            await machine.call("quiesce", returns=0)
            revisions = (await trees.ListRevisions(dt.ListRevisionsRequest(vm="vm"))).revisions
            assert [revision.origin for revision in revisions] == [
                dt.TREE_ORIGIN_QUIESCE,
                dt.TREE_ORIGIN_CAS,
                dt.TREE_ORIGIN_SEED,
            ]
            asked = dt.GetPropertyRequest(vm="vm", path="/cpus/PowerPC,POWER8@1", name="cpu-version")
            assert (await trees.GetProperty(asked)).value == cells(0x004D0200)

    run(test)
