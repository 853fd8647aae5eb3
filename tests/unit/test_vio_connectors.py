# SPDX-License-Identifier: GPL-2.0-or-later
"""Connectors: the guest's steps to take and give a device, and what it is told of the device."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest

from splitvisor.backend import Result
from splitvisor.backend.vio import BusError, VioSession
from splitvisor.backend.vio import connector_calls as connectors
from splitvisor.backend.vio.connector import Connector, State, slot_properties
from splitvisor.backend.vio.connector_calls import WORK_AREA_BYTES
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.vio import FIRST_SLOT_INDEX as INDEX_BASE
from splitvisor.papr.vio import SLOTS
from splitvisor.rpc import state_pb2, trap_pb2
from tests.fake_vm import FakeVm, make_call
from vio_service.console.vm_consoles import VmConsoles
from vio_service.session import vio_session

AREA = 0x2000
SLOT = INDEX_BASE + 1
ADDRESS = 0x7100_0001


def make_session() -> VioSession[VmConsoles]:
    """A bus with a console, and a terminal plugged into slot 1 that the guest has not taken."""
    session = vio_session(FakeVm(devices=[trap_pb2.DeviceSpec(kind="vty")]))
    device = vio_session(FakeVm(devices=[trap_pb2.DeviceSpec(kind="vty", unit_address=ADDRESS)])).bus.devices[ADDRESS]
    session.plug(slot(session), device, session.bus.node(device))
    return session


def slot(session: VioSession[VmConsoles], index: int = SLOT) -> Connector:
    connector = session.bus.connectors.find(index)
    assert connector is not None
    return connector


def set_indicator(session: VioSession[VmConsoles], kind: int, state: int, index: int = SLOT) -> int:
    answer, _ = make_call(session, connectors.set_indicator, kind, index, state, returns=1)
    assert isinstance(answer, int)
    return answer


def sense(session: VioSession[VmConsoles], index: int = SLOT, kind: int = 9003) -> list[int]:
    answer, _ = make_call(session, connectors.get_sensor_state, kind, index, returns=2)
    assert isinstance(answer, Result)
    return [int(word) for word in answer.returns]


def configure(session: VioSession[VmConsoles], area: int = AREA) -> int:
    answer, call = make_call(session, connectors.configure_connector, area, 0, returns=1)
    assert isinstance(answer, int)
    for block in call.writes:
        ram(session)[block.address : block.address + len(block.data)] = block.data
    return answer


def ram(session: VioSession[VmConsoles]) -> bytearray:
    assert isinstance(session.vm, FakeVm)
    return session.vm.ram.data


def start_configuring(session: VioSession[VmConsoles], index: int = SLOT) -> None:
    ram(session)[AREA : AREA + WORK_AREA_BYTES] = struct.pack(">2I", index, 0).ljust(WORK_AREA_BYTES, b"\xa5")


def take(session: VioSession[VmConsoles]) -> tuple[str, dict[str, bytes]]:
    """Take the device as Linux does; return its node."""
    assert set_indicator(session, 9003, 1) == 0
    assert set_indicator(session, 9001, 1) == 0
    start_configuring(session)
    names: list[str] = []
    properties: dict[str, bytes] = {}
    for _ in range(100):
        status = configure(session)
        data = bytes(ram(session)[AREA : AREA + WORK_AREA_BYTES])
        _, _, name_offset, length, offset = struct.unpack_from(">5I", data)
        name = data[name_offset : data.index(b"\0", name_offset)].decode()
        if status == 0:
            [node] = names
            return node, properties
        if status == 2:
            names.append(name)
        else:
            assert status == 3
            assert name not in properties
            properties[name] = data[offset : offset + length]
    raise AssertionError("configure-connector has no end")


def give(session: VioSession[VmConsoles]) -> None:
    assert set_indicator(session, 9001, 0) == 0
    assert set_indicator(session, 9003, 0) == 0


def test_an_item_is_the_same_when_the_call_is_made_again_before_its_reply() -> None:
    """A process may end before its reply: the next must not see in the work area what this one has answered."""
    session = make_session()
    assert [set_indicator(session, 9003, 1), set_indicator(session, 9001, 1)] == [0, 0]
    start_configuring(session)
    configure(session)
    given = bytes(ram(session))
    calls = [make_call(session, connectors.configure_connector, AREA, 0, returns=1) for _ in range(2)]
    assert [answer for answer, _ in calls] == [3, 3]
    assert calls[0][1].writes == calls[1][1].writes != []
    assert bytes(ram(session)) == given


def test_the_guest_takes_a_device_in_three_steps() -> None:
    session = make_session()
    assert sense(session) == [0, 2]
    node, properties = take(session)
    assert node == "vty@71000001"
    assert properties == {
        "name": b"vty\0",
        "reg": struct.pack(">I", ADDRESS),
        "device_type": b"serial\0",
        "compatible": b"hvterm1\0",
        "interrupts": struct.pack(">2I", 0x1101, 0),
        "ibm,my-drc-index": struct.pack(">I", SLOT),
    }
    assert slot(session).state is State.CONFIGURED
    assert sense(session) == [0, 1]


def test_a_device_that_was_given_back_unasked_can_be_taken_again() -> None:
    session = make_session()
    first = take(session)
    give(session)
    assert slot(session).state is State.UNUSABLE
    assert ADDRESS in session.bus.devices
    assert take(session) == first


def test_a_device_that_was_asked_for_goes_when_it_is_given_back() -> None:
    session = make_session()
    take(session)
    slot(session).removal_asked = True
    give(session)
    assert ADDRESS not in session.bus.devices
    assert slot(session).device is None
    assert isinstance(session.vm, FakeVm)
    assert session.vm.inventory_changes == 7, "plugged, three steps to take it and two to give it back, unplugged"
    assert set_indicator(session, 9003, 1) == -3
    assert sense(session) == [0, 2]


@pytest.mark.parametrize(
    ("done", "kind", "state", "status"),
    [
        ([], 9001, 1, -3),  # Nothing is connected before it is allocated.
        ([], 9001, 0, 0),
        ([], 9003, 0, 0),
        ([(9003, 1)], 9003, 1, 0),
        ([(9003, 1), (9001, 1)], 9003, 0, -3),  # Nothing is freed while it is connected.
        ([(9003, 1), (9001, 1)], 9001, 1, 0),
        ([(9003, 1), (9001, 1), (9001, 0)], 9003, 0, 0),
        ([], 9001, 2, -3),
        ([], 9003, 7, -3),
        ([], 9002, 3, 0),
        ([], 9002, 4, -3),
        ([], 9000, 1, -3),
    ],
)
def test_each_switch_works_where_papr_has_it(done: list[tuple[int, int]], kind: int, state: int, status: int) -> None:
    session = make_session()
    for step in done:
        assert set_indicator(session, *step) == 0
    assert set_indicator(session, kind, state) == status


STEPS: list[tuple[int, int] | str] = [(9003, 1), (9001, 1), "configure", (9001, 0), (9003, 0)]
"""How a guest takes a device and gives it back."""


def do(session: VioSession[VmConsoles], step: tuple[int, int] | str) -> None:
    if isinstance(step, tuple):
        assert set_indicator(session, *step) == 0
        return
    start_configuring(session)
    while (status := configure(session)) in (2, 3):
        pass
    assert status == 0


@pytest.mark.parametrize("made", range(len(STEPS) + 1))
@pytest.mark.parametrize("asked", [False, True], ids=["unasked", "asked"])
def test_a_successor_goes_on_wherever_the_guest_was(made: int, asked: bool) -> None:
    session = make_session()
    plugged = slot(session).node
    assert plugged is not None
    plugged.properties.append(trap_pb2.TreeProperty(name="interrupt-parent", value=b"\0\0\x7e\x01"))  # As for each added device.
    for step in STEPS[:made]:
        do(session, step)
    slot(session).removal_asked = asked and made > 2
    successor = vio_session(FakeVm(devices=session.inventory()))
    assert [slot(successor).save(), slot(successor).device is None] == [slot(session).save(), slot(session).device is None]
    # The call whose answer was lost comes again and changes nothing.
    for step in STEPS[max(0, made - 1) :]:
        do(successor, step)
    assert (slot(successor).device is None) == (asked and 2 < made < len(STEPS))


def test_a_successor_is_told_no_more_than_it_needs_and_believes_nothing() -> None:
    session = make_session()
    take(session)
    assert [spec.remembered for spec in session.inventory()] == [b"", b""], "a device as any bus would make it"
    give(session)
    [_, spec] = session.inventory()
    for remembered in (b"\xff", spec.remembered[:-1], state_pb2.VioConnectorState(index=SLOT, state=9).SerializeToString()):
        devices = [trap_pb2.DeviceSpec(kind="vty", unit_address=ADDRESS, remembered=remembered)]
        with pytest.raises(BusError, match="what is remembered of slot V1-C1 is unusable"):
            vio_session(FakeVm(devices=devices))


def test_an_empty_slot_cannot_be_taken_and_an_unknown_index_is_none() -> None:
    session = make_session()
    assert set_indicator(session, 9003, 1, INDEX_BASE + 5) == -3
    assert sense(session, INDEX_BASE + 5) == [0, 2]
    for index in (0, INDEX_BASE - 1, INDEX_BASE + SLOTS, 0xFFFF_FFFF):
        assert set_indicator(session, 9003, 1, index) == -3
        assert sense(session, index) == [-3, 0]
    assert sense(session, kind=9) == [-3, 0]


def test_only_what_is_unisolated_is_configured() -> None:
    session = make_session()
    for index, status in ((SLOT, -9003), (INDEX_BASE + 5, -9003), (7, -3)):
        start_configuring(session, index)
        assert configure(session) == status
    with pytest.raises(GuestAddressError):
        configure(session, (1 << 20) - WORK_AREA_BYTES + 1)


def test_configuring_can_begin_anew_in_the_middle() -> None:
    session = make_session()
    assert [set_indicator(session, 9003, 1), set_indicator(session, 9001, 1)] == [0, 0]
    start_configuring(session)
    assert [configure(session) for _ in range(3)] == [2, 3, 3]
    node, properties = take(session)
    assert (node, len(properties)) == ("vty@71000001", 6)


def test_a_node_that_does_not_fit_the_work_area_asks_for_more_memory() -> None:
    session = make_session()
    node = slot(session).node
    assert node is not None
    node.properties.insert(0, trap_pb2.TreeProperty(name="large", value=bytes(WORK_AREA_BYTES)))
    assert [set_indicator(session, 9003, 1), set_indicator(session, 9001, 1)] == [0, 0]
    start_configuring(session)
    assert [configure(session) for _ in range(3)] == [2, 3, 5]
    assert slot(session).state is State.UNISOLATED


def test_a_reset_leaves_what_is_plugged_in_to_the_guest_and_drops_requests() -> None:
    session = make_session()
    boot = slot(session, INDEX_BASE)
    boot.removal_asked = True
    assert isinstance(session.vm, FakeVm)
    told = session.vm.inventory_changes
    asyncio.run(session.reset())
    assert session.vm.inventory_changes == told + 1, "what a successor must know has changed"
    asyncio.run(session.reset())
    assert session.vm.inventory_changes == told + 1
    assert [slot(session).state, boot.state, boot.removal_asked] == [State.CONFIGURED, State.CONFIGURED, False]
    assert slot(session, INDEX_BASE + 2).state is State.UNUSABLE
    assert [node.path for node in session.nodes()][1:] == ["/vdevice/vty@71000000", "/vdevice/vty@71000001"]


def test_waiting_ends_with_the_guests_step_or_in_time() -> None:
    async def run() -> list[bool]:
        connector = slot(make_session())
        waiting = asyncio.create_task(connector.wait(lambda it: it.state is State.UNISOLATED, 10))
        await asyncio.sleep(0)
        connector.allocate()
        await asyncio.sleep(0)
        assert not waiting.done()
        connector.unisolate()
        return [await waiting, await connector.wait(lambda it: it.state is State.CONFIGURED, 0.01)]

    assert asyncio.run(run()) == [True, False]


def test_every_slot_is_described_once() -> None:
    properties = {entry.name: entry.value for entry in slot_properties()}
    indexes = struct.unpack(f">{SLOTS + 1}I", properties["ibm,drc-indexes"])
    assert (indexes[0], len(set(indexes[1:]))) == (SLOTS, SLOTS)
    assert properties["ibm,drc-power-domains"] == struct.pack(">I", SLOTS) + b"\xff" * 4 * SLOTS
    for name in ("ibm,drc-names", "ibm,drc-types"):
        count, texts = properties[name][:4], properties[name][4:].split(b"\0")
        assert (int.from_bytes(count), len(texts) - 1, texts[-1]) == (SLOTS, SLOTS, b"")
    assert len(set(properties["ibm,drc-names"][4:].split(b"\0"))) == SLOTS + 1


def test_no_order_of_calls_breaks_the_bus() -> None:
    choose = random.Random(4)
    session = make_session()
    seen = set()
    for _ in range(5000):
        index = choose.choice([INDEX_BASE, SLOT, INDEX_BASE + 2, choose.getrandbits(32)])
        match choose.randrange(4):
            case 0:
                status = set_indicator(session, choose.choice([9001, 9002, 9003]), choose.randrange(3), index)
            case 1:
                status = sense(session, index)[0]
            case 2:
                ram(session)[AREA : AREA + 8] = struct.pack(">2I", index, choose.choice([0, 1, 5, 6, 7, 0xFFFF_FFFF]))
                status = configure(session)
            case _:
                if (connector := session.bus.connectors.find(index)) is not None and choose.randrange(50) == 0:
                    connector.removal_asked = connector.device is not None
                continue
        seen.add(status)
        for connector in session.bus.connectors:
            assert connector.device is None or session.bus.devices[connector.unit_address] is connector.device
            assert connector.device is not None or connector.state is State.UNUSABLE
    assert seen <= {0, 2, 3, -3, -9003}
    assert session.bus.devices.keys() <= {0x7100_0000, ADDRESS}
