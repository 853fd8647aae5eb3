# SPDX-License-Identifier: GPL-2.0-or-later
"""Instances, the terminal behind read and write, call-method."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from of_client_service.instances import MAX_INSTANCES
from of_client_service.terminal import MAX_TRANSFER
from splitvisor import firmware
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from tests.unit.of_machine import BUFFER, FIRST_VTY, RAM_BYTES, SECOND_VTY, Client, cells, sample_tree


@pytest.fixture(name="client")
def make_client() -> Client:
    return Client()


def stdio(client: Client, name: str) -> int:
    return int.from_bytes(client.read_property("/chosen", name), "big")


class Keyboard:
    """Answers H_GET_TERM_CHAR as a VTY does: 16 bytes a call, packed into two registers."""

    def __init__(self, client: Client, typed: bytes = b"") -> None:
        self.typed = typed
        self.units: list[int] = []
        client.vm.answer = self.answer

    def answer(self, token: int, arguments: Sequence[int]) -> tuple[int, Sequence[int]]:
        assert token == Hcall.H_GET_TERM_CHAR
        self.units.append(arguments[0])
        given, self.typed = self.typed[:16], self.typed[16:]
        return H.SUCCESS, (len(given), *struct.unpack(">QQ", given.ljust(16, b"\0")))


def test_stdin_and_stdout_are_open_on_the_lowest_terminal(client: Client) -> None:
    for name in ("stdin", "stdout"):
        package = client.call("instance-to-package", stdio(client, name))
        assert client.call("getprop", package, "reg", BUFFER, 4) == 4
        assert client.peek(BUFFER, 4) == cells(FIRST_VTY)
    assert client.call("instance-to-path", stdio(client, "stdout"), BUFFER, 64) == 21
    assert client.peek(BUFFER, 22) == b"/vdevice/vty@71000000\0"


def test_stdout_path_chooses_the_terminal() -> None:
    tree = sample_tree()
    chosen = tree.root.child("chosen")
    assert chosen is not None
    chosen.properties["stdout-path"] = b"/vdevice/vty@71000001\0"
    client = Client(tree)
    assert client.call("write", stdio(client, "stdout"), BUFFER, 1) == 1
    assert client.last.effects[0].invoke.arguments[0] == SECOND_VTY


def test_a_machine_without_a_terminal_has_no_stdout() -> None:
    tree = sample_tree()
    tree.root.children = [node for node in tree.root.children if node.name != "vdevice"]
    client = Client(tree)
    assert client.call("getproplen", client.find("/chosen"), "stdout") == -1
    assert client.call_all("exit", returns=0) == ()
    assert client.printed == b""


def test_write_becomes_terminal_hypercalls_of_16_bytes(client: Client) -> None:
    text = bytes(range(32, 32 + 37))
    stdout = stdio(client, "stdout")
    client.poke(BUFFER, text)
    assert client.call("write", stdout, BUFFER, len(text)) == len(text)
    assert [effect.invoke.arguments[1] for effect in client.last.effects] == [16, 16, 5]
    assert client.printed == text


def test_write_is_bounded_and_says_how_much_it_took(client: Client) -> None:
    assert client.call("write", stdio(client, "stdout"), BUFFER, 0x7FFF_FFFF) == MAX_TRANSFER
    assert len(client.printed) == MAX_TRANSFER
    assert client.call("write", stdio(client, "stdout"), RAM_BYTES - 1, 2) == -1
    assert client.last.effects == []
    assert client.call("write", stdio(client, "stdout"), BUFFER, 0) == 0


def test_write_and_read_need_an_open_terminal(client: Client) -> None:
    root = client.call("open", "/")
    assert [client.call(service, root, BUFFER, 1) for service in ("read", "write")] == [-1, -1]
    assert [client.call(service, 999, BUFFER, 1) for service in ("read", "write")] == [-1, -1]


def test_read_gives_what_was_typed_in_order_whatever_the_buffers_size(client: Client) -> None:
    keyboard = Keyboard(client, b"The quick brown fox jumps over the lazy dog")
    stdin, got = stdio(client, "stdin"), b""
    for size in (1, 2, 20, 3, 100):
        length = client.call("read", stdin, BUFFER, size)
        assert 0 < length <= size
        got += client.peek(BUFFER, length)
    assert got == b"The quick brown fox jumps over the lazy dog"
    assert set(keyboard.units) == {FIRST_VTY}
    assert client.call("read", stdin, BUFFER, 1) == -2


def test_read_drops_the_nul_behind_a_carriage_return_and_no_other(client: Client) -> None:
    Keyboard(client, b"a\r\0b\0c" + b"x" * 9 + b"\r" + b"\0d")
    length = client.call("read", stdio(client, "stdin"), BUFFER, 64)
    assert client.peek(BUFFER, length) == b"a\rb\0c" + b"x" * 9 + b"\r" + b"d"


def test_read_into_memory_that_is_not_there_loses_no_input(client: Client) -> None:
    Keyboard(client, b"kept")
    stdin = stdio(client, "stdin")
    assert client.call("read", stdin, RAM_BYTES - 1, 4) == -1
    assert client.call("read", stdin, BUFFER, 4) == 4
    assert client.peek(BUFFER, 4) == b"kept"


def test_read_of_a_terminal_that_fails_is_a_read_of_nothing(client: Client) -> None:
    client.vm.answer = lambda token, arguments: (H.PARAMETER, ())
    assert client.call("read", stdio(client, "stdin"), BUFFER, 4) == -2
    client.vm.answer = lambda token, arguments: (H.SUCCESS, (1 << 64 - 1, 0, 0))
    assert client.call("read", stdio(client, "stdin"), BUFFER, MAX_TRANSFER) == MAX_TRANSFER


def test_ihandles_are_not_used_again(client: Client) -> None:
    first = client.call("open", "/vdevice/vty")
    assert client.call_all("close", first, returns=0) == ()
    second = client.call("open", "/vdevice/vty")
    assert first != second
    assert client.call("instance-to-package", first) == -1
    assert client.call("instance-to-path", first, BUFFER, 4) == -1
    assert client.call("instance-to-package", second) == client.find("/vdevice/vty")
    assert client.call_all("close", 12345, returns=0) == ()


def test_open_fails_with_0_on_unknown_paths_and_at_the_limit(client: Client) -> None:
    assert client.call("open", "/nothing") == 0
    opened = 0
    while client.call("open", "/"):
        opened += 1
        assert opened <= MAX_INSTANCES
    assert opened == MAX_INSTANCES - 2


def test_seek_fails_on_terminals(client: Client) -> None:
    assert client.call("seek", stdio(client, "stdin"), 0, 0) == -1


def test_instantiate_rtas_puts_the_shim_where_the_client_wants_it(client: Client) -> None:
    instance = client.call("open", "/rtas")
    assert client.call_all("call-method", "instantiate-rtas", instance, 0x100000, returns=2) == (0, 0x100000)
    assert client.peek(0x100000, 20) == firmware.RTAS_SHIM
    assert client.call_all("call-method", "instantiate-rtas", instance, RAM_BYTES - 2000, returns=2)[0] == -1
    assert client.call_all("call-method", "instantiate-rtas", instance, returns=2)[0] == -1


def test_call_method_reaches_only_methods_that_a_package_has(client: Client) -> None:
    root, terminal = client.call("open", "/"), client.call("open", "console")
    assert client.call_all("call-method", "instantiate-rtas", root, 0, returns=2)[0] == -1
    assert client.call_all("call-method", "nothing", root, returns=2)[0] == -1
    assert client.call_all("call-method", "write", 999, 1, BUFFER, returns=2)[0] == -1
    assert client.call_all("call-method", "write", returns=1) == (-1,)
    client.poke(BUFFER, b"text")
    assert client.call_all("call-method", "write", terminal, 4, BUFFER, returns=2) == (0, 4)
    assert client.printed == b"text"
    Keyboard(client, b"typed")
    assert client.call_all("call-method", "read", terminal, 64, BUFFER, returns=2) == (0, 5)


def test_test_method_tells_which_package_has_which_method(client: Client) -> None:
    assert client.call("test-method", client.find("/rtas"), "instantiate-rtas") == 0
    assert client.call("test-method", client.find("/"), "instantiate-rtas") == -1
    assert client.call("test-method", 0xBAD, "read") == -1
    assert client.call("test-method", client.find("console"), "read") == 0
