# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of a logical LAN device in memory that a test sees, on a real switch."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from splitvisor.backend import Call, Handler, Hypercall, Result
from splitvisor.backend.vio import BusError, VioSession
from splitvisor.declarations.state import StateError
from splitvisor.lan.options import parse_net
from splitvisor.lan.wire import Wire
from splitvisor.lan.wires import make_wire
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2
from tests.fake_vm import FakeVm
from tests.frames import BROADCAST, ethernet
from tests.unit.test_llan_offload import frame4, tcp
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.llan import LogicalLan, calls
from vio_service.devices.llan.buffers import MAX_POOLS, NO_SLOT, POSTED_BUFFERS, FreeBuffers
from vio_service.devices.llan.connection import SWITCHES
from vio_service.devices.llan.layout import DROPPED, SLOTS
from vio_service.devices.llan.metrics import network_samples
from vio_service.devices.llan.offload import segments, with_checksum
from vio_service.devices.llan.receiver import PATIENCE_S, WAITING_FRAMES
from vio_service.session import vio_session

if TYPE_CHECKING:
    from splitvisor.trap.server import TrapServicer

UNIT = 0x7100_0000
VALID, LARGE, NO_CSUM = 1 << 63, 1 << 58, 1 << 57
LIST, FILTERS, QUEUE, ENTRIES = 0x1000, 0x2000, 0x3000, 5
BUFFERS, BUFFER = 0x10000, 2048
MAC, PEER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
GROUP = bytes.fromhex("01005e000001")
PAGES = 64
LIST_OF_CALLS = {call.call_name: call.handler for call in calls.CALLS}
WAIT_S = 5.0


def descriptor(ioba: int, length: int, flags: int = VALID) -> int:
    return flags | length << 32 | ioba


class Lan:
    """A device, and a port of the switch that it is connected to."""

    def __init__(self, vm: FakeVm | None = None, remembered: bytes = b"") -> None:
        options = {"net": "switch=unit", "mac": MAC.hex(":")}
        spec = trap_pb2.DeviceSpec(kind="l-lan", unit_address=UNIT, options=options, remembered=remembered)
        self.vm = vm or FakeVm(size=PAGES * 4096, devices=[])
        self.vm.devices = [spec]
        self.session: VioSession[VmConsoles] = vio_session(self.vm)
        (self.device,) = self.session.bus.all(LogicalLan)
        self.ram = self.vm.ram.data
        self.tces = self.vm.dma_window(UNIT).tces
        for page in range(PAGES):
            self.tces[page] = page * 4096 | 3
        self.heard: list[bytes] = []
        self.peer: Wire = make_wire(parse_net("switch=unit"), "peer", SWITCHES)

    async def begin(self) -> None:
        await self.session.begin()
        await self.session.attached()
        await self.peer.open(self._hear)

    async def end(self) -> None:
        await self.session.close()
        await self.peer.close()

    def _hear(self, frame: bytes) -> bool:
        self.heard.append(frame)
        return True

    async def call(self, name: str, *arguments: int, buffers: bytes | None = None) -> tuple[int, Sequence[int]]:
        """Make a call as the guest; buffers: it is posted, with them. Returns r3, and r4 and up."""
        handler: Handler = LIST_OF_CALLS[name]
        answer = handler(self.session, Call(0, arguments, buffers=buffers))
        done = await answer if isinstance(answer, Awaitable) else answer
        return (done.result, done.outputs) if isinstance(done, Result) else (done, ())

    def posted(self, name: str) -> Sequence[int]:
        """Which devices' calls the guest need not wait for."""
        [declared] = [call for call in calls.CALLS if call.call_name == name]
        assert isinstance(declared, Hypercall)
        assert declared.posted is not None
        return declared.posted.key_values(self.session)

    async def register(self, *, entries: int = ENTRIES, mac: bytes = MAC) -> int:
        arguments = (LIST, descriptor(QUEUE, 16 * entries), FILTERS, int.from_bytes(mac, "big"))
        return (await self.call("H_REGISTER_LOGICAL_LAN", UNIT, *arguments))[0]

    async def add(self, number: int, length: int = BUFFER) -> int:
        """Give a buffer, with its number as the correlator."""
        ioba = BUFFERS + number * BUFFER
        self.ram[ioba : ioba + 8] = number.to_bytes(8, "little")
        return (await self.call("H_ADD_LOGICAL_LAN_BUFFER", UNIT, descriptor(ioba, length)))[0]

    async def send(self, *words: int, mss: int = 0, posted: bytes | None = None) -> int:
        """Send a frame; posted: what cpu_service has read of it already."""
        padded = (*words, *[0] * (6 - len(words)))
        return (await self.call("H_SEND_LOGICAL_LAN", UNIT, *padded, 0, mss, buffers=posted))[0]

    def entry(self, place: int) -> tuple[int, int, int]:
        """Return an entry: flags and offset, length, correlator."""
        flags, length = struct.unpack_from(">II", self.ram, QUEUE + 16 * place)
        return flags, length, int.from_bytes(self.ram[QUEUE + 16 * place + 8 : QUEUE + 16 * place + 16], "little")

    def frame(self, number: int, length: int) -> bytes:
        start = BUFFERS + number * BUFFER + 8
        return bytes(self.ram[start : start + length])

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not reached():
                await asyncio.sleep(0.001)

    async def turns(self) -> None:
        """Let everything happen that is going to."""
        for _ in range(50):
            await asyncio.sleep(0)


def scenario(body: Callable[[Lan], Awaitable[None]]) -> None:
    async def run() -> None:
        lan = Lan()
        await lan.begin()
        try:
            await body(lan)
        finally:
            await lan.end()

    asyncio.run(run())


def to_guest(number: int, length: int = 100, destination: bytes = MAC) -> bytes:
    return ethernet(destination, PEER, random.Random(number).randbytes(length))


def test_what_the_guest_sends_is_on_the_wire() -> None:
    async def body(lan: Lan) -> None:
        assert await lan.register() == H.SUCCESS
        frame = ethernet(BROADCAST, MAC, bytes(range(200)))
        lan.ram[0x8FF0:0x8FFE] = frame[:14]
        lan.ram[0xA000 : 0xA000 + 200] = frame[14:]
        assert await lan.send(descriptor(0x8FF0, 14), descriptor(0xA000, 200)) == H.SUCCESS
        assert await lan.send(0, descriptor(0x8FF0, 14)) == H.SUCCESS, (
            "what follows a descriptor that is not valid does not count"
        )
        await lan.until(lambda: bool(lan.heard))
        await lan.turns()
        assert lan.heard == [frame]

    scenario(body)


def test_checksums_and_segments_that_the_guest_leaves_to_the_device() -> None:
    async def body(lan: Lan) -> None:
        assert await lan.register() == H.SUCCESS
        frame = frame4(tcp(bytes(3000)))
        lan.ram[0x8000 : 0x8000 + len(frame)] = frame
        assert await lan.send(descriptor(0x8000, len(frame), VALID | NO_CSUM)) == H.SUCCESS
        assert await lan.send(descriptor(0x8000, len(frame), VALID | NO_CSUM | LARGE), mss=1000) == H.SUCCESS
        await lan.until(lambda: len(lan.heard) == 4)
        assert lan.heard[0] != frame
        assert [len(each) for each in lan.heard] == [3058, 1058, 1058, 1058]

    scenario(body)


@pytest.mark.parametrize("attributes", [0, 0x2, 0x6, 0x1_0000, 0x1_0006])
def test_segments_are_merged_for_a_guest_that_takes_large_frames(attributes: int) -> None:
    async def body(lan: Lan) -> None:
        assert (await lan.call("H_ILLAN_ATTRIBUTES", UNIT, 0, attributes))[0] == H.SUCCESS
        assert await lan.register(entries=16) == H.SUCCESS
        assert await lan.add(0, length=16384) == H.SUCCESS
        for number in range(8, 16):
            assert await lan.add(number) == H.SUCCESS
        whole = frame4(tcp(random.Random(1).randbytes(3500), flags=0x10))
        whole = MAC + PEER + whole[12:]
        for segment in segments(whole, 1000):
            lan.peer.send(segment)
        await lan.until(lambda: bool(lan.vm.interrupts))
        await lan.turns()
        assert len(lan.vm.interrupts) == 1
        if attributes == 0x1_0006:
            assert [lan.entry(place)[0] for place in range(3)] == [0xC500_0010, 0, 0]
            _, length, buffer = lan.entry(0)
            assert (length, buffer) == (len(whole), 0)
            assert lan.frame(0, 8) == (1000).to_bytes(8, "big")
            received = bytes(lan.ram[BUFFERS + 16 : BUFFERS + 16 + length])
            assert received == whole[:50] + bytes(2) + whole[52:]
        else:
            flags = 0xC100_0008 if attributes & 0x6 else 0xC000_0008
            assert [lan.entry(place)[0] for place in range(5)] == [flags] * 4 + [0]

    scenario(body)


def test_segments_are_merged_as_far_as_there_are_long_buffers() -> None:
    async def body(lan: Lan) -> None:
        await lan.call("H_ILLAN_ATTRIBUTES", UNIT, 0, 0x1_0006)
        await lan.register(entries=16)
        await lan.add(0, length=2600)
        for number in range(8, 16):
            await lan.add(number, length=1600)
        for segment in segments(MAC + PEER + frame4(tcp(bytes(4000), flags=0x10))[12:], 1000):
            lan.peer.send(segment)
        await lan.until(lambda: lan.entry(2)[0] != 0)
        await lan.turns()
        assert [lan.entry(place)[:2] for place in range(4)] == [
            (0xC500_0010, 2058),
            (0xC100_0008, 1058),
            (0xC100_0008, 1058),
            (0, 0),
        ]

    scenario(body)


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ((descriptor(0x8000, 65536), descriptor(0x8000, 1)), H.RESOURCE),
        ((descriptor(0x8000, 0xFFFFFF),) * 6, H.RESOURCE),
        ((descriptor(0x8000, 13),), H.PARAMETER),
        ((descriptor(PAGES * 4096, 100),), H.PARAMETER),
        ((descriptor(0xFFFF_FFF0, 100),), H.PARAMETER),
    ],
)
def test_a_send_that_cannot_be(words: Sequence[int], result: int) -> None:
    async def body(lan: Lan) -> None:
        assert await lan.send(*words) == H.DROPPED, "the device is closed"
        await lan.register()
        assert await lan.send(*words) == result
        await lan.turns()
        assert lan.heard == []

    scenario(body)


def test_frames_come_into_the_smallest_buffers_that_hold_them_and_the_toggle_turns_with_the_queue() -> None:
    async def body(lan: Lan) -> None:
        assert await lan.register() == H.SUCCESS
        for number in range(4):
            assert await lan.add(number, length=(256, 2048)[number % 2]) == H.SUCCESS
        for number, (length, buffer) in enumerate(((100, 2), (234, 0), (1000, 3), (900, 1), (200, 2), (20, 0))):
            if number > 3:
                await lan.add(buffer, length=256)
            sent = to_guest(number, length)
            lan.vm.interrupts.clear()
            lan.peer.send(sent)
            await lan.until(lambda: bool(lan.vm.interrupts))
            toggle = 0 if number >= ENTRIES else 0x8000_0000
            assert lan.entry(number % ENTRIES) == (toggle | 0x4000_0008, len(sent), buffer)
            assert lan.frame(buffer, len(sent)) == sent
        assert set(lan.vm.interrupts) == {lan.device.interrupt_source}
        assert lan.ram[LIST + 16 : LIST + 4096] == bytes(4080), "no buffer is free, no frame was lost"

    scenario(body)


def test_several_frames_are_one_interrupt() -> None:
    async def body(lan: Lan) -> None:
        await lan.register(entries=32)
        for number in range(10):
            await lan.add(number)
        for number in range(10):
            lan.peer.send(to_guest(number))
        await lan.until(lambda: bool(lan.vm.interrupts))
        await lan.turns()
        assert len(lan.vm.interrupts) == 1
        assert [lan.entry(place)[0] for place in range(11)] == [0xC000_0008] * 10 + [0]

    scenario(body)


def test_frames_wait_for_buffers_and_are_counted_when_they_wait_in_vain() -> None:
    async def body(lan: Lan) -> None:
        await lan.register()
        lan.peer.send(to_guest(1))
        await lan.turns()
        await lan.add(0)
        await lan.until(lambda: lan.entry(0)[0] == 0xC000_0008)
        await lan.add(1, length=64)
        lan.peer.send(to_guest(2, 1000))
        lan.peer.send(to_guest(3, 20))
        await lan.until(lambda: lan.ram[LIST + DROPPED : LIST + DROPPED + 8] == bytes((0, 0, 0, 0, 0, 0, 0, 1)))
        await lan.until(lambda: lan.entry(1)[1] == 34)

    scenario(body)


def test_a_flood_is_bounded_and_the_wire_goes_on_after_it() -> None:
    async def body(lan: Lan) -> None:
        await lan.register(entries=1000)
        for number in range(WAITING_FRAMES + 500):
            lan.peer.send(to_guest(number, 20))
        await lan.turns()
        for number in range(20):
            await lan.add(number)
        await lan.until(lambda: lan.entry(19)[1] == 34)
        assert PATIENCE_S < WAIT_S

    scenario(body)


def test_metrics_say_what_was_sent_received_and_lost() -> None:
    async def body(lan: Lan) -> None:
        await lan.register()
        await lan.add(0, length=64)
        lan.peer.send(to_guest(1, 20))
        lan.peer.send(to_guest(2, 1000))
        await lan.until(lambda: lan.device.unbuffered == 1)
        lan.ram[0x8000:0x8064] = to_guest(3, 86)
        assert await lan.send(descriptor(0x8000, 100)) == H.SUCCESS
        traps = cast("TrapServicer", SimpleNamespace(sessions=lambda: {"test": lan.session}))
        found = {(sample.metric.name, *sample.labels[1:]): sample.value for sample in network_samples(traps)}
        assert found == {
            ("splitvisor_network_frames_total", hex(UNIT), "sent"): 1,
            ("splitvisor_network_bytes_total", hex(UNIT), "sent"): 100,
            ("splitvisor_network_dropped_frames_total", hex(UNIT), "sent"): 0,
            ("splitvisor_network_frames_total", hex(UNIT), "received"): 2,
            ("splitvisor_network_bytes_total", hex(UNIT), "received"): 34 + 1014,
            ("splitvisor_network_dropped_frames_total", hex(UNIT), "received"): 0,
            ("splitvisor_network_unbuffered_frames_total", hex(UNIT)): 1,
        }

    scenario(body)


def test_nothing_is_written_once_the_device_is_closed() -> None:
    async def body(lan: Lan) -> None:
        await lan.register()
        for number in range(4):
            await lan.add(number)
        lan.peer.send(to_guest(1))
        assert (await lan.call("H_FREE_LOGICAL_LAN", UNIT))[0] == H.SUCCESS
        before = bytes(lan.ram)
        for number in range(4):
            lan.peer.send(to_guest(number))
        await lan.turns()
        assert lan.ram == before
        assert await lan.add(0) == H.RESOURCE
        assert (await lan.call("H_FREE_LOGICAL_LAN", UNIT))[0] == H.RESOURCE
        assert await lan.register() == H.SUCCESS
        assert await lan.register() == H.RESOURCE
        await lan.session.reset()
        assert await lan.register() == H.SUCCESS

    scenario(body)


@pytest.mark.parametrize(
    "arguments",
    [
        (LIST + 8, descriptor(QUEUE, 80), FILTERS),
        (LIST, descriptor(QUEUE, 80), FILTERS + 1),
        (LIST, descriptor(QUEUE, 80), LIST),
        (LIST, descriptor(QUEUE, 80, 0), FILTERS),
        (LIST, descriptor(QUEUE + 8, 80), FILTERS),
        (LIST, descriptor(QUEUE, 81), FILTERS),
        (LIST, descriptor(QUEUE, 0), FILTERS),
        (LIST, descriptor(QUEUE, 0xFFFFF0), FILTERS),
        (LIST, descriptor(0xFFFF_FFF0, 80), FILTERS),
        (1 << 32, descriptor(QUEUE, 80), FILTERS),
        (PAGES * 4096, descriptor(QUEUE, 80), FILTERS),
        (LIST, descriptor(QUEUE, 80), PAGES * 4096),
    ],
)
def test_a_registration_that_cannot_be(arguments: Sequence[int]) -> None:
    async def body(lan: Lan) -> None:
        assert (await lan.call("H_REGISTER_LOGICAL_LAN", UNIT, *arguments, 0))[0] == H.PARAMETER
        assert await lan.register() == H.SUCCESS

    scenario(body)


@pytest.mark.parametrize(
    "word",
    [
        descriptor(BUFFERS, BUFFER, 0),
        descriptor(BUFFERS, 15),
        descriptor(BUFFERS + 2, BUFFER),
        descriptor(PAGES * 4096, BUFFER),
        descriptor(0xFFFF_FFFC, BUFFER),
    ],
)
def test_a_buffer_that_cannot_be(word: int) -> None:
    async def body(lan: Lan) -> None:
        await lan.register()
        assert (await lan.call("H_ADD_LOGICAL_LAN_BUFFER", UNIT, word))[0] == H.PARAMETER
        assert (await lan.call("H_ADD_LOGICAL_LAN_BUFFERS", UNIT, word, *[0] * 7))[0] == H.PARAMETER
        assert lan.device.receiver is not None
        assert lan.device.receiver.buffers.count == 0

    scenario(body)


def test_a_buffer_that_the_guest_unmaps_or_may_not_be_written_costs_its_frame_only() -> None:
    async def body(lan: Lan) -> None:
        await lan.register()
        assert await lan.add(0, length=64) == H.SUCCESS
        lan.tces[BUFFERS // 4096] = BUFFERS | 1
        lan.peer.send(to_guest(1, 20))
        await lan.turns()
        await lan.add(2)
        lan.peer.send(to_guest(2))
        await lan.until(lambda: lan.entry(0)[2] == 2)
        lan.tces[LIST // 4096] = lan.tces[QUEUE // 4096] = 0
        await lan.add(4)
        lan.peer.send(to_guest(3))
        await lan.turns()
        assert (await lan.call("H_FREE_LOGICAL_LAN", UNIT))[0] == H.SUCCESS

    scenario(body)


def test_several_buffers_come_with_one_call_and_one_goes_back() -> None:
    async def body(lan: Lan) -> None:
        assert (await lan.call("H_FREE_LOGICAL_LAN_BUFFER", UNIT, BUFFER))[0] == H.RESOURCE
        await lan.register()
        words = [descriptor(BUFFERS + number * BUFFER, BUFFER) for number in range(3)]
        assert (await lan.call("H_ADD_LOGICAL_LAN_BUFFERS", UNIT, *words, 0, *words, 0))[0] == H.SUCCESS
        assert lan.device.receiver is not None
        assert lan.device.receiver.buffers.count == 3
        lan.ram[BUFFERS + 2 * BUFFER] = 77
        assert (await lan.call("H_FREE_LOGICAL_LAN_BUFFER", UNIT, BUFFER))[0] == H.SUCCESS
        assert lan.entry(0) == (0x8000_0008, 0, 77)
        assert (await lan.call("H_FREE_LOGICAL_LAN_BUFFER", UNIT, BUFFER + 8))[0] == H.NOT_FOUND

    scenario(body)


def test_filters_filter() -> None:
    async def control(lan: Lan, flags: int, mac: bytes = GROUP) -> tuple[int, int]:
        result, (status,) = await lan.call("H_MULTICAST_CTRL", UNIT, flags, int.from_bytes(mac, "big"))
        return result, status

    async def body(lan: Lan) -> None:
        await lan.register(entries=64)
        for number in range(10):
            await lan.add(number)
        other_group, other = bytes.fromhex("01005e000002"), bytes.fromhex("020000000009")

        async def heard() -> set[bytes]:
            before = bytes(lan.ram[QUEUE : QUEUE + 1024])
            for destination in (MAC, BROADCAST, GROUP, other_group, other):
                lan.peer.send(to_guest(1, destination=destination))
            await lan.turns()
            found = set()
            for place in range(64):
                if lan.ram[QUEUE + 16 * place] != before[16 * place]:
                    buffer = lan.entry(place)[2]
                    found.add(lan.frame(buffer, 6))
                    await lan.add(buffer)
            return found

        assert await heard() == {MAC, BROADCAST, GROUP, other_group, other}
        assert await control(lan, 0xC0000 | 0x30000 | 1) == (H.SUCCESS, 0x30001)
        assert await heard() == {MAC, BROADCAST, GROUP}
        assert await control(lan, 2, other_group) == (H.NOT_FOUND, 0x30001)
        assert await control(lan, 1, other) == (H.PARAMETER, 0x30001)
        assert await control(lan, 2) == (H.SUCCESS, 0x30000)
        assert await heard() == {MAC, BROADCAST}
        assert await control(lan, 0x80000) == (H.SUCCESS, 0x10000)
        assert await heard() == {MAC}
        for number in range(255):
            assert (await control(lan, 1, bytes((1, 0, 0, 0, 0, number))))[0] == H.SUCCESS
        assert (await control(lan, 1))[0] == H.CONSTRAINED
        assert await control(lan, 3) == (H.SUCCESS, 0x10000)
        assert (await control(lan, 4))[0] == H.PARAMETER
        new = int.from_bytes(other, "big")
        assert (await lan.call("H_CHANGE_LOGICAL_LAN_MAC", UNIT, new))[0] == H.SUCCESS
        assert await heard() == {other}
        assert (await lan.call("H_CHANGE_LOGICAL_LAN_MAC", UNIT, int.from_bytes(GROUP, "big")))[0] == H.PARAMETER
        assert (await lan.call("H_CHANGE_LOGICAL_LAN_MAC", UNIT, 0))[0] == H.PARAMETER

    scenario(body)


def test_a_frame_is_said_to_be_good_when_the_guest_wants_it_and_it_is() -> None:
    async def body(lan: Lan) -> None:
        await lan.register()
        for number in range(3):
            await lan.add(number)
        segment = bytearray(frame4(tcp(b"payload")))
        segment[:12] = MAC + PEER
        good = with_checksum(bytes(segment))
        lan.peer.send(good)
        await lan.until(lambda: lan.entry(0)[0] == 0xC000_0008)
        assert await lan.call("H_ILLAN_ATTRIBUTES", UNIT, 0, 0) == (H.SUCCESS, (0x4A000,))
        assert await lan.call("H_ILLAN_ATTRIBUTES", UNIT, 0, 0x10006) == (H.SUCCESS, (0x5A006,))
        assert await lan.call("H_ILLAN_ATTRIBUTES", UNIT, 0x10000, 0) == (H.SUCCESS, (0x4A006,))
        assert await lan.call("H_ILLAN_ATTRIBUTES", UNIT, 0x2, 0x2) == (H.PARAMETER, (0x4A006,))
        assert await lan.call("H_ILLAN_ATTRIBUTES", UNIT, 0, 0x1) == (H.PARAMETER, (0x4A006,))
        lan.peer.send(good)
        await lan.until(lambda: lan.entry(1)[0] == 0xC100_0008)
        lan.peer.send(good[:-1] + b"?")
        await lan.until(lambda: lan.entry(2)[0] == 0xC000_0008)

    scenario(body)


@pytest.mark.parametrize("name", sorted(LIST_OF_CALLS))
def test_a_unit_that_is_no_network_device_is_a_bad_parameter(name: str) -> None:
    arguments = next(call.arguments or 0 for call in calls.CALLS if call.call_name == name)

    async def body(lan: Lan) -> None:
        assert (await lan.call(name, UNIT + 1, *[0] * (arguments - 1)))[0] == H.PARAMETER

    scenario(body)


def test_another_process_goes_on_where_this_one_was_killed() -> None:
    async def run() -> None:
        lan = Lan()
        await lan.begin()
        await lan.register()
        for number in range(8):
            await lan.add(number)
        await lan.call("H_MULTICAST_CTRL", UNIT, 0x40000 | 0x10000 | 1, int.from_bytes(GROUP, "big"))
        for number in range(ENTRIES + 2):
            lan.peer.send(to_guest(number))
        await lan.until(lambda: lan.entry(1)[0] == 0x4000_0008)
        (remembered,) = (spec.remembered for spec in lan.session.inventory())
        await lan.end()

        again = Lan(lan.vm, remembered)
        await again.begin()
        try:
            assert await again.device.ready() is not None
            assert again.device.filters.groups == {GROUP}
            assert await again.add(0) == H.SUCCESS, "the buffer that is free already is free once"
            receiver = again.device.receiver
            assert receiver is not None
            assert receiver.buffers.count == 1
            again.peer.send(to_guest(99, 500))
            await again.until(lambda: again.entry(2)[1] == 514)
            assert again.entry(2) == (0x4000_0008, 514, 0)
            assert again.frame(0, 514) == to_guest(99, 500)
        finally:
            await again.end()

    asyncio.run(run())


def test_a_snapshot_has_the_buffers_that_stand_nowhere_else() -> None:
    async def run() -> None:
        lan = Lan()
        await lan.begin()
        await lan.register(entries=2000)
        receiver = lan.device.receiver
        assert receiver is not None
        for number in range(SLOTS + 3):
            ioba = BUFFERS + 16 * number
            assert (await lan.call("H_ADD_LOGICAL_LAN_BUFFER", UNIT, descriptor(ioba, 16)))[0] == H.SUCCESS
        await lan.session.drain()
        before = bytes(lan.ram)
        lan.peer.send(to_guest(1, 0))
        await lan.turns()
        assert lan.ram == before, "guest memory is saved now"
        state = await lan.session.save()
        await lan.session.resumed()
        await lan.end()
        again = Lan(lan.vm)
        try:
            await again.session.restore(state)
            await again.session.resumed()
            assert await again.device.ready() is not None
            assert again.device.receiver is not None
            buffers = list(again.device.receiver.buffers)
            assert len(buffers) == SLOTS + 3
            assert sum(each.slot == NO_SLOT for each in buffers) == 3
        finally:
            await again.end()

    asyncio.run(run())


@pytest.mark.parametrize("state", [b"rubbish", b"", b"\x08\x01\x12\x01a"])
def test_a_state_that_is_not_one_is_refused(state: bytes) -> None:
    async def run() -> None:
        lan = Lan()
        with pytest.raises(StateError, match="l-lan at 0x71000000"):
            lan.device.restore(state)
        await lan.end()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "l-lan at 0x71000000: it has no net"),
        ({"net": "usr"}, "'usr' is no kind of network; did you mean user"),
        ({"net": "user", "mac": "1"}, "'1' is not a MAC address"),
        ({"net": "user", "speed": "1"}, "has no option 'speed'; it has: mac, net, pcap"),
    ],
)
def test_a_network_that_cannot_be_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(BusError, match=message):
        vio_session(FakeVm(devices=[trap_pb2.DeviceSpec(kind="l-lan", unit_address=UNIT, options=options)]))


def test_a_posted_frame_is_what_was_read_when_the_guest_sent_it() -> None:
    async def body(lan: Lan) -> None:
        frame = PEER + MAC + bytes(range(100))
        assert await lan.send(descriptor(0x8000, len(frame)), posted=frame) == H.DROPPED, "the device is closed"
        await lan.register()
        assert lan.posted("H_SEND_LOGICAL_LAN") == [UNIT]
        assert await lan.send(descriptor(0x8000, len(frame)), posted=frame) == H.SUCCESS
        await lan.until(lambda: lan.heard == [frame])
        assert (await lan.call("H_FREE_LOGICAL_LAN", UNIT))[0] == H.SUCCESS
        assert lan.posted("H_SEND_LOGICAL_LAN") == lan.posted("H_ADD_LOGICAL_LAN_BUFFER") == []

    scenario(body)


def test_buffers_are_posted_while_all_of_them_are_sure_to_find_room() -> None:
    async def body(lan: Lan) -> None:
        assert lan.posted("H_ADD_LOGICAL_LAN_BUFFER") == []
        await lan.register()
        lengths = count(16, 4)

        async def add_posted() -> int:
            buffer = descriptor(BUFFERS, next(lengths))
            return (await lan.call("H_ADD_LOGICAL_LAN_BUFFER", UNIT, buffer, buffers=b""))[0]

        for _ in range(MAX_POOLS - POSTED_BUFFERS):
            assert lan.posted("H_ADD_LOGICAL_LAN_BUFFER") == [UNIT]
            assert await add_posted() == H.SUCCESS
        assert await add_posted() == H.SUCCESS
        assert lan.posted("H_ADD_LOGICAL_LAN_BUFFER") == [], "so many may still be under way"
        assert [await add_posted() for _ in range(POSTED_BUFFERS)] == [H.SUCCESS] * (POSTED_BUFFERS - 1) + [H.RESOURCE]

    scenario(body)


def test_a_further_size_of_buffers_takes_the_place_of_one_that_is_used_up() -> None:
    buffers = FreeBuffers()
    for size in range(MAX_POOLS):
        assert buffers.add(0x1000, 64 * (size + 1)) is not None
    assert buffers.add(0x1000, 1000) is None
    taken = buffers.take(100)
    assert taken is not None
    assert taken.length == 128
    buffers.release(taken)
    assert buffers.add(0x1000, 1000) is not None
    assert buffers.count == MAX_POOLS
