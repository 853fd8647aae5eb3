# SPDX-License-Identifier: GPL-2.0-or-later
"""Events for the guest: their log entries, and as many interrupts as there are entries."""

from __future__ import annotations

import struct

import pytest

from hcall_service.platform.event_log import Action, Resource, hotplug_entry
from hcall_service.platform.events import HOTPLUG_EVENTS, MAX_EVENTS, PlatformEvent
from hcall_service.platform.rtas import RTAS_CALLS
from hcall_service.trees.builder import HOTPLUG_SOURCE
from splitvisor.backend import Call
from splitvisor.declarations.guest_memory import GuestAddressError
from tests.fake_vm import FakeVm, make_call
from tests.unit.test_rtas_calls import make_session, memory_of

CHECK = next(call for call in RTAS_CALLS if call.name == "check-exception").handler
BUFFER, SIZE = 0x1000, 2048
TIME_NS = 1_795_215_960_120_000_000
ENTRY = hotplug_entry(Resource.SLOT, Action.ADD, 0x3000_0002, 7, TIME_NS)


def sections(entry: bytes) -> dict[bytes, bytes]:
    """Take an entry apart as Linux' pseries code does: fixed part, version 6 header, sections by their own lengths."""
    version, flags, _, kind, length = struct.unpack_from(">4BI", entry)
    assert (version, flags & 0x04, kind, len(entry)) == (6, 4, 0xE5, 8 + length)
    log_format, company = entry[10] & 0x0F, entry[20:24]
    assert (log_format, company) == (14, b"IBM\0")
    found, offset = {}, 24
    while offset < len(entry):
        name, size = struct.unpack_from(">2sH", entry, offset)
        assert size >= 8
        found[name] = entry[offset + 8 : offset + size]
        offset += size
    assert offset == len(entry)
    return found


def test_a_hotplug_entry_is_a_version_6_log_with_three_sections() -> None:
    found = sections(ENTRY)
    assert list(found) == [b"PH", b"UH", b"HP"]
    assert [len(data) for data in found.values()] == [40, 16, 8]
    assert struct.unpack(">4BI", found[b"HP"]) == (3, 1, 2, 0, 0x3000_0002)
    assert found[b"PH"][:8].hex() == "2026112023060012"
    assert found[b"PH"][16:17] == b"H"
    assert found[b"PH"][19] == 3, "sections"


def event(number: int) -> PlatformEvent:
    return PlatformEvent(HOTPLUG_EVENTS, HOTPLUG_SOURCE, bytes([number]) * 16)


def check(session: object, mask: int = HOTPLUG_EVENTS, size: int = SIZE) -> tuple[int, Call]:
    answer, call = make_call(session, CHECK, 0x500, HOTPLUG_SOURCE, mask, 0, BUFFER, size, returns=1)
    assert isinstance(answer, int)
    return answer, call


def test_each_event_is_interrupted_for_once_and_fetched_once() -> None:
    session = make_session()
    assert isinstance(session.vm, FakeVm)
    for number in (1, 2, 3):
        assert session.events.add(event(number))
    assert session.vm.interrupts == [HOTPLUG_SOURCE], "one pulse stands for the first"
    pulses = []
    for number in (1, 2, 3):
        status, call = check(session)
        assert (status, bytes(memory_of(session)[BUFFER : BUFFER + 16])) == (0, bytes([number]) * 16)
        pulses.append([effect.interrupt.source for effect in call.effects])
    assert pulses == [[HOTPLUG_SOURCE], [HOTPLUG_SOURCE], []]
    assert check(session)[0] == 1
    session.events.add(event(4))
    assert session.vm.interrupts == [HOTPLUG_SOURCE] * 2


def test_an_event_of_another_class_is_left() -> None:
    session = make_session()
    session.events.add(event(1))
    assert check(session, 0x4000_0000)[0] == 1
    assert check(session, 0xF000_0000)[0] == 0


def test_event_scan_takes_nothing_from_check_exception() -> None:
    session = make_session()
    session.events.add(event(1))
    scan = next(call for call in RTAS_CALLS if call.name == "event-scan").handler
    assert make_call(session, scan, 0xF000_0000, 0, BUFFER, SIZE, returns=1)[0] == 1
    assert check(session)[0] == 0


def test_a_small_buffer_gets_what_fits() -> None:
    session = make_session()
    session.events.add(event(5))
    assert check(session, size=4)[0] == 0
    assert memory_of(session)[BUFFER : BUFFER + 8] == b"\5\5\5\5\0\0\0\0"


def test_a_buffer_outside_ram_loses_no_event() -> None:
    session = make_session()
    session.events.add(event(1))
    with pytest.raises(GuestAddressError):
        make_call(session, CHECK, 0x500, 0, HOTPLUG_EVENTS, 0, 0xFFFF_F000, SIZE, returns=1)
    assert check(session)[0] == 0


def test_the_queue_is_bounded() -> None:
    session = make_session()
    assert all(session.events.add(event(1)) for _ in range(MAX_EVENTS))
    assert not session.events.add(event(2))


def test_a_reset_forgets_events_and_a_new_connection_signals_them_again() -> None:
    session = make_session()
    assert isinstance(session.vm, FakeVm)
    session.events.add(event(1))
    session.events.signal()
    assert session.vm.interrupts == [HOTPLUG_SOURCE] * 2
    session.events.clear()
    session.events.signal()
    assert session.vm.interrupts == [HOTPLUG_SOURCE] * 2
    assert check(session)[0] == 1
