# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines: JSON off a terminal, with the service, the VM and the trap that is being handled."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator

import pytest
import structlog

from splitvisor.backend import Call, Hypercall, Session
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.process.logging import LogLevel, bind, clear, configure, trap_in_hand
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.acknowledgements import AcknowledgementSchedule
from splitvisor.trap.link import VmLink


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    yield
    clear()
    trap_in_hand.set(None)
    structlog.reset_defaults()


class _Failing(Session):
    def fail(self, call: Call) -> int:
        raise GuestAddressError(call.arguments[0], 8, 0x1000)

    calls = (Hypercall(0xF100, fail, arguments=1, section="a test", name="H_FAIL"),)


def test_a_line_names_the_service_the_vm_and_the_trap() -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, "vio_service", stream)
    bind(vm="demo")
    trap_in_hand.set((3, 17))
    structlog.get_logger().info("something", detail=5)
    line = json.loads(stream.getvalue())
    assert (line["service"], line["vm"], line["vcpu"], line["seq"]) == ("vio_service", "demo", 3, 17)
    assert (line["event"], line["detail"], line["level"]) == ("something", 5, "info")


def test_a_handlers_failure_is_logged_with_its_trap() -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, "vio_service", stream)

    async def handle() -> None:
        link = VmLink(pb.Hello(vm="demo", vcpus=2, ram_bytes=0x1000, incarnation=1), _Failing, AcknowledgementSchedule())
        link.receive(pb.AttachRequest(trap=pb.Trap(vcpu=1, sequence=1, route=0, arguments=[0x2000])))

    asyncio.run(handle())
    lines = [json.loads(text) for text in stream.getvalue().splitlines()]
    failure = next(line for line in lines if line["event"] == "guest gave a bad address")
    assert (failure["call"], failure["vcpu"], failure["seq"]) == ("H_FAIL", 1, 1)
    assert "0x2000" in failure["reason"]
