# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a queue whose device needs time for it: the guest asks again, and has its memory for itself only then."""

from __future__ import annotations

import asyncio

import pytest

from splitvisor.backend import Call
from splitvisor.backend.vio import CrqDevice, DeviceKind, VioSession, crq
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2
from tests.fake_vm import FakeVm
from tests.scsi_host import run, until
from vio_service import session as bus
from vio_service.console.vm_consoles import VmConsoles
from vio_service.session import vio_session

UNIT = 0x7100_0020
SOON_S = 0.01


class SlowDevice(CrqDevice):
    """One whose transfers end when a test says so."""

    kind = node_name = "slow-test"
    device_type = "test"
    compatible = "test,slow"

    def plugged(self, host: object) -> None:
        del host
        self.ended = asyncio.Event()
        self.closings = 0

    async def closed(self) -> None:
        self.closings += 1
        await self.ended.wait()


@pytest.fixture(autouse=True)
def slow_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bus.KINDS, "slow-test", DeviceKind(SlowDevice))
    monkeypatch.setattr(crq, "FREE_S", SOON_S)
    monkeypatch.setattr(crq, "STOP_S", SOON_S)


def make() -> tuple[VioSession[VmConsoles], SlowDevice]:
    session = vio_session(FakeVm(devices=[trap_pb2.DeviceSpec(kind="slow-test", unit_address=UNIT)]))
    device = session.bus.find(UNIT, SlowDevice)
    assert device is not None
    return session, device


def test_a_queue_that_does_not_end_in_time_is_freed_when_it_has() -> None:
    async def test() -> None:
        session, device = make()
        call = Call(vcpu=0, arguments=(UNIT,))
        assert crq.register(session, call) == H.SUCCESS
        assert await crq.free(session, call) == H.LONG_BUSY_100_MSEC
        assert not device.queue_open
        assert device.transport().queue_open, "or cpu_service would free it without a word"
        assert await crq.free(session, call) == H.LONG_BUSY_100_MSEC
        device.ended.set()
        assert await crq.free(session, call) == H.SUCCESS
        assert not device.transport().queue_open
        assert await crq.free(session, call) == H.SUCCESS
        assert device.closings == 1
        assert crq.register(session, call) == H.SUCCESS

    run(test())


def test_a_reset_waits_for_so_long_and_a_queue_after_it_ends_by_itself() -> None:
    async def test() -> None:
        session, device = make()
        device.open_queue()
        await session.reset()
        assert device.closings == 1
        device.open_queue()
        device.ended.set()
        assert await crq.free(session, Call(vcpu=0, arguments=(UNIT,))) == H.SUCCESS
        assert device.closings == 2

    run(test())


def test_a_reset_waits_for_all_queues_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crq, "STOP_S", 60.0)

    async def test() -> None:
        specs = [trap_pb2.DeviceSpec(kind="slow-test", unit_address=UNIT + number) for number in range(3)]
        session = vio_session(FakeVm(devices=specs))
        devices = session.bus.all(SlowDevice)
        for device in devices:
            device.open_queue()
        resetting = asyncio.create_task(session.reset())
        await until(lambda: [device.closings for device in devices] == [1, 1, 1])
        for device in devices:
            device.ended.set()
        await resetting

    run(test())
