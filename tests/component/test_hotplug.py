# SPDX-License-Identifier: GPL-2.0-or-later
"""vio_service and hcall_service on real sockets: a device comes to a running VM, the tree follows, and it goes again."""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from hcall_service import service as hcall
from splitvisor.backend.vio.hcall_client import HcallServiceClient
from splitvisor.net.times import duration
from splitvisor.papr.rtas import TOKENS
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import (
    device_tree_pb2_grpc,
    platform_event_pb2,
    platform_event_pb2_grpc,
    trap_pb2,
    vio_bus_pb2,
    vio_bus_pb2_grpc,
)
from splitvisor.tree import fdt
from tests.component.console_harness import DEADLINE, RAM_BYTES, Guest
from vio_service import service as vio

ADDRESS = 0x7100_0002
SLOT = 0x3000_0002
AREA, BUFFER = 0x2000, 0x4000
WAIT_MS = 5000


@dataclass
class Machine:
    """Both services, and the guest's streams to them."""

    bus: Any
    trees: Any
    events: Any
    devices: Guest
    platform: Guest

    async def origins(self) -> list[dt.TreeOrigin]:
        answer = await self.trees.ListRevisions(dt.ListRevisionsRequest(vm="vm"))
        return [revision.origin for revision in answer.revisions]

    async def terminals(self) -> list[str]:
        blob = (await self.trees.GetTree(dt.GetTreeRequest(vm="vm"))).blob
        bus = fdt.read(blob).root.child("vdevice")
        assert bus is not None
        return [node.name for node in bus.children if node.name.startswith("vty")]

    async def event(self) -> tuple[int, int]:
        """Wait for the event source and fetch the event: action and connector."""
        assert await self.platform.interrupts.get() == 0x1001
        reply = await self.platform.call("check-exception", 0x500, 0x1001, 0x1000_0000, 0, BUFFER, 2048, returns=1)
        assert list(reply.returns) == [0]
        [block] = reply.writes
        section = block.data[block.data.index(b"HP") + 8 :]
        _, action, _, index = struct.unpack(">3BxI", section)
        return action, index

    async def indicate(self, kind: int, state: int) -> int:
        reply = await self.devices.call("set-indicator", kind, SLOT, state, returns=1)
        return reply.returns[0] - (reply.returns[0] >> 31 << 32)

    async def configure(self) -> int:
        self.devices.ram[AREA : AREA + 8] = struct.pack(">2I", SLOT, 0)
        count = 0
        while True:
            reply = await self.devices.call("ibm,configure-connector", AREA, 0, returns=1)
            if reply.returns[0] not in (2, 3):
                assert reply.returns[0] == 0
                return count
            count += 1
            for block in reply.writes:
                self.devices.ram[block.address : block.address + len(block.data)] = block.data

    async def take(self) -> None:
        assert await self.event() == (1, SLOT)
        assert [await self.indicate(9003, 1), await self.indicate(9001, 1)] == [0, 0]
        assert await self.configure() > 5

    async def settled(self, count: int) -> None:
        """Wait until the stored tree has so many revisions."""
        while len(await self.origins()) < count:
            await asyncio.sleep(0.01)

    def add(self, kind: str = "vty", address: int = 0, wait_ms: int = WAIT_MS, **options: str) -> Awaitable[Any]:
        spec = trap_pb2.DeviceSpec(kind=kind, unit_address=address, options=options)
        answer: Awaitable[Any] = self.bus.AddDevice(
            vio_bus_pb2.AddDeviceRequest(vm="vm", device=spec, wait=duration(wait_ms / 1000))
        )
        return answer

    def remove(self, address: int = ADDRESS, wait_ms: int = WAIT_MS) -> Awaitable[Any]:
        request = vio_bus_pb2.RemoveDeviceRequest(vm="vm", unit_address=address, wait=duration(wait_ms / 1000))
        answer: Awaitable[Any] = self.bus.RemoveDevice(request)
        return answer


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    addresses = [f"unix:{directory}/{name}.sock" for name in ("hcall", "vio")]
    servers = [grpc.aio.server() for _ in addresses]
    stops = [
        await hcall.start(servers[0], hcall.Options(":memory:")),
        await vio.start(servers[1], vio.Options(addresses[0])),
    ]
    for server, address in zip(servers, addresses, strict=True):
        server.add_insecure_port(address)
        await server.start()
    try:
        async with (
            asyncio.timeout(DEADLINE),
            grpc.aio.insecure_channel(addresses[0]) as hcall_channel,
            grpc.aio.insecure_channel(addresses[1]) as vio_channel,
            Guest(addresses[0]) as platform,
            Guest(addresses[1]) as devices,
        ):
            trees: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(hcall_channel)
            events = platform_event_pb2_grpc.PlatformEventServiceStub(hcall_channel)
            await trees.BuildTree(
                dt.BuildTreeRequest(
                    vm="vm",
                    ram_bytes=RAM_BYTES,
                    vcpus=1,
                    hash_table_shift=18,
                    rtas_calls=[dt.RtasToken(name=name, token=token) for name, token in TOKENS.items()],
                    nodes=devices.offer.nodes,
                )
            )
            bus = vio_bus_pb2_grpc.VioBusServiceStub(vio_channel)
            yield Machine(bus, trees, events, devices, platform)
    finally:
        for stop, server in zip(reversed(stops), reversed(servers), strict=True):
            await server.stop(0)
            await stop()
        shutil.rmtree(directory)


async def refused(call: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


def test_a_device_is_added_taken_and_removed_and_the_stored_tree_follows() -> None:
    async def run() -> None:
        async with machine() as vm:
            adding = asyncio.ensure_future(vm.add())
            await vm.take()
            added = await adding
            assert (added.device.unit_address, added.device.connector.index) == (ADDRESS, SLOT)
            assert added.device.connector.state == vio_bus_pb2.CONNECTOR_STATE_CONFIGURED
            assert (added.interrupt_parent, added.interrupt_parent_source) == (0x1111, dt.INTERRUPT_PARENT_SOURCE_STORED_TREE)
            await vm.settled(2)
            assert await vm.terminals() == ["vty@71000000", "vty@71000002"]
            key = dt.GetPropertyRequest(vm="vm", path="/vdevice/vty@71000002", name="interrupt-parent")
            assert (await vm.trees.GetProperty(key)).value == b"\0\0\x11\x11"
            reply = await vm.devices.call("H_PUT_TERM_CHAR", ADDRESS, 2, int.from_bytes(b"ok".ljust(8)), 0)
            assert reply.result == 0

            removing = asyncio.ensure_future(vm.remove())
            assert await vm.event() == (2, SLOT)
            assert [await vm.indicate(9001, 0), await vm.indicate(9003, 0)] == [0, 0]
            assert (await removing).removed
            await vm.settled(3)
            assert await vm.terminals() == ["vty@71000000"]
            assert await vm.origins() == [dt.TREE_ORIGIN_HOTPLUG, dt.TREE_ORIGIN_HOTPLUG, dt.TREE_ORIGIN_SEED]
            assert (await vm.devices.call("H_PUT_TERM_CHAR", ADDRESS, 1, 0, 0)).result == -4

    asyncio.run(run())


class SlowTrees(device_tree_pb2_grpc.DeviceTreeServiceServicer):
    """A store whose disk is slow: changes wait until they are let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.requests: list[dt.ChangeNodesRequest] = []

    async def ChangeNodes(self, request: dt.ChangeNodesRequest, context: Any) -> dt.ChangeNodesResponse:
        self.requests.append(request)
        await self.go.wait()
        return dt.ChangeNodesResponse()

    async def _refuse(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not asked for here")

    def WatchRevisions(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    BuildTree = PutTree = GetTree = GetProperty = ListRevisions = LookUpNode = GetInterruptParent = _refuse


def test_a_guest_that_takes_and_gives_without_end_fills_no_queue() -> None:
    async def run() -> None:
        directory = Path(tempfile.mkdtemp(dir="/tmp"))
        server, trees = grpc.aio.server(), SlowTrees()
        device_tree_pb2_grpc.add_DeviceTreeServiceServicer_to_server(trees, server)
        server.add_insecure_port(f"unix:{directory}/hcall.sock")
        await server.start()
        platform = HcallServiceClient(f"unix:{directory}/hcall.sock")
        kept, gone = trap_pb2.TreeNode(path="/vdevice/vty@1"), trap_pb2.TreeNode(path="/vdevice/vty@2")
        async with asyncio.timeout(DEADLINE):
            platform.add_node("vm", gone)
            while not trees.requests:
                await asyncio.sleep(0.01)
            for _ in range(1000):
                for node in (kept, gone):
                    platform.add_node("vm", node)
                    platform.remove_node("vm", node.path)
            platform.add_node("vm", kept)
            trees.go.set()
            await platform.close()
        first, rest = trees.requests
        assert (list(first.remove), list(first.add)) == ([], [gone])
        assert (sorted(rest.remove), list(rest.add)) == ([kept.path, gone.path], [kept])
        await server.stop(0)
        shutil.rmtree(directory)

    asyncio.run(run())


class AwayTrees(SlowTrees):
    """A store that cannot be reached the first time, and by then the guest has changed its mind."""

    def __init__(self, code: grpc.StatusCode, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._code, self._meanwhile = code, meanwhile

    async def ChangeNodes(self, request: dt.ChangeNodesRequest, context: Any) -> dt.ChangeNodesResponse:
        self.requests.append(request)
        if len(self.requests) == 1:
            self._meanwhile()
            await context.abort(self._code, "not now")
        return dt.ChangeNodesResponse()


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED"])
def test_a_change_that_the_store_could_not_make_is_made_later_in_its_order(code: str) -> None:
    kept, gone, back = (trap_pb2.TreeNode(path=f"/vdevice/vty@{number}") for number in range(3))

    async def run() -> None:
        directory = Path(tempfile.mkdtemp(dir="/tmp"))

        def meanwhile() -> None:
            platform.remove_node("vm", gone.path)
            platform.add_node("vm", back)

        server, trees = grpc.aio.server(), AwayTrees(grpc.StatusCode[code], meanwhile)
        device_tree_pb2_grpc.add_DeviceTreeServiceServicer_to_server(trees, server)
        server.add_insecure_port(f"unix:{directory}/hcall.sock")
        await server.start()
        platform = HcallServiceClient(f"unix:{directory}/hcall.sock")
        async with asyncio.timeout(DEADLINE):
            platform.add_node("vm", kept)
            platform.add_node("vm", gone)
            platform.remove_node("vm", back.path)
            await platform.written()
            await platform.close()
        first, second = trees.requests
        assert (list(first.remove), list(first.add)) == ([back.path], [kept, gone])
        assert (sorted(second.remove), list(second.add)) == ([gone.path, back.path], [kept, back])
        await server.stop(0)
        shutil.rmtree(directory)

    asyncio.run(run())


def test_a_guest_has_its_answer_when_the_stored_tree_has_the_change() -> None:
    async def run() -> None:
        async with machine() as vm:
            await vm.add(wait_ms=0)
            await vm.take()
            assert await vm.terminals() == ["vty@71000000", "vty@71000002"]
            assert await vm.indicate(9001, 0) == 0
            assert await vm.terminals() == ["vty@71000000"]

    asyncio.run(run())


def test_the_interrupt_parent_is_that_of_firmwares_tree() -> None:
    async def run() -> None:
        async with machine() as vm:
            tree = fdt.read((await vm.trees.GetTree(dt.GetTreeRequest(vm="vm"))).blob)
            controller = tree.root.child("interrupt-controller")
            assert controller is not None
            for name in ("phandle", "linux,phandle"):
                controller.properties[name] = b"\0\0\x7e\x01"
            blob = fdt.emit(tree)
            vm.platform.ram[: len(blob)] = blob
            assert (await vm.platform.call("H_UPDATE_DT", 0xC << 60)).result == 0
            added = await vm.add(wait_ms=0)
            assert (added.interrupt_parent, added.interrupt_parent_source) == (0x7E01, dt.INTERRUPT_PARENT_SOURCE_STORED_TREE)
            assert added.device.connector.state == vio_bus_pb2.CONNECTOR_STATE_UNUSABLE

            tree.root.children.remove(controller)
            blob = fdt.emit(tree)
            vm.platform.ram[: len(blob)] = blob
            assert (await vm.platform.call("H_UPDATE_DT", 0)).result == 0
            added = await vm.add(wait_ms=0)
            assert (added.interrupt_parent, added.interrupt_parent_source) == (0x1111, dt.INTERRUPT_PARENT_SOURCE_FALLBACK)
            assert await vm.origins() == [dt.TREE_ORIGIN_UPDATE_DT, dt.TREE_ORIGIN_UPDATE_DT, dt.TREE_ORIGIN_SEED]

    asyncio.run(run())


def test_a_guest_that_does_nothing_keeps_what_it_has_and_nobody_says_otherwise() -> None:
    async def run() -> None:
        async with machine() as vm:
            assert (await vm.add(wait_ms=1)).device.connector.state == vio_bus_pb2.CONNECTOR_STATE_UNUSABLE
            # What the guest never took goes at once; what it has stays until it gives it back.
            assert (await vm.remove(wait_ms=0)).removed
            answer = await vm.remove(0x7100_0000, wait_ms=1)
            assert (answer.removed, answer.connector.removal_asked) == (False, True)
            described = await vm.bus.DescribeBus(vio_bus_pb2.DescribeBusRequest(vm="vm"))
            assert [device.unit_address for device in described.devices] == [0x7100_0000, 0x7100_0001]

    asyncio.run(run())


def test_a_reset_ends_waiting_and_keeps_added_devices() -> None:
    async def run() -> None:
        async with machine() as vm:
            adding = asyncio.ensure_future(vm.add())
            assert await vm.event() == (1, SLOT)
            await vm.devices.reset()
            assert (await adding).device.connector.state == vio_bus_pb2.CONNECTOR_STATE_CONFIGURED
            removing = asyncio.ensure_future(vm.remove())
            assert await vm.event() == (2, SLOT)
            await vm.devices.reset(2)
            assert not (await removing).removed

    asyncio.run(run())


def test_what_cannot_be_added_or_removed_is_refused_with_the_reason() -> None:
    async def run() -> None:
        async with machine() as vm:
            assert await refused(vm.add("disk")) == (
                "INVALID_ARGUMENT",
                "vio_service has no kind of device 'disk'; it has: l-lan, nvram, v-scsi, vty, vty-server",
            )
            assert (await refused(vm.add("nvram", bytes="1")))[0] == "INVALID_ARGUMENT"
            code, text = await refused(vm.add(address=0x1000))
            assert (code, "its slots: 0x71000000 to 0x7100003f" in text) == ("INVALID_ARGUMENT", True)
            assert (await refused(vm.add(address=0x7100_0000)))[0] == "ALREADY_EXISTS"
            assert (await refused(vm.remove(0x7100_0033)))[0] == "NOT_FOUND"
            request = vio_bus_pb2.AddDeviceRequest(vm="other")
            assert (await refused(vm.bus.AddDevice(request)))[0] == "NOT_FOUND"
            for _ in range(62):
                await vm.add(wait_ms=0)
            assert (await refused(vm.add()))[0] == "RESOURCE_EXHAUSTED"
            await vm.remove(ADDRESS, wait_ms=0)
            assert (await vm.add(wait_ms=0)).device.unit_address == ADDRESS
            # The guest has fetched none of 63 events: there is room for one more.
            await vm.remove(ADDRESS, wait_ms=0)
            assert (await vm.add(wait_ms=0)).device.unit_address == ADDRESS
            await vm.remove(ADDRESS, wait_ms=0)
            code, text = await refused(vm.add(wait_ms=0))
            assert (code, "64 older events" in text) == ("UNAVAILABLE", True)
            assert (await refused(vm.remove(0x7100_0000)))[0] == "UNAVAILABLE"
            described = await vm.bus.DescribeBus(vio_bus_pb2.DescribeBusRequest(vm="vm"))
            assert len(described.devices) == 63, "what could not be announced is not plugged in"
            assert not described.devices[0].connector.removal_asked, "nor asked for"

    asyncio.run(run())


def test_events_and_lookups_say_what_is_wrong_with_a_request() -> None:
    async def run() -> None:
        async with machine() as vm:
            event = platform_event_pb2.RaiseHotplugRequest(vm="vm", resource=platform_event_pb2.HOTPLUG_RESOURCE_SLOT)
            assert (await refused(vm.events.RaiseHotplug(event)))[0] == "INVALID_ARGUMENT"
            event.vm = "other"
            assert (await refused(vm.events.RaiseHotplug(event)))[0] == "NOT_FOUND"
            assert (await refused(vm.trees.LookUpNode(dt.LookUpNodeRequest(vm="vm"))))[0] == "INVALID_ARGUMENT"
            assert (await refused(vm.trees.LookUpNode(dt.LookUpNodeRequest(vm="vm", path="/x"))))[0] == "NOT_FOUND"
            found = await vm.trees.LookUpNode(dt.LookUpNodeRequest(vm="vm", phandle=0x1111))
            assert (found.node.path, found.phandle) == ("/interrupt-controller", 0x1111)
            found = await vm.trees.LookUpNode(dt.LookUpNodeRequest(vm="vm", path="/vdevice"))
            assert [child.name for child in found.children] == ["vty@71000000", "nvram@71000001"]
            parent = await vm.trees.GetInterruptParent(dt.GetInterruptParentRequest(vm="other"))
            assert (parent.phandle, parent.source) == (0x1111, dt.INTERRUPT_PARENT_SOURCE_FALLBACK)
            change = dt.ChangeNodesRequest(vm="vm", add=[trap_pb2.TreeNode(path="/none/x")])
            assert (await refused(vm.trees.ChangeNodes(change)))[0] == "INVALID_ARGUMENT"

    asyncio.run(run())


def test_a_bus_without_a_platform_does_not_change() -> None:
    async def run() -> None:
        directory = Path(tempfile.mkdtemp(dir="/tmp"))
        server = grpc.aio.server()
        stop = await vio.start(server, vio.Options())
        server.add_insecure_port(f"unix:{directory}/vio.sock")
        await server.start()
        async with Guest(f"unix:{directory}/vio.sock"), grpc.aio.insecure_channel(f"unix:{directory}/vio.sock") as channel:
            bus: Any = vio_bus_pb2_grpc.VioBusServiceStub(channel)
            spec = trap_pb2.DeviceSpec(kind="vty")
            code, text = await refused(bus.AddDevice(vio_bus_pb2.AddDeviceRequest(vm="vm", device=spec)))
            assert (code, "--device-tree" in text) == ("FAILED_PRECONDITION", True)
        await stop()
        await server.stop(0)
        shutil.rmtree(directory)

    asyncio.run(run())
