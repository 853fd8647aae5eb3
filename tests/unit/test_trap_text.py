# SPDX-License-Identifier: GPL-2.0-or-later
"""Watched calls as people and programs read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from splitvisor.observe.trap_text import as_line, as_object, decode_arguments, result_name
from splitvisor.papr.codes import H
from splitvisor.rpc import machine_pb2 as pb


def hypercall(name: str, *arguments: int, result: int = 0, **more: Any) -> pb.WatchedTrap:
    return pb.WatchedTrap(kind=pb.WATCHED_KIND_HYPERCALL, name=name, arguments=arguments, result=result, **more)


def client(name: str, *arguments: int, strings: dict[int, bytes] | None = None, returns: tuple[int, ...] = ()) -> pb.WatchedTrap:
    kind = pb.WATCHED_KIND_CLIENT_SERVICE
    return pb.WatchedTrap(kind=kind, name=name, arguments=arguments, strings=strings or {}, returns=returns)


def rtas(name: str, *arguments: int, returns: tuple[int, ...] = (0,)) -> pb.WatchedTrap:
    return pb.WatchedTrap(kind=pb.WATCHED_KIND_RTAS, name=name, arguments=arguments, returns=returns)


def call(trap: pb.WatchedTrap) -> str:
    """The part of a line that is the call."""
    return as_line(trap).split(maxsplit=5)[5]


def test_text_in_registers_is_shown_as_long_as_it_is() -> None:
    text = [int.from_bytes(part, "big") for part in (b"Hello, w", b"orld\r\n??")]
    trap = hypercall("H_PUT_TERM_CHAR", 0x7100_0000, 14, *text, owner="vio_service", posted=True)
    assert call(trap) == r'H_PUT_TERM_CHAR(unit=0x71000000, length=14, text="Hello, world\r\n") = H_SUCCESS posted'
    trap.arguments[1] = 1 << 63
    assert call(trap).count("?") == 2, "the registers hold 16 bytes, whatever the length says"


def test_what_the_guest_chose_cannot_command_a_terminal() -> None:
    evil = b'\x1b]0;owned\x07\x9b31m"\\\x00\xff'
    lines = [
        as_line(client("getprop", 1, 2, 3, 4, strings={1: evil})),
        as_line(client("\x1b[31m\u009b", returns=(0xFFFF_FFFF,))),
        json.dumps(as_object(client("\x1b[31m", 1, strings={0: evil}))),
    ]
    for line in lines:
        assert all(" " <= each <= "~" for each in line)
    assert r'name="\x1b]0;owned\x07\x9b31m\"\\\x00\xff"' in lines[0]


@pytest.mark.parametrize(
    ("trap", "expected"),
    [
        (hypercall("H_CEDE"), "H_SUCCESS"),
        (hypercall("H_ENTER", result=H.PTEG_FULL), "H_PTEG_FULL"),
        (hypercall("H_RANDOM", result=-999), "-999"),
        (rtas("nvram-fetch", returns=(0, 7)), "SUCCESS"),
        (rtas("nvram-fetch", returns=(0xFFFF_FFFD, 0)), "PARAMETER_ERROR"),
        (rtas("anything", returns=(77,)), "77"),
        (client("finddevice", returns=(0xFFFF_FFFF,)), "-1"),
        (client("finddevice", returns=(0x1117,)), "0x1117"),
    ],
)
def test_results_have_the_names_of_the_field(trap: pb.WatchedTrap, expected: str) -> None:
    assert result_name(trap) == expected


def test_arguments_are_named_as_far_as_they_are_known() -> None:
    assert decode_arguments(rtas("nvram-fetch", 16, 0x2000, 8)) == [("offset", "0x10"), ("buffer", "0x2000"), ("length", "8")]
    assert decode_arguments(rtas("vendor,call", 16)) == [("", "0x10")]
    assert decode_arguments(hypercall("hypercall 0xf100", 5)) == [("", "0x5")]
    assert decode_arguments(client("peer", 1, 2)) == [("phandle", "0x1"), ("", "0x2")], "one more than it has"


def test_a_line_and_an_object_tell_the_same() -> None:
    trap = client("getprop", 1, 0x2000, 0x3000, 4, strings={1: b"reg"}, returns=(4,))
    trap.owner, trap.vcpu, trap.duration_ns = "of_client_service", 1, 1_250_000
    assert call(trap) == 'getprop(phandle=0x1, name="reg", buffer=0x3000, length=4) = 0x4'
    assert " 1   1.2 ms of_client_service " in as_line(trap)
    found = as_object(trap)
    assert (found["kind"], found["vcpu"], found["duration_us"], found["failed"]) == ("client", 1, 1250.0, False)
    assert found["decoded"][1] == {"name": "name", "value": '"reg"'}
    assert found["arguments"] == [1, 0x2000, 0x3000, 4]
