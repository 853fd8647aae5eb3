# SPDX-License-Identifier: GPL-2.0-or-later
"""Argument arrays, services that pass control, and what hostile clients get."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from of_client_service.client_services import CLIENT_SERVICES, SERVICES
from of_client_service.session import MAX_CELLS, ClientInterfaceSession
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2 as pb
from tests.amounts import examples
from tests.fake_vm import FakeVm
from tests.unit.of_machine import ARRAY, BUFFER, RAM_BYTES, STRINGS, Client, ListedTrees, cells

IEEE_1275_AND_PAPR = {
    *("finddevice", "peer", "child", "parent", "getproplen", "getprop", "nextprop", "setprop", "canon", "package-to-path"),
    *("instance-to-package", "instance-to-path", "open", "close", "read", "write", "seek", "claim", "release", "call-method"),
    *("interpret", "milliseconds", "test", "boot", "exit", "enter", "quiesce"),
}


def actions(client: Client) -> list[tuple[int, str]]:
    return [(effect.action.kind, effect.action.reason) for effect in client.last.effects if effect.HasField("action")]


def test_every_service_is_there_once() -> None:
    assert set(CLIENT_SERVICES) >= IEEE_1275_AND_PAPR
    assert len(SERVICES) == len(CLIENT_SERVICES)


def test_test_knows_the_services() -> None:
    client = Client()
    assert {name: client.call("test", name) for name in CLIENT_SERVICES} == dict.fromkeys(CLIENT_SERVICES, 0)
    assert client.call("test", "nothing") == -1


def test_an_unknown_service_returns_minus_1_and_the_entry_point_fails() -> None:
    client = Client()
    client.poke(STRINGS, b"chain\0")
    assert client.trap(client.poke(ARRAY, cells(STRINGS, 0, 1, 7))) == H.PARAMETER
    assert client.peek(ARRAY + 12, 4) == cells(0xFFFF_FFFF)
    assert client.trap(client.poke(ARRAY, cells(STRINGS, 0, 0))) == H.PARAMETER


def test_a_wrong_number_of_arguments_fails_and_returns_beyond_the_services_are_0() -> None:
    client = Client()
    assert client.call("peer") == -1
    assert client.call("peer", 0, 0) == -1
    assert client.call_all("peer", 0, returns=3)[1:] == (0, 0)
    assert client.call_all("peer", 0, returns=0) == ()


def test_an_array_may_end_where_memory_ends() -> None:
    client = Client()
    client.poke(STRINGS, b"peer\0")
    assert client.trap(client.poke(RAM_BYTES - 20, cells(STRINGS, 1, 1, 0, 7))) == H.SUCCESS
    assert client.peek(RAM_BYTES - 4, 4) == cells(client.find("/"))
    assert client.trap(client.poke(RAM_BYTES - 16, cells(STRINGS, 1, 1, 0))) == H.PARAMETER
    client.poke(RAM_BYTES - 4, b"peer")
    assert client.trap(client.poke(ARRAY, cells(RAM_BYTES - 4, 1, 1, 0, 7))) == H.PARAMETER


def test_the_arrays_address_may_have_the_linear_maps_nibble() -> None:
    client = Client()
    client.poke(STRINGS, b"peer\0")
    client.poke(ARRAY, cells(STRINGS, 1, 1, 0, 7))
    assert client.trap(0xC000_0000_0000_0000 | ARRAY) == H.SUCCESS
    assert client.peek(ARRAY + 16, 4) == cells(client.find("/"))


@pytest.mark.parametrize("counts", [(MAX_CELLS, 1), (0xFFFF_FFFF, 1), (1, 0xFFFF_FFFF), (0xFFFF_FFFF, 0xFFFF_FFFF)])
def test_counts_are_bounded(counts: tuple[int, int]) -> None:
    client = Client()
    client.poke(STRINGS, b"interpret\0")
    assert client.trap(client.poke(ARRAY, cells(STRINGS, *counts))) == H.PARAMETER


def test_exit_says_so_and_powers_off() -> None:
    client = Client()
    client.call_all("exit", returns=0)
    assert actions(client) == [(pb.MACHINE_ACTION_KIND_POWER_OFF, "client program exited")]
    assert b"client program exited" in client.printed


def test_enter_says_that_there_is_nothing_to_enter_and_returns() -> None:
    client = Client()
    client.call_all("enter", returns=0)
    assert b"no user interface" in client.printed
    assert actions(client) == []


@pytest.mark.parametrize("command", ["1 2 +", "", "power-off reset-all"])
def test_interpret_refuses_forth_with_a_catch_result(command: str) -> None:
    client = Client()
    assert client.call_all("interpret", command, returns=2) == (-1, 0)
    assert actions(client) == []
    assert client.call_all("interpret", returns=1) == (-1,)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("power-off", pb.MACHINE_ACTION_KIND_POWER_OFF),
        ("shut-down", pb.MACHINE_ACTION_KIND_POWER_OFF),
        (" reset-all ", pb.MACHINE_ACTION_KIND_RESET),
    ],
)
def test_interpret_knows_the_words_that_end_a_machine(command: str, kind: pb.MachineActionKind) -> None:
    client = Client()
    assert client.call("interpret", command) == 0
    assert [done for done, _ in actions(client)] == [kind]


def test_boot_resets_and_the_next_tree_says_what_was_asked_for_once() -> None:
    client = Client()
    client.call_all("boot", "console:1 root=/dev/sda quiet", returns=0)
    assert actions(client) == [(pb.MACHINE_ACTION_KIND_RESET, "client program called boot")]
    asyncio.run(client.session.reset())
    assert client.read_property("/chosen", "bootpath") == b"/vdevice/vty@71000000:1\0"
    assert client.read_property("/chosen", "bootargs") == b"root=/dev/sda quiet\0"
    asyncio.run(client.session.reset())
    assert client.read_property("/chosen", "bootargs") == b"quiet\0"


def test_an_exception_in_the_client_program_ends_the_machine_with_its_place() -> None:
    client = Client()
    client.call_all("splitvisor,exception", 0x300, 0x201234, 0x1000, 0xDEAD0000, returns=0)
    ((kind, reason),) = actions(client)
    assert kind == pb.MACHINE_ACTION_KIND_CRASH
    assert "0x300" in reason
    assert "0x201234" in reason


def test_milliseconds_does_not_go_back() -> None:
    client = Client()
    first, second = client.call("milliseconds"), client.call("milliseconds")
    assert 0 <= first <= second < 60_000


def test_reset_forgets_what_the_client_did() -> None:
    client = Client()
    stdout = client.read_property("/chosen", "stdout")
    client.call("open", "/")
    client.call("claim", 0x900000, 0x1000, 0)
    client.call("setprop", client.find("/chosen"), "new", BUFFER, 1)
    asyncio.run(client.session.reset())
    assert client.call("claim", 0x900000, 0x1000, 0) == 0x900000
    assert client.call("getproplen", client.find("/chosen"), "new") == -1
    assert client.read_property("/chosen", "stdout") == stdout


@pytest.mark.parametrize("stored", [[], [(1, b"no tree")]])
def test_a_machine_without_a_tree_is_ended_and_its_calls_still_return(stored: list[tuple[int, bytes]]) -> None:
    vm = FakeVm()
    session = ClientInterfaceSession(vm, ListedTrees(stored))
    asyncio.run(session.reset())
    assert [kind for kind, _ in vm.actions] == [pb.MACHINE_ACTION_KIND_CRASH]
    assert "device tree" in vm.actions[0][1]
    assert asyncio.run(session.interface.string(0, 4)) == ""


HOSTILE = Client()
"""One machine for all the hostile calls: what one leaves behind the next ones meet."""

word = st.one_of(
    st.integers(0, 0xFFFF_FFFF),
    st.sampled_from([0, 1, 4, ARRAY, STRINGS, BUFFER, RAM_BYTES - 1, RAM_BYTES, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x1111, 0x1112]),
)


@settings(max_examples=examples(400))
@given(st.sampled_from(sorted(CLIENT_SERVICES)), st.lists(word, max_size=8), st.integers(0, 8), st.binary(max_size=64))
def test_every_service_returns_whatever_it_is_given(name: str, arguments: list[int], returns: int, data: bytes) -> None:
    client = HOSTILE
    expected = CLIENT_SERVICES[name].arguments
    if expected is not None:
        arguments = (arguments + [0] * expected)[:expected]
    client.poke(BUFFER, data)
    client.poke(STRINGS, name.encode() + b"\0")
    result = client.trap(client.poke(ARRAY, cells(STRINGS, len(arguments), returns, *arguments)))
    assert result in (H.SUCCESS, H.PARAMETER)
    assert len(client.last.effects) <= 300
    claimed = sum(end - start for start, end in client.of.claims.ranges())
    assert claimed + sum(length for _, length in client.of.claims.available()) == RAM_BYTES


@settings(max_examples=examples(200))
@given(st.integers(0, (1 << 64) - 1), st.binary(max_size=80))
def test_any_argument_array_is_answered(array: int, data: bytes) -> None:
    HOSTILE.poke(ARRAY, data)
    assert HOSTILE.trap(array) in (H.SUCCESS, H.PARAMETER)
    assert HOSTILE.trap(ARRAY) in (H.SUCCESS, H.PARAMETER)


def test_the_firmwares_own_memory_map_is_claimed() -> None:
    value = Client().read_property("/memory", "available")
    assert struct.unpack_from(">Q", value) == (0x10000,)
