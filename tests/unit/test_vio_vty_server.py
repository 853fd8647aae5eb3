# SPDX-License-Identifier: GPL-2.0-or-later
"""A vty-server has the console of a VTY that is open to its VM: what one end writes the other reads, and nobody else types."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from splitvisor.backend import Call, Result
from splitvisor.backend.vio import VioSession
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2
from tests.fake_vm import FakeVm, make_call
from vio_service.console.console import INPUT_BYTES
from vio_service.console.exchange import partition_id
from vio_service.console.vm_consoles import ConsoleSettings, VmConsoles
from vio_service.devices.vty import calls as vty
from vio_service.devices.vty_server import calls
from vio_service.session import vio_session

CONSOLE, OPEN, SERVER = 0x7100_0000, 0x7100_0001, 0x7100_0002
NOBODY = (1 << 64) - 1
PAGE = 0x2000
OWN = partition_id("test")

Session = VioSession[VmConsoles]


def session(settings: ConsoleSettings, name: str = "test", server: str = "test") -> tuple[Session, FakeVm]:
    """A VM with a console of its own, a VTY that is open to the vty-servers of a VM, and a vty-server."""
    specs = [
        trap_pb2.DeviceSpec(kind="vty", unit_address=CONSOLE),
        trap_pb2.DeviceSpec(kind="vty", unit_address=OPEN, options={"server": server}),
        trap_pb2.DeviceSpec(kind="vty-server", unit_address=SERVER),
    ]
    vm = FakeVm(devices=specs)
    vm.name = name
    return vio_session(vm, consoles=settings), vm


def result(call: tuple[Any, Call]) -> int:
    answer = call[0]
    return answer.result if isinstance(answer, Result) else answer


def connect(bus: Session, partition: int = OWN, address: int = OPEN) -> int:
    return result(make_call(bus, calls.register_vterm, SERVER, partition, address))


def put(bus: Session, unit: int, text: bytes) -> int:
    return result(make_call(bus, vty.put_term_char, unit, len(text), *struct.unpack(">2Q", text.ljust(16, b"\0"))))


def get(bus: Session, unit: int) -> tuple[int, bytes]:
    answer, _ = make_call(bus, vty.get_term_char, unit)
    assert isinstance(answer, Result)
    if answer.result != H.SUCCESS:
        return answer.result, b""
    count, *words = answer.outputs
    return H.SUCCESS, struct.pack(">2Q", *words)[:count]


async def info(bus: Session, unit: int, before: tuple[int, int], page: int) -> int:
    return await calls.partner_info(bus, Call(vcpu=0, arguments=(unit, *before, page)))


async def partners(bus: Session) -> Sequence[tuple[int, int, bytes]]:
    """What a guest finds when it goes through the list."""
    found: list[tuple[int, int, bytes]] = []
    before = (NOBODY, NOBODY)
    while len(found) < 10:
        assert await info(bus, SERVER, before, PAGE) == H.SUCCESS
        page = bytes(bus.vm.memory.data[PAGE : PAGE + 96])  # type: ignore[attr-defined]  # FakeVm's
        before = struct.unpack_from(">QQ", page)
        if before == (NOBODY, NOBODY):
            return found
        found.append((*before, page[16:].split(b"\0")[0]))
    raise AssertionError("the list has no end")


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 10))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@in_loop
async def test_a_guest_finds_only_vtys_that_are_open_to_its_vm() -> None:
    settings = ConsoleSettings()
    bus, _ = session(settings)
    session(settings, "friend", server="test")
    session(settings, "stranger", server="friend")
    assert await partners(bus) == sorted([(OWN, OPEN, b"test-0x71000001"), (partition_id("friend"), OPEN, b"friend-0x71000001")])
    assert connect(bus, partition_id("stranger")) == H.PARAMETER
    assert connect(bus, OWN, CONSOLE) == H.PARAMETER
    assert connect(bus, NOBODY, NOBODY) == H.PARAMETER


@in_loop
async def test_what_one_end_writes_the_other_reads() -> None:
    bus, vm = session(ConsoleSettings())
    assert connect(bus) == H.SUCCESS
    assert put(bus, SERVER, b"to the vty\r") == H.SUCCESS
    assert get(bus, OPEN) == (H.SUCCESS, b"to the vty\r")
    assert 0x1101 in vm.interrupts
    assert put(bus, OPEN, b"0123456789abcdef") == H.SUCCESS
    assert put(bus, OPEN, b"more\n") == H.SUCCESS
    assert get(bus, SERVER) == (H.SUCCESS, b"0123456789abcdef")
    assert get(bus, SERVER) == (H.SUCCESS, b"more\n")
    assert get(bus, SERVER) == (H.SUCCESS, b"")


async def interrupted(vm: FakeVm, count: int) -> None:
    while len(vm.interrupts) < count:
        await asyncio.sleep(0.001)


@in_loop
async def test_output_interrupts_until_the_guest_has_read_it() -> None:
    """cpu_service drops pulses while the signal is off, and does not say so."""
    bus, vm = session(ConsoleSettings())
    connect(bus)
    put(bus, OPEN, b"early\n")
    await interrupted(vm, 3)
    assert set(vm.interrupts) == {0x1102}
    assert get(bus, SERVER) == (H.SUCCESS, b"early\n")
    assert get(bus, SERVER) == (H.SUCCESS, b"")
    before = len(vm.interrupts)
    await asyncio.sleep(0.1)
    assert len(vm.interrupts) == before
    put(bus, OPEN, b"late\n")
    await interrupted(vm, before + 1)


@in_loop
async def test_a_terminal_that_somebody_has_is_busy() -> None:
    settings = ConsoleSettings()
    bus, _ = session(settings)
    second, _ = session(settings, "second", server="second")
    console = bus.host.all()[1]
    typist = console.attach("typist", writer=True, force=False, replay=False)
    assert connect(bus) == H.BUSY
    console.detach(typist)
    assert connect(bus) == H.SUCCESS
    assert connect(bus) == H.SUCCESS, "it is its own already"
    assert connect(second) == H.PARAMETER
    assert result(make_call(bus, calls.free_vterm, SERVER)) == H.SUCCESS
    assert result(make_call(bus, calls.free_vterm, SERVER)) == H.SUCCESS
    assert (get(bus, SERVER)[0], put(bus, SERVER, b"x")) == (H.CLOSED, H.CLOSED)


@in_loop
async def test_who_is_forced_off_the_terminal_is_told() -> None:
    bus, _ = session(ConsoleSettings())
    connect(bus)
    put(bus, OPEN, b"last\n")
    bus.host.all()[1].attach("operator", writer=True, force=True, replay=False)
    assert put(bus, SERVER, b"x") == H.CLOSED
    assert get(bus, SERVER) == (H.SUCCESS, b"last\n")
    assert get(bus, SERVER)[0] == H.CLOSED


@in_loop
async def test_a_partner_that_does_not_read_makes_the_writer_wait() -> None:
    bus, _ = session(ConsoleSettings())
    connect(bus)
    for _ in range(INPUT_BYTES // 16):
        assert put(bus, SERVER, b"x" * 16) == H.SUCCESS
    assert put(bus, SERVER, b"y") == H.BUSY
    assert get(bus, OPEN) == (H.SUCCESS, b"x" * 16)
    assert put(bus, SERVER, b"y") == H.SUCCESS


@in_loop
async def test_the_end_of_the_partners_vm_closes_the_connection() -> None:
    settings = ConsoleSettings()
    bus, vm = session(settings)
    other, _ = session(settings, "other", server="test")
    assert connect(bus, partition_id("other")) == H.SUCCESS
    put(other, OPEN, b"good bye\n")
    await other.close()
    assert [address for _, address, _ in await partners(bus)] == [OPEN]
    await interrupted(vm, 1)
    assert get(bus, SERVER) == (H.SUCCESS, b"good bye\n")
    before = len(vm.interrupts)
    for _ in range(5):
        assert get(bus, SERVER)[0] == H.CLOSED
        await asyncio.sleep(0)
    assert len(vm.interrupts) == before, "Linux ignores it, and would read for ever"


@in_loop
async def test_a_reset_disconnects() -> None:
    bus, _ = session(ConsoleSettings())
    connect(bus)
    await bus.reset()
    assert get(bus, SERVER)[0] == H.CLOSED
    assert bus.host.all()[1].writer is None


@in_loop
async def test_a_connection_outlives_a_snapshot() -> None:
    bus, _ = session(ConsoleSettings())
    connect(bus)
    put(bus, OPEN, b"0123456789abcdef")
    put(bus, OPEN, b"rest\n")
    put(bus, SERVER, b"typed")
    assert get(bus, SERVER)[1] == b"0123456789abcdef"
    state = await bus.save()
    new, _ = session(ConsoleSettings())
    await new.restore(state)
    assert get(new, SERVER)[0] == H.CLOSED
    await new.resumed()
    assert get(new, SERVER) == (H.SUCCESS, b"rest\n")
    assert get(new, OPEN) == (H.SUCCESS, b"typed")
    put(new, OPEN, b"on\n")
    assert get(new, SERVER) == (H.SUCCESS, b"on\n")


@in_loop
async def test_another_unit_or_no_page_is_a_bad_parameter() -> None:
    bus, _ = session(ConsoleSettings())
    for unit in (CONSOLE, OPEN, 0, 0xFFFF_FFFF):
        assert await info(bus, unit, (NOBODY, NOBODY), PAGE) == H.PARAMETER
        assert result(make_call(bus, calls.register_vterm, unit, OWN, OPEN)) == H.PARAMETER
        assert result(make_call(bus, calls.free_vterm, unit)) == H.PARAMETER
    assert await info(bus, SERVER, (NOBODY, NOBODY), PAGE + 8) == H.PARAMETER
    with pytest.raises(GuestAddressError):
        await info(bus, SERVER, (NOBODY, NOBODY), 1 << 40)
