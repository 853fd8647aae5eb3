# SPDX-License-Identifier: GPL-2.0-or-later
"""RTAS calls of hcall_service: what PAPR says they return, on good and on hostile arguments."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcall_service.platform.rtas import RTAS_CALLS, RtasSession
from splitvisor.backend import Call, Result, RtasCall
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.rtas import TOKENS
from splitvisor.rpc import trap_pb2 as pb
from tests.fake_vm import FakeVm, make_call

IDENTITY = bytes(range(16))
NOW = int(datetime(2026, 2, 28, 23, 59, 58, tzinfo=UTC).timestamp()) * 10**9 + 123_456_789
CALLS: dict[str, RtasCall] = {call.name: call for call in RTAS_CALLS}


class SetClock:
    """A host clock that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


async def _identity(vm: str) -> bytes:
    return IDENTITY if vm == "test" else b""


def make_session(**vm: object) -> RtasSession:
    return RtasSession(FakeVm(**vm), _identity, SetClock())  # type: ignore[arg-type]  # keyword arguments of FakeVm


def rtas(session: RtasSession, name: str, *arguments: int) -> tuple[list[int], Call]:
    declared = CALLS[name]
    answer, call = make_call(session, declared.handler, *arguments, returns=declared.returns or 0)
    return [int(word) for word in answer.returns] if isinstance(answer, Result) else [int(answer)], call


def actions(call: Call) -> Sequence[tuple[pb.MachineActionKind, str]]:
    return [(effect.action.kind, effect.action.reason) for effect in call.effects]


def memory_of(session: RtasSession) -> bytearray:
    assert isinstance(session.vm, FakeVm)
    return session.vm.ram.data


def test_every_call_has_a_token_of_its_own() -> None:
    assert len(CALLS) == len(RTAS_CALLS)
    assert CALLS.keys() <= TOKENS.keys()


def test_the_clock_shows_the_hosts_time_in_utc() -> None:
    assert rtas(make_session(), "get-time-of-day")[0] == [0, 2026, 2, 28, 23, 59, 58, 123_456_789]


def test_a_clock_that_was_set_runs_on_from_there_and_over_a_reset() -> None:
    session = make_session()
    assert rtas(session, "set-time-of-day", 1999, 12, 31, 23, 59, 59, 999_999_999)[0] == [0]
    assert rtas(session, "get-time-of-day")[0] == [0, 1999, 12, 31, 23, 59, 59, 999_999_999]
    assert isinstance(session.clock, SetClock)
    session.clock.now += 2_000_000_001
    make_call(session, lambda session, _: session.reset())
    assert rtas(session, "get-time-of-day")[0] == [0, 2000, 1, 1, 0, 0, 2, 0]


@pytest.mark.parametrize(
    "fields",
    [
        (2026, 13, 1, 0, 0, 0, 0),
        (2026, 2, 29, 0, 0, 0, 0),
        (2026, 2, 28, 24, 0, 0, 0),
        (2026, 2, 28, 0, 60, 0, 0),
        (2026, 2, 28, 0, 0, 0, 10**9),
        (9999, 12, 31, 23, 59, 59, 0),
        (0, 1, 1, 0, 0, 0, 0),
        (0xFFFFFFFF,) * 7,
    ],
)
def test_a_time_that_is_none_is_refused_and_changes_nothing(fields: tuple[int, ...]) -> None:
    session = make_session()
    assert rtas(session, "set-time-of-day", *fields)[0] == [-3]
    assert rtas(session, "get-time-of-day")[0][1] == 2026


def test_power_off_and_reboot_act_on_the_machine() -> None:
    _, call = rtas(make_session(), "power-off", 0xFFFFFFFF, 0xFFFFFFFF)
    assert [kind for kind, _ in actions(call)] == [pb.MACHINE_ACTION_KIND_POWER_OFF]
    _, call = rtas(make_session(), "system-reboot")
    assert [kind for kind, _ in actions(call)] == [pb.MACHINE_ACTION_KIND_RESET]


def test_the_splpar_parameter_tells_processors_and_memory() -> None:
    session = make_session(vcpus=4, size=8 << 20)
    assert rtas(session, "ibm,get-system-parameter", 20, 0x1000, 1024)[0] == [0]
    text = b"MaxEntCap=4,DesMem=8,DesProcs=4,MaxPlatProcs=4\0"
    assert memory_of(session)[0x1000 : 0x1002 + len(text)] == len(text).to_bytes(2, "big") + text


def test_a_system_parameter_is_cut_to_the_buffer_but_tells_its_whole_length() -> None:
    session = make_session()
    assert rtas(session, "ibm,get-system-parameter", 48, 0x1000, 6)[0] == [0]
    assert memory_of(session)[0x1000:0x1008] == b"\0\x10" + IDENTITY[:4] + b"\0\0"


def test_a_machine_without_uuid_has_an_empty_parameter() -> None:
    session = make_session(name="other")
    memory_of(session)[0x1000:0x1004] = b"\xff" * 4
    assert rtas(session, "ibm,get-system-parameter", 48, 0x1000, 18)[0] == [0]
    assert memory_of(session)[0x1000:0x1004] == b"\0\0\xff\xff"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((20, 0x1000, 1), -9999),
        ((20, 0x1000, 0), -9999),
        ((42, (1 << 20) - 2, 3), -9999),
        ((20, 0xFFFFFFFF, 0xFFFFFFFF), -9999),
        ((21, 0x1000, 100), -3),
        ((0xFFFFFFFF, 0, 0), -3),
    ],
)
def test_bad_system_parameter_requests_get_their_status_and_write_nothing(arguments: tuple[int, ...], status: int) -> None:
    session = make_session()
    assert rtas(session, "ibm,get-system-parameter", *arguments)[0] == [status]
    assert not any(memory_of(session))


def test_known_system_parameters_cannot_be_set() -> None:
    assert rtas(make_session(), "ibm,set-system-parameter", 20, 0)[0] == [-9002]
    assert rtas(make_session(), "ibm,set-system-parameter", 99, 0)[0] == [-3]


def test_there_are_no_events_and_no_exceptions() -> None:
    assert rtas(make_session(), "event-scan", 0xFFFFFFFF, 0, 0x1000, 2048)[0] == [1]
    assert rtas(make_session(), "check-exception", 0x500, 0, 0xFFFFFFFF, 0, 0x1000, 2048)[0] == [1]
    assert rtas(make_session(), "check-exception", 0x500, 0, 0xFFFFFFFF, 0, 0x1000, 2048, 0)[0] == [1]
    assert rtas(make_session(), "check-exception", 0x500)[0] == [-3]


def test_os_term_reports_the_guests_own_words() -> None:
    session = make_session()
    memory_of(session)[0x2000:0x2020] = b"panic: \x1b[31mVFS\n: no init\0ignored!"
    status, call = rtas(session, "ibm,os-term", 0x2000)
    assert status == [0]
    assert actions(call) == [(pb.MACHINE_ACTION_KIND_CRASH, "the guest reported its end: panic:  [31mVFS : no init")]


@pytest.mark.parametrize("address", [0xFFFFFFFF, 1 << 20, 0])
def test_os_term_reports_the_end_also_without_a_message(address: int) -> None:
    _, call = rtas(make_session(), "ibm,os-term", address)
    assert actions(call) == [(pb.MACHINE_ACTION_KIND_CRASH, "the guest reported its end: no message")]


def test_os_term_keeps_a_bounded_part_of_a_message_that_does_not_end() -> None:
    session = make_session()
    memory_of(session)[-100:] = b"x" * 100
    memory_of(session)[:1000] = b"y" * 1000
    assert actions(rtas(session, "ibm,os-term", (1 << 20) - 100)[1])[0][1].endswith(" " + "x" * 100)
    assert actions(rtas(session, "ibm,os-term", 0)[1])[0][1].endswith(" " + "y" * 256)


def test_power_is_always_full() -> None:
    session = make_session()
    assert rtas(session, "set-power-level", 0xFFFFFFFF, 0)[0] == [0, 100]
    assert rtas(session, "get-power-level", 0xFFFFFFFF)[0] == [0, 100]
    assert rtas(session, "set-power-level", 0, 0)[0] == [-3, 0]
    assert rtas(session, "get-power-level", 0)[0] == [-3, 0]


@given(st.sampled_from(RTAS_CALLS), st.data())
def test_no_arguments_make_a_handler_fail(declared: RtasCall, data: st.DataObject) -> None:
    count = declared.arguments if declared.arguments is not None else data.draw(st.integers(0, 16))
    words = st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from((0, 20, 42, 48, (1 << 20) - 1, 0xFFFFFFFF)))
    arguments = data.draw(st.lists(words, min_size=count, max_size=count))
    try:
        statuses, _ = rtas(make_session(), declared.name, *arguments)
    except GuestAddressError:
        return  # The trap server turns it into status -3.
    assert statuses[0] in (0, 1, -3, -9002, -9999)
