# SPDX-License-Identifier: GPL-2.0-or-later
"""Each service's state: saved, restored into a new session and saved again it is the same bytes; what does not fit is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_service.hypercalls.xics import FIRST_SOURCE, Xics
from hcall_service.device_tree_store import open_store
from hcall_service.platform.events import HOTPLUG_EVENTS, PlatformEvent
from hcall_service.session import PlatformSession
from hcall_service.trees.builder import HOTPLUG_SOURCE
from hcall_service.trees.update_dt import TreeUpdates
from of_client_service.client_interface import BootRequest
from of_client_service.session import ClientInterfaceSession
from of_client_service.terminal import TerminalInstance
from splitvisor.backend import Call, Session
from splitvisor.backend.vio import VioDevice, VioSession
from splitvisor.backend.vio.connector import State
from splitvisor.declarations.state import StateError
from splitvisor.papr.vio import FIRST_SLOT_INDEX as INDEX_BASE
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import state_pb2, trap_pb2
from splitvisor.tree import fdt
from tests.amounts import examples
from tests.fake_vm import FakeVm
from tests.unit.of_machine import RAM_BYTES, Client, sample_tree
from vio_service.console.transcript import TranscriptDirectory
from vio_service.console.vm_consoles import ConsoleSettings, VmConsoles
from vio_service.devices.nvram import Nvram
from vio_service.devices.vty import Vty
from vio_service.session import vio_session

DEVICES = (trap_pb2.DeviceSpec(kind="vty"), trap_pb2.DeviceSpec(kind="nvram"))
SLOT = INDEX_BASE + 5


async def _identity(_vm: str) -> bytes:
    return b""


# vio_service


def used_bus() -> VioSession[VmConsoles]:
    """A bus after a while: output, input that waits, nvram written, a terminal plugged in."""
    session = vio_session(FakeVm(devices=DEVICES))
    [vty], [nvram] = session.bus.all(Vty), session.bus.all(Nvram)
    vty.console.write(b"output " * 200_000)
    vty.console.push_input(b"typed")
    vty.read_block()
    vty.console.push_input(b"typed later")
    asyncio.run(nvram.store(100, b"kept"))
    connector = session.bus.connectors.find(SLOT)
    assert connector is not None
    device = Vty(session.vm, connector.unit_address, {})
    session.plug(connector, device, session.bus.node(device))
    connector.allocate()
    connector.removal_asked, connector.indicator = True, 2
    return session


def fresh_bus(*, moved: bool = True) -> VioSession[VmConsoles]:
    vm = FakeVm(devices=DEVICES)
    vm.moved = moved
    return vio_session(vm)


def test_a_bus_comes_back_with_everything_on_it() -> None:
    state = asyncio.run(used_bus().save())
    session = fresh_bus()
    asyncio.run(session.restore(state))
    assert asyncio.run(session.save()) == state
    [console, added], [nvram] = session.host.all(), session.bus.all(Nvram)
    assert console.push_input(b"typed before it runs") == 0
    asyncio.run(session.resumed())
    assert (console.output.end, console.input_received, console.peek_input(99)) == (1_400_000, 16, b"typed later")
    assert nvram.contents[100:104] == b"kept"
    assert added.unit_address == 0x7100_0005
    connector = session.bus.connectors.find(SLOT)
    assert connector is not None
    assert (connector.state, connector.removal_asked, connector.indicator) == (State.ALLOCATED, True, 2)
    assert connector.device is session.bus.devices[connector.unit_address]
    assert session.vm.interrupts == []  # type: ignore[attr-defined]  # FakeVm


def test_a_console_goes_on_where_it_was_only_when_its_vm_has_moved() -> None:
    old = used_bus()
    state = asyncio.run(old.save())
    for moved in (True, False):
        session = fresh_bus(moved=moved)
        asyncio.run(session.restore(state))
        assert (session.host.all()[0].instance == old.host.all()[0].instance) is moved


def test_no_input_is_taken_between_save_and_resumed() -> None:
    session = vio_session(FakeVm(devices=DEVICES))
    [console] = session.host.all()
    asyncio.run(session.save())
    assert console.push_input(b"too early") == 0
    asyncio.run(session.resumed())
    assert console.push_input(b"in time") == 7


def test_a_file_of_nvram_gets_what_was_saved(tmp_path: Path) -> None:
    async def store(path: Path) -> bytes:
        spec = trap_pb2.DeviceSpec(kind="nvram", options={"path": str(path)})
        session = vio_session(FakeVm(devices=(spec,)))
        await session.bus.all(Nvram)[0].store(0, b"saved")
        state = await session.save()
        await session.close()
        return state

    path = tmp_path / "nvram"
    state = asyncio.run(store(path))
    path.write_bytes(bytes(len(path.read_bytes())))

    async def restore() -> None:
        session = vio_session(FakeVm(devices=()))
        await session.restore(state)
        await session.close()

    asyncio.run(restore())
    assert path.read_bytes().startswith(b"saved")


def _vio(change: Callable[[state_pb2.VioState], None]) -> bytes:
    session = vio_session(FakeVm(devices=DEVICES))
    asyncio.run(session.bus.all(Nvram)[0].store(0, b"saved"))
    state = state_pb2.VioState.FromString(asyncio.run(session.save()))
    change(state)
    return state.SerializeToString()


def _vty(**fields: Any) -> Callable[[state_pb2.VioState], None]:
    def change(state: state_pb2.VioState) -> None:
        vty = state_pb2.VtyState.FromString(state.devices[0].state)
        for name, value in fields.items():
            setattr(vty, name, value)
        state.devices[0].state = vty.SerializeToString()

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: setattr(state, "version", 9), "vio_service: its state has version 9"),
        (lambda state: setattr(state.devices[0].spec, "kind", "tape"), "tape at 0x71000000"),
        (lambda state: state.devices.append(state.devices[0]), "another device has that address"),
        (lambda state: setattr(state.devices[1], "state", b""), "nvram at 0x71000001: its state has version 0"),
        (lambda state: state.devices[1].spec.options.update({"bytes": "8192"}), "65536 bytes were saved"),
        (lambda state: state.devices[1].spec.options.update({"path": "/dev/null/nvram"}), "/dev/null/nvram"),
        (lambda state: state.connectors.add(index=7, state=1), "no slot 0x7"),
        (lambda state: setattr(state.connectors[0], "state", 77), "77"),
        (lambda state: state.connectors[0].ClearField("node"), "node"),
        (_vty(version=2), "vty at 0x71000000: its state has version 2"),
        (_vty(output=b"xx", output_end=1), "2 bytes of output"),
        (_vty(input=b"xx", input_received=1), "2 bytes of input"),
        (_vty(input=bytes(70_000), input_received=70_000), "70000 bytes of input"),
    ],
)
def test_a_bus_that_does_not_fit_is_refused_by_name(change: Callable[[state_pb2.VioState], None], text: str) -> None:
    refused(vio_session(FakeVm(devices=DEVICES)), _vio(change), text)


def refused(session: Session, state: bytes, text: str) -> None:
    with pytest.raises(StateError, match=text) as error:
        asyncio.run(session.restore(state))
    assert len(str(error.value).splitlines()) == 1


# hcall_service


def platform(store_path: Path) -> PlatformSession:
    return PlatformSession(FakeVm(), _identity, TreeUpdates(open_store(str(store_path))))


def used_platform(store_path: Path) -> PlatformSession:
    session = platform(store_path)
    session.clock_offset = -5_000_000_000
    session.events.restore([PlatformEvent(HOTPLUG_EVENTS, HOTPLUG_SOURCE, b"entry")])
    blob = fdt.emit(sample_tree())
    for origin in (dt.TREE_ORIGIN_SEED, dt.TREE_ORIGIN_QUIESCE):
        session.tree_updates.store.put("test", origin, blob)
    return session


def test_a_platform_comes_back_with_its_trees(tmp_path: Path) -> None:
    old = used_platform(tmp_path / "old")
    state = asyncio.run(old.save())
    session = platform(tmp_path / "new")
    asyncio.run(session.restore(state))
    assert asyncio.run(session.save()) == state
    assert session.tree_updates.store.revisions("test") == old.tree_updates.store.revisions("test")
    assert session.vm.interrupts == []  # type: ignore[attr-defined]  # FakeVm
    for each in (old, session):
        each.tree_updates.store.close()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: setattr(state, "version", 3), "hcall_service: its state has version 3"),
        (lambda state: setattr(state, "clock_offset_seconds", 1 << 62), "cannot be that of a guest"),
        (lambda state: setattr(state.events[0], "source", 0x1100), "an event that cannot be"),
        (lambda state: state.events.extend([state.events[0]] * 64), "cannot be that of a guest"),
        (lambda state: state.revisions.reverse(), "out of order"),
        (lambda state: setattr(state.revisions[1], "sha256", b"x"), "revision 2 of the device tree is damaged"),
        (lambda state: setattr(state.revisions[0], "number", 0), "cannot be as saved"),
        (lambda state: state.revisions[0].ClearField("origin"), "cannot be as saved"),
    ],
)
def test_a_platform_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[state_pb2.PlatformState], None], text: str
) -> None:
    old = used_platform(tmp_path / "old")
    state = state_pb2.PlatformState.FromString(asyncio.run(old.save()))
    change(state)
    session = platform(tmp_path / "new")
    refused(session, state.SerializeToString(), text)
    assert session.tree_updates.store.head("test") == 0
    for each in (old, session):
        each.tree_updates.store.close()


# of_client_service


def used_interface() -> Client:
    client = Client()
    client.call("open", "/vdevice/vty@71000001")
    client.call("close", client.call("open", "/"))
    client.call("claim", 0x100_0000, 0x1000, 0)
    client.call("setprop", client.find("/chosen"), "linux,test", 0x20000, 16)
    terminals = [
        (ihandle, TerminalInstance(instance.package, instance.path, 0x7100_0000, b"typed", after_return=True))
        for ihandle, instance in client.of.instances.all()
    ]
    client.of.instances.restore(terminals, client.of.instances.last)
    client.of.boot_request = BootRequest("/disk", "quiet")
    return client


def frozen(state: bytes) -> state_pb2.ClientInterfaceState:
    """Without what goes on while this test runs."""
    parsed = state_pb2.ClientInterfaceState.FromString(state)
    parsed.ClearField("milliseconds")
    return parsed


def test_a_client_interface_comes_back() -> None:
    client = used_interface()
    state = asyncio.run(client.session.save())
    session = ClientInterfaceSession(FakeVm(size=RAM_BYTES), client.store)
    asyncio.run(session.restore(state))
    assert frozen(asyncio.run(session.save())) == frozen(state)
    assert 0 <= session.interface.started <= client.of.started + 1
    # A tree that the guest made without phandles, or with wrong ones, keeps those that were given out.
    assert [package.phandle for package in session.interface.tree.packages()] == [
        package.phandle for package in client.of.tree.packages()
    ]
    asyncio.run(session.interface.store_tree(dt.TREE_ORIGIN_QUIESCE))
    assert client.store.revisions[-1][0] == dt.TREE_ORIGIN_QUIESCE


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: setattr(state, "version", 2), "of_client_service: its state has version 2"),
        (lambda state: setattr(state, "tree", state.tree[:100]), "cannot be that of a guest"),
        (lambda state: state.phandles.pop(), "phandles for"),
        (lambda state: state.phandles.__setitem__(1, state.phandles[0]), "phandles for"),
        (lambda state: state.claims.append(5), "claim has no end"),
        (lambda state: state.claims.extend([0, 0x1000]), "claims that overlap"),
        (lambda state: state.claims.extend([RAM_BYTES, RAM_BYTES + 1]), "outside of RAM"),
        (lambda state: setattr(state, "last_ihandle", 1), "never given out"),
        (lambda state: setattr(state.instances[0], "phandle", 0xDEAD), "a package that there is not"),
        (lambda state: state.instances.append(state.instances[0]), "instances"),
        (lambda state: setattr(state, "growth", 1 << 30), "grown too much"),
        (lambda state: setattr(state.boot_request, "path", "x" * 5000), "too many characters"),
    ],
)
def test_a_client_interface_that_does_not_fit_is_refused(
    change: Callable[[state_pb2.ClientInterfaceState], None], text: str
) -> None:
    client = used_interface()
    state = state_pb2.ClientInterfaceState.FromString(asyncio.run(client.session.save()))
    change(state)
    refused(ClientInterfaceSession(FakeVm(size=RAM_BYTES), client.store), state.SerializeToString(), text)


# All of them.


class _Stateless(Session):
    """A back end that keeps nothing."""


def _names_the_version(state: bytes) -> bool:
    """Whether the bytes could be a state: all have the version in field 1, and a VM without devices has nothing else."""
    try:
        return state_pb2.PlatformState.FromString(state).version == 1
    except DecodeError:
        return False


@given(st.binary(min_size=1, max_size=300).filter(lambda state: not _names_the_version(state)))
@settings(max_examples=examples(60))
def test_rubbish_is_refused_by_every_session(state: bytes) -> None:
    client = Client()
    sessions: list[Session] = [
        _Stateless(FakeVm()),
        vio_session(FakeVm(devices=DEVICES)),
        PlatformSession(FakeVm(), _identity, TreeUpdates(open_store(":memory:"))),
        ClientInterfaceSession(FakeVm(size=RAM_BYTES), client.store),
    ]
    for session in sessions:
        with pytest.raises(StateError):
            asyncio.run(session.restore(state))
        if isinstance(session, PlatformSession):
            session.tree_updates.store.close()


def test_a_device_that_keeps_nothing_refuses_a_state() -> None:
    class Lamp(VioDevice):
        kind, node_name, device_type, compatible = "lamp", "lamp", "lamp", "lamp"

    lamp = Lamp(FakeVm(), 0x7100_0000, {})
    lamp.restore(lamp.save())
    with pytest.raises(StateError, match="lamp at 0x71000000"):
        lamp.restore(b"x")


# The interrupt controllers.


def controllers(servers: int = 2) -> tuple[Xics, list[bool]]:
    lines = [False] * servers
    return Xics(servers, lines.__setitem__, lambda: 0), lines


def test_interrupts_come_back_with_their_lines() -> None:
    xics, lines = controllers()
    for number in range(4):
        xics.set_xive(None, (FIRST_SOURCE + number, number % 2, 5 + number), 1)  # type: ignore[arg-type]  # unused vCPU
    xics.int_off(None, (FIRST_SOURCE + 3,), 1)  # type: ignore[arg-type]  # unused vCPU
    xics._icps[0].cppr = 0xFF
    for number in range(4):
        xics.pulse(FIRST_SOURCE + number)
    assert lines == [True, False]
    state = xics.save()
    again, lines = controllers()
    again.restore(state)
    assert again.save() == state
    assert lines == [True, False]
    assert again.accept(0) & 0xFF_FFFF == FIRST_SOURCE


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.presenters.pop(),
        lambda state: setattr(state.presenters[0], "cppr", 256),
        lambda state: setattr(state.presenters[0], "xisr", 77),
        lambda state: state.presenters[0].waiting.append(1),
        lambda state: state.sources.add(number=1),
        lambda state: state.sources.add(number=FIRST_SOURCE, server=2),
        lambda state: state.sources.add(number=FIRST_SOURCE, priority=256),
    ],
)
def test_interrupts_that_cannot_be_are_refused(change: Callable[[state_pb2.SavedInterrupts], None]) -> None:
    xics, _ = controllers()
    state = xics.save()
    change(state)
    with pytest.raises(ValueError, match=r"."):
        controllers()[0].restore(state)


def test_transcripts_of_a_restored_bus_have_what_its_consoles_print_from_then_on(tmp_path: Path) -> None:
    old = vio_session(FakeVm(devices=(*DEVICES, trap_pb2.DeviceSpec(kind="vty"))))
    for console in old.host.all():
        console.write(b"printed before")
    state = asyncio.run(old.save())
    # The second terminal was added while the machine ran: its configuration does not know it.
    session = vio_session(FakeVm(devices=DEVICES), None, ConsoleSettings(transcripts=TranscriptDirectory(tmp_path)))
    asyncio.run(session.restore(state))
    for sequence, console in enumerate(session.host.all(), 1):
        session.host.print(Call(vcpu=0, arguments=(), sequence=sequence), console, b"printed later")
    session.commit()
    assert [console.output.end for console in session.host.all()] == [27, 27]
    assert [Path(console.transcript).read_bytes() for console in session.host.all()] == [b"printed later"] * 2
    asyncio.run(session.replaced())
