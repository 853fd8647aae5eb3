# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of a device's queue: whatever becomes of the messages, its guest finds each answer once and in order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.crq_device.crq_device import ENTRY, FORMAT
from examples.crq_device.test_crq_device import DATA_IOBA, PROGRAM, UNIT, Driver
from splitvisor.backend.vio import COMMAND
from splitvisor.machine.config import BackendAddress, Device
from splitvisor.papr.codes import H
from splitvisor.testing import SCRIPTED, BackendProgram, RunningProgram, StartMachine
from tests.component.test_fault_proxy import ThreadProxy

pytest_plugins = ["splitvisor.testing"]

TO_CPU = {"direction": "to-cpu", "messages": ["crq_entries"]}
FAULTS: dict[str, dict[str, Any]] = {
    "lose": {"every": 7, **TO_CPU},
    "duplicate": {"every": 2, **TO_CPU},
    "reorder": {"every": 3, **TO_CPU},
    "delay": {"seconds": 0.02, "probability": 0.5, **TO_CPU},
    "jitter": {"seconds": 0.02, **TO_CPU},
}
COUNT = 40


@pytest.fixture(params=FAULTS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(short_path: Path, kind: str) -> Iterator[ThreadProxy]:
    """The device's process, behind faults."""
    program = RunningProgram(BackendProgram("turners", [sys.executable, PROGRAM]), short_path)
    proxy = ThreadProxy(program.address, short_path, [{"kind": kind, **FAULTS[kind]}])
    yield proxy
    proxy.close()
    program.stop()


# The machine ends before the proxy: arguments are set up from left to right.
def test_answers_come_once_in_order(proxy: ThreadProxy, start_machine: StartMachine, kind: str) -> None:
    devices = (*SCRIPTED.devices, Device("turner", unit_address=UNIT, backend="turners"))
    backends = (BackendAddress("turners", proxy.address),)
    driver = Driver(start_machine((), replace(SCRIPTED, devices=devices, backends=backends)).guest)
    driver.begin()
    for tag in range(COUNT):
        assert driver.turn(b"answer %3d" % tag, tag=tag) == 10
    assert driver.guest.memory[driver.data : driver.data + 10] == (b"answer %3d" % (COUNT - 1))[::-1]
    for tag in range(COUNT):
        assert driver.send(ENTRY.pack(COMMAND, FORMAT, tag, 0, DATA_IOBA)) == H.SUCCESS
    assert [ENTRY.unpack(driver.answer())[2] for _ in range(COUNT)] == list(range(COUNT))
    assert driver.peek() == bytes(16)
    assert proxy.journal.counts[kind] > 0
