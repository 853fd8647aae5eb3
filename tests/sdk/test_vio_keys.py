# SPDX-License-Identifier: GPL-2.0-or-later
"""Two back ends of VIO devices in one machine, and a guest that gives any LIOBN, unit address and DRC index.

Each call reaches the back end whose device or slot it names, and nobody when it names none.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from splitvisor.backend import Call, Hypercall
from splitvisor.backend.vio import PAGE_BYTES, WINDOW_BYTES, DeviceKind, VioBackend, VioDevice, VioSession, by_address, kinds
from splitvisor.machine.config import Device, MachineConfig
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.testing import SCRIPTED, RunningMachine, ScriptedGuest, Traps

pytest_plugins = ["splitvisor.testing"]

CALLS = int(os.environ.get("SPLITVISOR_RANDOM_CALLS", "20000")) // 4
SEED = int(os.environ.get("SPLITVISOR_RANDOM_SEED", "1"))
H_COUNT = 0xF120
NAMES = ("left", "right")
FIRST_SLOTS = {"left": 60, "right": 56}
"""The back end that is named first has the last four slots."""
SLOT_ADDRESS, SLOT_INDEX = 0x7100_0000, 0x3000_0000
ENTITY_SENSE = 9003
PAGES = WINDOW_BYTES // PAGE_BYTES
LISTED = 8
"""Entries of a list for H_PUT_TCE_INDIRECT."""


class Probe(VioDevice):
    """Counts its calls, and has a window."""

    kind = node_name = device_type = "probe"
    compatible = "test,probe"
    has_dma = True
    signal_mask = 1
    calls_made = 0


def count(session: VioSession[Any], call: Call) -> int:
    """H_COUNT(unit address)."""
    probe = session.bus.find(call.arguments[0] & 0xFFFF_FFFF, Probe)
    if probe is None:
        return H.PARAMETER
    probe.calls_made += 1
    return H.SUCCESS


KIND = DeviceKind(Probe, (Hypercall(H_COUNT, count, arguments=1, section="tests", name="H_COUNT", key=by_address(Probe)),))


@pytest.fixture
def backends() -> Sequence[VioBackend]:
    return [VioBackend(name, kinds(KIND)) for name in NAMES]


@pytest.fixture
def machine_config() -> MachineConfig:
    """The same kind of device at two back ends, two at each."""
    placed = tuple(Device("probe", backend=name) for name in NAMES for _ in range(2))
    return replace(SCRIPTED, devices=(*SCRIPTED.devices, *placed))


@pytest.fixture
def probes(machine: RunningMachine) -> dict[int, Probe]:
    """Of both back ends, by unit address."""
    found: dict[int, Probe] = {}
    for name in NAMES:
        session = machine.session(name)
        assert isinstance(session, VioSession)
        found |= {probe.unit_address: probe for probe in session.bus.all(Probe)}
    assert sorted(found) == [SLOT_ADDRESS + slot for slot in (56, 57, 60, 61)]
    return found


def number(source: random.Random, known: Sequence[int]) -> int:
    """A key: of a device, beside one, with something in its upper half, or nonsense."""
    match source.randrange(5):
        case 0:
            return source.getrandbits(64)
        case 1:
            return source.choice(known) + source.randrange(-3, 4)
        case 2:
            return source.choice(known) | source.getrandbits(32) << 32
        case _:
            return source.choice(known)


def test_entries_are_in_the_window_that_is_named_and_nowhere_else(
    guest: ScriptedGuest, machine: RunningMachine, probes: dict[int, Probe], traps: Traps
) -> None:
    source = random.Random(SEED)
    entries = [source.getrandbits(64) for _ in range(LISTED)]
    area = guest.place(b"".join(entry.to_bytes(8, "big") for entry in entries).ljust(2 * PAGE_BYTES, b"\0"))
    page = -(-area // PAGE_BYTES) * PAGE_BYTES
    guest.memory[page : page + 8 * LISTED] = b"".join(entry.to_bytes(8, "big") for entry in entries)
    expected: dict[int, dict[int, int]] = {address: {} for address in probes}
    calls: list[tuple[int, ...]] = []
    results: list[int] = []
    for _ in range(CALLS):
        liobn, first = number(source, list(probes)), source.randrange(2 * WINDOW_BYTES // PAGE_BYTES)
        room = WINDOW_BYTES // PAGE_BYTES - first
        window = expected.get(liobn & 0xFFFF_FFFF)
        value = source.getrandbits(64)
        match source.randrange(3):
            case 0:
                calls.append((Hcall.H_PUT_TCE, liobn, first * PAGE_BYTES, value))
                put = [value]
            case 1:
                calls.append((Hcall.H_STUFF_TCE, liobn, first * PAGE_BYTES, value, 3))
                put = [value] * 3
            case _:
                calls.append((Hcall.H_PUT_TCE_INDIRECT, liobn, first * PAGE_BYTES, page, LISTED))
                put = entries
        results.append(H.SUCCESS if window is not None and len(put) <= room else H.PARAMETER)
        if window is not None:
            window.update({first + offset: each for offset, each in enumerate(put[: max(room, 0)])})
    answers = [answer.result for answer in guest.hcalls(calls, timeout=120)]
    wrong = next((index for index, (answer, result) in enumerate(zip(answers, results, strict=True)) if answer != result), None)
    assert wrong is None, f"{calls[wrong or 0]} gave {answers[wrong or 0]}"
    for address, put_there in expected.items():
        known = [0] * PAGES
        for index, value in put_there.items():
            known[index] = value
        assert read_window(guest, address) == known
    owners = {row.owner for row in machine.status().calls if row.name == "H_PUT_TCE"}
    assert owners == {"local"}
    assert not traps.named("H_PUT_TCE"), "they do not travel"

    # The firmware's quiesce is for everybody, and empties all windows.
    guest.rtas("quiesce", returns=0)
    assert {trap.backend for trap in traps.named("quiesce")} == set(NAMES)
    assert all(read_window(guest, address) == [0] * PAGES for address in probes)
    assert all(each.attached and not each.reconnects for each in machine.status().backends)


def read_window(guest: ScriptedGuest, liobn: int) -> list[int]:
    """Every TCE of a window."""
    answers = guest.hcalls([(Hcall.H_GET_TCE, liobn, page * PAGE_BYTES) for page in range(PAGES)], timeout=120)
    return [answer.outputs[0] for answer in answers]


def test_a_unit_address_finds_its_device(guest: ScriptedGuest, probes: dict[int, Probe], traps: Traps) -> None:
    source = random.Random(SEED)
    units = [number(source, list(probes)) for _ in range(500)]
    answers = guest.hcalls([(token, unit, 1) for unit in units for token in (H_COUNT, Hcall.H_VIO_SIGNAL)])
    for unit, counted, signalled in zip(units, answers[::2], answers[1::2], strict=True):
        known = unit & 0xFFFF_FFFF in probes
        assert counted.result == signalled.result == (H.SUCCESS if known else H.PARAMETER), hex(unit)
    for address, probe in probes.items():
        assert probe.calls_made == sum(each & 0xFFFF_FFFF == address for each in units) > 0
    slots = {name: range(SLOT_ADDRESS + first, SLOT_ADDRESS + first + 4) for name, first in FIRST_SLOTS.items()}
    assert all(trap.arguments[0] & 0xFFFF_FFFF in slots[trap.backend] for trap in traps.named("H_COUNT"))


def test_a_connector_is_that_of_its_slot(guest: ScriptedGuest, machine: RunningMachine, traps: Traps) -> None:
    source = random.Random(SEED)
    known = [SLOT_INDEX, *(SLOT_INDEX + first + slot for first in FIRST_SLOTS.values() for slot in range(4))]
    for _ in range(200):
        index = number(source, known) & 0xFFFF_FFFF
        # The bus has 64 slots, and every one has an owner but those of the back end that drives the guest.
        exists = SLOT_INDEX <= index < SLOT_INDEX + 64 and index - SLOT_INDEX not in range(52, 56)
        [status, *_] = guest.rtas("get-sensor-state", ENTITY_SENSE, index, returns=2)
        assert status == (RtasStatus.SUCCESS if exists else RtasStatus.PARAMETER_ERROR), hex(index)
        [status] = guest.rtas("set-indicator", 9002, index, 1)
        assert status == (RtasStatus.SUCCESS if exists else RtasStatus.PARAMETER_ERROR), hex(index)
        [status] = guest.rtas("ibm,configure-connector", index.to_bytes(4, "big").ljust(4096, b"\0"), 0)
        taken = index - SLOT_INDEX in (0, 1, 56, 57, 60, 61)
        expected = -9003 if exists else RtasStatus.PARAMETER_ERROR
        assert status == (2 if taken else expected), hex(index)
    for trap in traps.named("get-sensor-state"):
        assert trap.arguments[1] - SLOT_INDEX - FIRST_SLOTS[trap.backend] in range(4)
    assert {trap.backend for trap in traps.named("get-sensor-state")} == set(NAMES)
    assert all(each.attached and not each.reconnects for each in machine.status().backends)
