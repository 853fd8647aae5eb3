# SPDX-License-Identifier: GPL-2.0-or-later
"""The VIO bus: addresses, interrupt sources, nodes, signals, reset."""

from __future__ import annotations

import asyncio
import random
import struct
from contextlib import suppress

import pytest

from splitvisor.backend import Hypercall, Result, RtasCall
from splitvisor.backend.vio import BusError, DeviceKind, VioDevice, VioSession
from splitvisor.backend.vio.session import quiesce
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.codes import RtasStatus
from splitvisor.papr.vio import interrupt_source
from splitvisor.rpc import trap_pb2
from tests.fake_vm import FakeVm, make_call
from vio_service import session as bus
from vio_service.console.vm_consoles import VmConsoles
from vio_service.session import CALLS, vio_session


class DmaDevice(VioDevice):
    """Stands for v-scsi and l-lan: a DMA window and an interrupt that can be turned off."""

    kind = "dma-test"
    node_name = "dma"
    device_type = "test"
    compatible = "test,dma"
    signal_mask = 1
    has_dma = True


def spec(kind: str, unit_address: int = 0, **options: str) -> trap_pb2.DeviceSpec:
    return trap_pb2.DeviceSpec(kind=kind, unit_address=unit_address, options=options)


def make_session(*specs: trap_pb2.DeviceSpec) -> VioSession[VmConsoles]:
    return vio_session(FakeVm(devices=specs))


def addresses(session: VioSession[VmConsoles]) -> list[tuple[int, str]]:
    return [(device.unit_address, device.kind) for device in session.bus.devices.values()]


@pytest.fixture
def dma_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bus.KINDS, "dma-test", DeviceKind(DmaDevice))


def test_serial_devices_get_the_first_free_addresses_whatever_the_order_of_the_configuration() -> None:
    session = make_session(spec("nvram"), spec("vty"), spec("vty"))
    assert addresses(session) == [(0x71000000, "vty"), (0x71000001, "vty"), (0x71000002, "nvram")]


def test_stated_addresses_are_kept_and_skipped_when_others_are_chosen() -> None:
    session = make_session(spec("vty"), spec("nvram", 0x71000000), spec("vty", 0x30000000))
    assert addresses(session) == [(0x30000000, "vty"), (0x71000000, "nvram"), (0x71000001, "vty")]


def test_a_kind_that_is_not_here_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        BusError,
        match=r"no kind of device 'watchdog' \(it has: l-lan, nvram, v-scsi, vty, vty-server\); place it at a back end that has",
    ):
        make_session(spec("watchdog"), spec("vty"))


def test_a_back_end_with_other_slots_uses_those() -> None:
    vm = FakeVm(devices=[spec("vty"), spec("vty"), spec("vty", 0x30000000)])
    vm.slots = range(60, 62)
    session = vio_session(vm)
    assert addresses(session) == [(0x30000000, "vty"), (0x7100003C, "vty"), (0x7100003D, "vty")]
    assert [connector.index for connector in session.bus.connectors] == [0x3000003C, 0x3000003D]
    assert session.nodes()[0] == make_session().nodes()[0], "the bus's node is the same from every back end"


@pytest.mark.parametrize(("slots", "own"), [(range(60, 64), "0x7100003c to 0x7100003f"), (range(0), "none")])
def test_a_slot_of_another_back_end_is_refused(slots: range, own: str) -> None:
    vm = FakeVm(devices=[spec("vty", 0x71000005)])
    vm.slots = slots
    with pytest.raises(BusError, match=f"0x71000005, a slot of another back end; vio_service has {own}: give it one of those"):
        vio_session(vm)


def test_only_the_back_end_with_the_first_slot_has_the_calls_that_name_no_device() -> None:
    vm = FakeVm(devices=[spec("vty")])
    vm.slots = range(60, 64)
    second = vio_session(vm)
    missing = {call.call_name for call in make_session().calls} - {call.call_name for call in second.calls}
    assert missing == {"display-character", "nvram-fetch", "nvram-store"}
    assert all(call.key is not None or call.everybody for call in second.calls)


def test_more_devices_than_slots_are_refused() -> None:
    vm = FakeVm(devices=[spec("vty")] * 3)
    vm.slots = range(62, 64)
    with pytest.raises(BusError, match="3 devices need a slot and vio_service has 2 free; give it more"):
        vio_session(vm)


def test_a_second_device_at_an_address_is_refused_with_both_names() -> None:
    with pytest.raises(BusError, match=r"vty and nvram both have unit address 0x71000005"):
        make_session(spec("vty", 0x71000005), spec("nvram", 0x71000005))


def test_two_devices_that_would_share_an_interrupt_source_are_refused() -> None:
    with pytest.raises(BusError, match=r"0x71000001 and vty at 0x71000101 would share interrupt source 0x1101"):
        make_session(spec("vty", 0x71000001), spec("vty", 0x71000101))


def test_more_devices_than_interrupt_sources_are_refused() -> None:
    with pytest.raises(BusError, match="room for 256"):
        make_session(*[spec("vty")] * 257)
    assert len(make_session(*[spec("vty")] * 64).bus.devices) == 64


def test_an_unknown_option_is_refused_with_those_that_exist() -> None:
    with pytest.raises(BusError, match=r"has no option 'size'; it has: bytes, path"):
        make_session(spec("nvram", size="65536"))


@pytest.mark.parametrize(
    ("address", "source"),
    [(0x71000000, 0x1100), (0x710000FF, 0x11FF), (0x30000000, 0x11F0), (0x30003000, 0x11F3), (0x2000, 0x1102)],
)
def test_interrupt_sources_follow_the_unit_address(address: int, source: int) -> None:
    assert interrupt_source(address) == source


def test_nodes_start_with_the_bus_and_describe_each_device() -> None:
    nodes = make_session(spec("vty"), spec("nvram")).nodes()
    assert [node.path for node in nodes] == ["/vdevice", "/vdevice/vty@71000000", "/vdevice/nvram@71000001"]
    bus_properties, vty, nvram = ({prop.name: prop.value for prop in node.properties} for node in nodes)
    slots = {name: bus_properties.pop(name) for name in sorted(bus_properties) if name.startswith("ibm,drc-")}
    assert list(slots) == ["ibm,drc-indexes", "ibm,drc-names", "ibm,drc-power-domains", "ibm,drc-types"]
    assert bus_properties == {
        "device_type": b"vdevice\0",
        "compatible": b"IBM,vdevice\0",
        "#address-cells": struct.pack(">I", 1),
        "#size-cells": struct.pack(">I", 0),
        "#interrupt-cells": struct.pack(">I", 2),
        "interrupt-controller": b"",
    }
    assert vty == {
        "reg": struct.pack(">I", 0x71000000),
        "device_type": b"serial\0",
        "compatible": b"hvterm1\0",
        "interrupts": struct.pack(">2I", 0x1100, 0),
        "ibm,my-drc-index": struct.pack(">I", 0x30000000),
    }
    assert nvram["#bytes"] == struct.pack(">I", 65536)


@pytest.mark.usefixtures("dma_kind")
def test_a_device_with_a_dma_window_states_it_in_its_node_and_description() -> None:
    device = make_session(spec("dma-test")).bus.devices[0x71000000]
    properties = {prop.name: prop.value for prop in device.node().properties}
    assert properties["ibm,my-dma-window"] == struct.pack(">5I", 0x71000000, 0, 0, 0, 0x10000000)
    assert device.describe().liobn == 0x71000000


@pytest.mark.usefixtures("dma_kind")
def test_every_device_has_a_transport() -> None:
    [terminal, device] = make_session(spec("vty"), spec("dma-test")).transports()
    assert (terminal.unit_address, terminal.signal_mask, terminal.window_bytes) == (0x71000000, 0, 0)
    assert (device.unit_address, device.window_bytes, device.has_queue) == (0x71000001, 0x1000_0000, False)
    assert device.interrupt_source == 0x1101


@pytest.mark.usefixtures("dma_kind")
@pytest.mark.parametrize("how", ["quiesce", "reset"])
def test_quiesce_and_reset_stop_devices_before_they_reset_them(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(spec("dma-test"))
    done: list[str] = []
    device = session.bus.devices[0x71000000]

    async def stop() -> None:
        done.append("stop")

    monkeypatch.setattr(device, "stop", stop)
    monkeypatch.setattr(device, "reset", lambda: done.append("reset"))
    if how == "quiesce":
        assert make_call(session, quiesce)[0] == RtasStatus.SUCCESS
    else:
        asyncio.run(session.reset())
    assert done == ["stop", "reset"]


def test_every_call_is_declared_once() -> None:
    hypercalls = [call.token for call in CALLS if isinstance(call, Hypercall)]
    rtas_calls = [call.name for call in CALLS if isinstance(call, RtasCall)]
    assert len(set(hypercalls)) == len(hypercalls) == 19
    connectors = ["get-sensor-state", "ibm,configure-connector"]
    assert sorted(rtas_calls) == ["display-character", *connectors, "nvram-fetch", "nvram-store", "quiesce", "set-indicator"]


@pytest.mark.usefixtures("dma_kind")
def test_no_arguments_make_a_call_fail_otherwise_than_by_a_bad_address() -> None:
    session = make_session(spec("vty"), spec("nvram"), spec("dma-test"))
    choose = random.Random(20)
    edges = [0, 1, 16, 17, 512, 0x1000, 0x10000, 0xFFFFF, 0x10000000, 0x71000000, 0x71000001, 0x71000002, 0xFFFFFFFF]
    wide = [*edges, 0xFFFFFFF000, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]
    for _ in range(200):
        for call in session.calls:
            words, count = (wide, call.arguments) if isinstance(call, Hypercall) else (edges, call.arguments)
            arguments = choose.choices(words, k=choose.randrange(4) if count is None else count)
            with suppress(GuestAddressError):
                answer, _ = make_call(session, call.handler, *arguments, returns=2)
                assert isinstance(answer, Result | int)
