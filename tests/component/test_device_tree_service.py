# SPDX-License-Identifier: GPL-2.0-or-later
"""hcall_service behind a real server on a unix socket: the device-tree store's contract, and traps as cpu_service sends them."""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from hcall_service import service
from hcall_service.trees.service import MAX_WATCHERS
from splitvisor.limits import MESSAGE_BYTES
from splitvisor.papr.codes import H
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import device_tree_pb2_grpc, trap_pb2, trap_pb2_grpc
from splitvisor.tree import fdt
from tests.real_trees import RAM, UUID, build_request, qemu_blob

DEADLINE_S = 10.0
LIMITS = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]

OPTIONAL_IN_QEMU = {"pci@800000020000000", "ibm,persistent-memory", "hypervisor"}
"""Nodes of QEMU's tree for devices that this machine does not have."""


@asynccontextmanager
async def running(store: str = ":memory:") -> AsyncIterator[grpc.aio.Channel]:
    directory = tempfile.mkdtemp(dir="/tmp")
    server = grpc.aio.server(options=LIMITS)
    stop = await service.start(server, service.Options(store))
    address = f"unix:{directory}/hcall.sock"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address, options=LIMITS) as channel:
            yield channel
    finally:
        await server.stop(None)
        await stop()
        shutil.rmtree(directory)


def trees(channel: grpc.aio.Channel) -> Any:
    return device_tree_pb2_grpc.DeviceTreeServiceStub(channel)


async def code_of(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def test_a_built_tree_is_the_head_and_its_properties_can_be_read() -> None:
    async def run() -> None:
        async with running() as channel:
            stub = trees(channel)
            built = await stub.BuildTree(build_request())
            assert built.revision == 1
            got = await stub.GetTree(pb.GetTreeRequest(vm="test"))
            assert got.blob == built.blob
            assert got.revision.origin == pb.TREE_ORIGIN_SEED
            assert got.revision.sha256 == hashlib.sha256(built.blob).digest()
            assert got.revision.size == len(built.blob)
            request = pb.GetPropertyRequest(vm="test", path="/chosen", name="bootargs")
            assert (await stub.GetProperty(request)).value == b"console=hvc0\0"
            assert (await stub.BuildTree(build_request())).revision == 2

    asyncio.run(run())


def test_put_moves_the_head_by_compare_and_swap_and_history_is_newest_first() -> None:
    async def run() -> None:
        async with running() as channel:
            stub = trees(channel)
            seed = await stub.BuildTree(build_request())
            tree = fdt.read(seed.blob)
            tree.root.properties["changed"] = b"yes\0"
            change = pb.PutTreeRequest(vm="test", origin=pb.TREE_ORIGIN_CAS, blob=fdt.emit(tree), expected_revision=1)
            assert (await stub.PutTree(change)).revision == 2
            code, text = await code_of(stub.PutTree(change))
            assert code is grpc.StatusCode.ABORTED
            assert "revision 2" in text
            history = (await stub.ListRevisions(pb.ListRevisionsRequest(vm="test"))).revisions
            assert [(entry.number, entry.origin) for entry in history] == [(2, pb.TREE_ORIGIN_CAS), (1, pb.TREE_ORIGIN_SEED)]
            newest = await stub.ListRevisions(pb.ListRevisionsRequest(vm="test", page_size=1))
            rest = await stub.ListRevisions(pb.ListRevisionsRequest(vm="test", page_token=newest.next_page_token))
            assert [entry.number for page in (newest, rest) for entry in page.revisions] == [2, 1]
            assert (bool(newest.next_page_token), rest.next_page_token) == (True, "")
            for wrong in (
                pb.ListRevisionsRequest(vm="test", page_size=-1),
                pb.ListRevisionsRequest(vm="test", page_token="rubbish!"),
            ):
                assert (await code_of(stub.ListRevisions(wrong)))[0] is grpc.StatusCode.INVALID_ARGUMENT
            old = await stub.GetTree(pb.GetTreeRequest(vm="test", revision=1))
            assert old.blob == seed.blob

    asyncio.run(run())


def test_a_watcher_gets_what_is_kept_and_then_what_is_put_each_once() -> None:
    async def run() -> None:
        async with running() as channel:
            stub = trees(channel)

            async def put(vm: str) -> None:
                await stub.PutTree(put_request(blob, vm=vm))

            blob = (await stub.BuildTree(build_request())).blob
            await put("test")
            everything = stub.WatchRevisions(pb.WatchRevisionsRequest(vm="test"))
            new = stub.WatchRevisions(pb.WatchRevisionsRequest(vm="test", after_revision=2))
            other = stub.WatchRevisions(pb.WatchRevisionsRequest(vm="other"))
            async with asyncio.timeout(DEADLINE_S):
                assert [(await everything.read()).revision.number for _ in range(2)] == [1, 2]
                await put("test")
                await put("other")
                await put("test")
                assert [(await everything.read()).revision.number for _ in range(2)] == [3, 4]
                first = (await new.read()).revision
                assert (first.number, first.origin, first.size) == (3, pb.TREE_ORIGIN_CAS, len(blob))
                assert (await other.read()).revision.number == 1
            for stream in (everything, new, other):
                stream.cancel()

    asyncio.run(run())


def test_a_watcher_sees_what_another_service_puts_into_the_same_store(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/trees.sqlite"

    async def run() -> None:
        async with running(store) as one, running(store) as other, asyncio.timeout(DEADLINE_S):
            stream = trees(one).WatchRevisions(pb.WatchRevisionsRequest(vm="test"))
            await trees(other).BuildTree(build_request())
            assert (await stream.read()).revision.number == 1
            await trees(other).BuildTree(build_request())
            assert (await stream.read()).revision.number == 2
            stream.cancel()

    asyncio.run(run())


def test_a_service_that_stops_ends_its_watchers_streams() -> None:
    async def run() -> None:
        server = grpc.aio.server()
        stop = await service.start(server, service.Options(":memory:"))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(DEADLINE_S):
            await trees(channel).BuildTree(build_request())
            responses = aiter(trees(channel).WatchRevisions(pb.WatchRevisionsRequest(vm="test")))
            assert (await anext(responses)).revision.number == 1
            await stop()
            assert [response async for response in responses] == []
        await server.stop(None)

    asyncio.run(run())


def test_watchers_are_bounded_and_one_that_goes_makes_room() -> None:
    async def run() -> None:
        async with running() as channel, asyncio.timeout(DEADLINE_S):
            stub = trees(channel)
            await stub.BuildTree(build_request())
            watch = pb.WatchRevisionsRequest(vm="test")
            streams = [stub.WatchRevisions(watch) for _ in range(MAX_WATCHERS)]
            for stream in streams:
                await stream.read()
            code, text = await code_of(stub.WatchRevisions(watch).read())
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert str(MAX_WATCHERS) in text
            streams.pop().cancel()
            while True:  # Until the service has noticed; the deadline is above.
                streams.append(stub.WatchRevisions(watch))
                try:
                    await streams[-1].read()
                except grpc.aio.AioRpcError:
                    continue
                break
            for stream in streams:
                stream.cancel()

    asyncio.run(run())


def put_request(blob: bytes, *, vm: str = "test", origin: pb.TreeOrigin = pb.TREE_ORIGIN_CAS) -> pb.PutTreeRequest:
    return pb.PutTreeRequest(vm=vm, origin=origin, blob=blob)


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        (lambda stub: stub.GetTree(pb.GetTreeRequest(vm="other")), "NOT_FOUND", "other"),
        (lambda stub: stub.GetTree(pb.GetTreeRequest(vm="test", revision=9)), "NOT_FOUND", "revision 9"),
        (lambda stub: stub.GetTree(pb.GetTreeRequest(vm="test", revision=(1 << 64) - 1)), "NOT_FOUND", "revision"),
        (lambda stub: stub.ListRevisions(pb.ListRevisionsRequest(vm="other")), "NOT_FOUND", "other"),
        (lambda stub: stub.GetProperty(pb.GetPropertyRequest(vm="test", path="/no", name="x")), "NOT_FOUND", "/no"),
        (lambda stub: stub.GetProperty(pb.GetPropertyRequest(vm="test", path="/", name="x")), "NOT_FOUND", "no property"),
        (lambda stub: stub.GetProperty(pb.GetPropertyRequest(vm="other", path="/", name="x")), "NOT_FOUND", "other"),
        (lambda stub: stub.PutTree(put_request(b"junk")), "INVALID_ARGUMENT", "header"),
        (lambda stub: stub.PutTree(put_request(bytes(64))), "INVALID_ARGUMENT", "magic.* at 0x0"),
        (lambda stub: stub.PutTree(put_request(bytes((2 << 20) + 1))), "RESOURCE_EXHAUSTED", "2097152"),
        (lambda stub: stub.PutTree(put_request(b"x", origin=pb.TREE_ORIGIN_UNSPECIFIED)), "INVALID_ARGUMENT", "origin"),
        (lambda stub: stub.PutTree(put_request(b"x", vm="../x")), "INVALID_ARGUMENT", "VM name"),
        (lambda stub: stub.BuildTree(pb.BuildTreeRequest(vm="test", ram_bytes=1)), "INVALID_ARGUMENT", "vcpus"),
        (lambda stub: stub.BuildTree(build_request("")), "INVALID_ARGUMENT", "VM name"),
    ],
)
def test_what_cannot_be_done_gets_the_contracts_code_and_says_why(
    call: Callable[[Any], Awaitable[Any]], code: str, text: str
) -> None:
    async def run() -> None:
        async with running() as channel:
            stub = trees(channel)
            await stub.BuildTree(build_request())
            found, details = await code_of(call(stub))
            assert found.name == code
            assert text.partition(".*")[0] in details
            assert len((await stub.ListRevisions(pb.ListRevisionsRequest(vm="test"))).revisions) == 1

    asyncio.run(run())


def test_a_node_that_a_back_end_should_not_have_described_is_named() -> None:
    async def run() -> None:
        async with running() as channel:
            request = build_request()
            request.nodes.add(path="/nowhere/vty@1")
            code, text = await code_of(trees(channel).BuildTree(request))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "/nowhere/vty@1" in text

    asyncio.run(run())


def test_trees_outlive_the_service(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/trees.sqlite"

    async def run() -> None:
        async with running(store) as channel:
            built = await trees(channel).BuildTree(build_request())
        async with running(store) as channel:
            assert (await trees(channel).GetTree(pb.GetTreeRequest(vm="test"))).blob == built.blob

    asyncio.run(run())


class Guest:
    """The stream of one VM as cpu_service has it, with RAM that only this side sees."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = trap_pb2_grpc.TrapServiceStub(channel)
        self.stream = stub.Attach()
        self.ram: dict[int, bytes] = {}
        self.routes: dict[str, int] = {}
        self.sequence = 0

    async def attach(self) -> None:
        hello = trap_pb2.Hello(vm="test", beginning=trap_pb2.BEGINNING_RUNNING, incarnation=1, vcpus=2, ram_bytes=RAM)
        await self.stream.write(trap_pb2.AttachRequest(hello=hello))
        offer = (await self._read()).offer
        assert offer.backend == "hcall_service"
        self.routes = {route.name: index for index, route in enumerate(offer.routes)}

    async def _read(self) -> trap_pb2.AttachResponse:
        async with asyncio.timeout(DEADLINE_S):
            message: trap_pb2.AttachResponse = await self.stream.read()
        assert isinstance(message, trap_pb2.AttachResponse), "the stream ended"
        return message

    async def trap(
        self, name: str, *arguments: int, returns: int = 1, operands: Sequence[trap_pb2.MemoryBlock] = ()
    ) -> trap_pb2.Reply:
        """Make one call. A back end that reads memory beyond the operands gets no answer, and the test ends by its deadline."""
        self.sequence += 1
        trap = trap_pb2.Trap(
            sequence=self.sequence, route=self.routes[name], arguments=arguments, returns=returns, operands=operands
        )
        await self.stream.write(trap_pb2.AttachRequest(trap=trap))
        while True:
            message = await self._read()
            if message.HasField("memory_write"):
                block = message.memory_write.block
                self.ram[block.address] = block.data
                answer = trap_pb2.MemoryResult(id=message.memory_write.id, ok=True)
                await self.stream.write(trap_pb2.AttachRequest(memory_result=answer))
            elif message.HasField("reply"):
                for block in message.reply.writes:
                    self.ram[block.address] = block.data
                return message.reply


def signed(words: Any) -> list[int]:
    return [word - (1 << 32) if word >> 31 else word for word in words]


def test_traps_are_answered_through_the_stream() -> None:
    async def run() -> None:
        async with running() as channel:
            await trees(channel).BuildTree(build_request())
            guest = Guest(channel)
            await guest.attach()

            reply = await guest.trap("H_RANDOM")
            assert reply.result == H.SUCCESS
            assert len(reply.outputs) == 1
            reply = await guest.trap("H_HOME_NODE_ASSOCIATIVITY", 1, 2)
            assert reply.result == H.P2

            reply = await guest.trap("get-time-of-day", returns=8)
            assert reply.returns[0] == 0
            assert reply.returns[1] >= 2026
            assert signed((await guest.trap("get-time-of-day", returns=7)).returns) == [-3]

            # The UUID comes from the tree that was built for this VM.
            assert signed((await guest.trap("ibm,get-system-parameter", 48, 0x1000, 64)).returns) == [0]
            assert guest.ram == {0x1000: b"\0\x10" + UUID}
            assert signed((await guest.trap("ibm,get-system-parameter", 48, RAM, 64)).returns) == [-9999]

            # The message travels with the trap: one round trip.
            message = trap_pb2.MemoryBlock(address=0x3000, data=b"no init\0")
            reply = await guest.trap("ibm,os-term", 0x3000, operands=[message])
            assert reply.effects[0].action.kind == trap_pb2.MACHINE_ACTION_KIND_CRASH
            assert reply.effects[0].action.reason == "the guest reported its end: no init"

            reply = await guest.trap("power-off", 0, 0)
            assert [effect.action.kind for effect in reply.effects] == [trap_pb2.MACHINE_ACTION_KIND_POWER_OFF]
            await guest.stream.done_writing()

    asyncio.run(run())


def test_processors_memory_and_interrupts_are_described_as_qemu_does(tmp_path: Path) -> None:
    qemu = fdt.read(qemu_blob(tmp_path)).root

    async def run() -> fdt.Node:
        async with running() as channel:
            return fdt.read((await trees(channel).BuildTree(build_request())).blob).root

    ours = asyncio.run(run())
    assert {node.name for node in qemu.children} - {node.name for node in ours.children} <= OPTIONAL_IN_QEMU
    theirs_only = {"phandle", "ibm,my-drc-index", "available"}
    for path in ("/cpus/PowerPC,POWER8@0", "/cpus/PowerPC,POWER8@1", "/memory@0", "/interrupt-controller"):
        node, peer = ours.find(path), qemu.find(path)
        assert node is not None
        assert peer is not None
        for name, value in peer.properties.items():
            if name not in theirs_only:
                assert node.properties.get(name) == value, f"{path} {name}"
