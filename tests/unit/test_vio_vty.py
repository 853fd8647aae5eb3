# SPDX-License-Identifier: GPL-2.0-or-later
"""The VTY's calls."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

import pytest

from splitvisor.backend import Call, Hypercall, Result
from splitvisor.backend.vio import VioSession
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import trap_pb2
from tests.fake_vm import FakeVm, make_call
from vio_service.console.console import INPUT_BYTES, Console
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.vty import calls as vty
from vio_service.session import vio_session

FIRST = 0x71000000


def make_session(count: int = 1) -> tuple[VioSession[VmConsoles], FakeVm, Sequence[Console]]:
    vm = FakeVm(devices=[trap_pb2.DeviceSpec(kind="vty")] * count)
    session = vio_session(vm)
    return session, vm, session.host.all()


def put(session: VioSession[VmConsoles], unit_address: int, text: bytes, length: int | None = None) -> Result | int:
    words = struct.unpack(">2Q", text.ljust(16, b"\0"))
    return make_call(session, vty.put_term_char, unit_address, len(text) if length is None else length, *words)[0]


def get(session: VioSession[VmConsoles], unit_address: int = FIRST) -> bytes:
    result, _ = make_call(session, vty.get_term_char, unit_address)
    assert isinstance(result, Result)
    assert result.result == H.SUCCESS
    count, *words = result.outputs
    text = struct.pack(">2Q", *words)
    assert not any(text[count:]), "bytes beyond the count are zero"
    return text[:count]


def output(console: Console) -> bytes:
    return console.output.read(0, console.output.end)


def test_characters_come_out_in_the_order_of_the_registers() -> None:
    session, _, (console,) = make_session()
    assert put(session, FIRST, b"0123456789abcdef") == H.SUCCESS
    assert put(session, FIRST, b"xyz") == H.SUCCESS
    assert put(session, FIRST, b"") == H.SUCCESS
    assert output(console) == b"0123456789abcdefxyz"


def test_each_vty_has_its_own_output_and_input() -> None:
    session, _, (first, second) = make_session(2)
    put(session, FIRST, b"one")
    put(session, FIRST + 1, b"two")
    assert (output(first), output(second)) == (b"one", b"two")
    second.push_input(b"typed")
    assert (get(session, FIRST), get(session, FIRST + 1)) == (b"", b"typed")


@pytest.mark.parametrize(("unit_address", "length"), [(FIRST, 17), (FIRST, 1 << 63), (FIRST + 1, 4), (0xFFFFFFFF, 4)])
def test_a_bad_length_or_address_is_a_bad_parameter_and_prints_nothing(unit_address: int, length: int) -> None:
    session, _, (console,) = make_session()
    assert put(session, unit_address, b"text", length) == H.PARAMETER
    assert output(console) == b""


def test_address_0_means_the_lowest_vty_when_none_is_there() -> None:
    session, _, (first, second) = make_session(2)
    assert put(session, 0, b"early") == H.SUCCESS
    assert (output(first), output(second)) == (b"early", b"")
    first.push_input(b"k")
    assert get(session, 0) == b"k"


def test_without_any_vty_terminal_calls_are_bad_parameters() -> None:
    session, _, _ = make_session(0)
    assert put(session, 0, b"x") == H.PARAMETER
    assert make_call(session, vty.get_term_char, 0)[0] == Result(H.PARAMETER)
    assert make_call(session, vty.display_character, ord("x"))[0] == RtasStatus.HARDWARE_ERROR


def test_put_term_char_is_posted_for_the_addresses_that_exist() -> None:
    session, _, _ = make_session(2)
    (call,) = (call for call in session.calls if isinstance(call, Hypercall) and call.token == Hcall.H_PUT_TERM_CHAR)
    assert call.posted is not None
    assert list(call.posted.key_values(session)) == [0, FIRST, FIRST + 1]
    assert call.posted.max_size == 16
    assert list(call.posted.key_values(make_session(0)[0])) == []


def test_input_is_read_in_blocks_of_16() -> None:
    session, _, (console,) = make_session()
    console.push_input(bytes(range(65, 85)))
    assert get(session) == bytes(range(65, 81))
    assert get(session) == bytes(range(81, 85))
    assert get(session) == b""


def test_nothing_is_put_after_a_cr_and_a_real_nul_there_comes_in_the_next_block() -> None:
    session, _, (console,) = make_session()
    console.push_input(b"\r" * 9 + b"x\0\r\0\0y\r")
    assert get(session) == b"\r" * 9 + b"x\0\r"
    assert get(session) == b"\0\0y\r"
    assert get(session) == b""


def test_the_interrupt_is_pulsed_when_input_finds_an_empty_queue() -> None:
    session, vm, (console,) = make_session()
    console.push_input(b"a" * 17)
    console.push_input(b"b")
    assert vm.interrupts == [0x1100]
    get(session)
    console.push_input(b"c")
    assert vm.interrupts == [0x1100], "the guest reads until there is nothing"
    get(session)
    console.push_input(b"d")
    assert vm.interrupts == [0x1100, 0x1100]


def test_the_interrupt_is_pulsed_again_at_an_attach_when_input_waits() -> None:
    session, vm, (console,) = make_session()
    asyncio.run(session.attached())
    assert vm.interrupts == []
    console.push_input(b"a")
    asyncio.run(session.attached())
    assert vm.interrupts == [0x1100, 0x1100]


def test_typed_input_outlives_a_reset() -> None:
    session, _, (console,) = make_session()
    console.push_input(b"early")
    asyncio.run(session.reset())
    assert get(session) == b"early"


def test_the_input_queue_is_bounded() -> None:
    _, _, (console,) = make_session()
    assert console.push_input(bytes(INPUT_BYTES - 1)) == INPUT_BYTES - 1
    assert console.push_input(b"ab") == 1
    assert console.push_input(b"c") == 0
    assert console.waiting_input == INPUT_BYTES


def test_display_character_prints_on_the_lowest_vty() -> None:
    session, _, (first, second) = make_session(2)
    assert make_call(session, vty.display_character, 0x141)[0] == RtasStatus.SUCCESS
    assert (output(first), output(second)) == (b"A", b"")
    assert vty.display_character(session, Call(vcpu=0, arguments=())) == RtasStatus.PARAMETER_ERROR
