# SPDX-License-Identifier: GPL-2.0-or-later
"""Posted calls are acknowledged soon by a service that is idle, together by one that is busy, and before credit runs short."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from splitvisor.backend import Call, Hypercall, Posted
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.acknowledgements import CREDIT_PART, LONGEST_S, VMS_AT_ONCE, AcknowledgementSchedule, VmAcknowledgements

DEADLINE_S = 10.0
CALLS_OF_CREDIT = 100


def posted(calls_of_credit: int) -> Hypercall:
    def handler(_session: object, _call: Call) -> int:
        return 0

    policy = Posted(calls_of_credit * 16, key_argument=0, size_argument=1, max_size=16, key_values=lambda _session: (0,))
    return Hypercall(0xF000, handler, arguments=2, section="test", posted=policy)


class Service:
    """The acknowledgements of one VM or more, and what was sent, in order."""

    def __init__(self, credit: int = CALLS_OF_CREDIT) -> None:
        self.schedule = AcknowledgementSchedule()
        self.said: list[tuple[int, int]] = []
        self._credit = credit
        self.vm = self.new_vm()

    def new_vm(self) -> VmAcknowledgements:
        return VmAcknowledgements(self.schedule, [posted(self._credit)], self._say)

    def _say(self, message: pb.AttachResponse) -> None:
        self.said.append((message.acknowledge.vcpu, message.acknowledge.sequence))

    async def until(self, count: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.said) < count:
                meanwhile()
                await asyncio.sleep(0)


def run(test: Callable[[Service], Awaitable[None]], credit: int = CALLS_OF_CREDIT) -> Service:
    async def inside() -> Service:
        service = Service(credit)
        await test(service)
        return service

    return asyncio.run(inside())


def test_an_idle_service_acknowledges_the_last_call_of_each_vcpu() -> None:
    async def test(service: Service) -> None:
        service.vm.add({0: 1}, 1, 0)
        service.vm.add({0: 3, 1: 1}, 3, 0)
        assert not service.said
        await service.until(2)

    assert run(test).said == [(0, 3), (1, 1)]


def test_the_calls_of_many_vms_are_acknowledged_a_few_at_a_time() -> None:
    async def test(service: Service) -> None:
        for vm in range(3 * VMS_AT_ONCE):
            service.new_vm().add({vm: 1}, 1, 0)
        await service.until(1)
        assert len(service.said) == VMS_AT_ONCE
        await service.until(3 * VMS_AT_ONCE)

    assert run(test).said == [(vm, 1) for vm in range(3 * VMS_AT_ONCE)]


def test_a_busy_service_acknowledges_when_the_oldest_has_waited_long_enough() -> None:
    async def test(service: Service) -> None:
        began = time.monotonic()
        sequence = 0

        def request() -> None:
            nonlocal sequence
            service.schedule.requests += 1
            if sequence < CALLS_OF_CREDIT // CREDIT_PART:
                sequence += 1
                service.vm.add({0: sequence}, 1, 0)

        await service.until(1, request)
        assert time.monotonic() - began >= LONGEST_S
        assert service.said[0][1] > 1, "together"

    run(test)


@pytest.mark.parametrize("credit", [CALLS_OF_CREDIT, 1])
def test_credit_does_not_run_short_meanwhile(credit: int) -> None:
    async def test(service: Service) -> None:
        part = credit // CREDIT_PART
        if part:
            service.vm.add({0: part}, part, 0)
        assert not service.said
        service.vm.add({0: part + 1}, 1, 0)
        assert service.said == [(0, part + 1)]

    run(test, credit)


def test_what_was_said_in_another_way_is_not_said_again() -> None:
    async def test(service: Service) -> None:
        service.vm.add({0: 7}, 1, 0)
        service.vm.clear()
        service.new_vm().add({1: 1}, 1, 0)
        await service.until(1)

    assert run(test).said == [(1, 1)]
