# SPDX-License-Identifier: GPL-2.0-or-later
"""Telnet's protocol: keys, negotiation that ends, sizes, and what a guest writes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vio_service.console.telnet_protocol import (
    DO,
    DONT,
    IAC,
    MAX_ANSWERS,
    SB,
    SE,
    SUBNEGOTIATION_BYTES,
    WILL,
    WONT,
    Size,
    TelnetServer,
)

ECHO, SGA, NAWS, LINEMODE = 1, 3, 31, 34


def server() -> TelnetServer:
    """One whose opening was sent."""
    telnet = TelnetServer()
    telnet.replies.clear()
    return telnet


def received(telnet: TelnetServer, *pieces: bytes) -> list[bytes | Size]:
    items: list[bytes | Size] = []
    for item in (item for piece in pieces for item in telnet.receive(piece)):
        if isinstance(item, bytes) and items and isinstance(items[-1], bytes):
            items[-1] += item
        else:
            items.append(item)
    return items


def test_it_offers_echo_and_character_mode_and_asks_for_the_size() -> None:
    assert TelnetServer().replies == bytes((IAC, WILL, ECHO, IAC, WILL, SGA, IAC, DO, SGA, IAC, DO, NAWS))


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"ls\r\n", b"ls\r"),
        (b"ls\r\0", b"ls\r"),
        (b"a\nb\0", b"a\nb\0"),
        (b"\r\r\n\n", b"\r\r\n"),
        (b"\xff\xff\x80", b"\xff\x80"),
        (b"\r\xff\xff\n", b"\r\xff\n"),
        (b"a\xff\xf4b\xff\xf7c\xff\xf8", b"a\x03b\x7fc\x15"),
        (b"a\xff\xf1\xff\xf9\xff\xf0b", b"ab"),
    ],
)
def test_keys(typed: bytes, keys: bytes) -> None:
    assert received(server(), typed) == [keys]
    assert received(server(), *(typed[index : index + 1] for index in range(len(typed)))) == [keys]


@pytest.mark.parametrize(
    ("peer", "reply"),
    [
        (bytes((IAC, DO, ECHO, IAC, DO, SGA, IAC, WILL, SGA, IAC, WILL, NAWS)), b""),
        (bytes((IAC, DO, ECHO, IAC, DO, ECHO, IAC, DO, ECHO)), b""),
        (bytes((IAC, DONT, ECHO, IAC, DONT, ECHO)), b""),
        (bytes((IAC, DO, ECHO, IAC, DONT, ECHO, IAC, DO, ECHO)), bytes((IAC, WONT, ECHO, IAC, WILL, ECHO))),
        (bytes((IAC, WILL, NAWS, IAC, WONT, NAWS, IAC, WONT, NAWS)), bytes((IAC, DONT, NAWS))),
        (bytes((IAC, WILL, LINEMODE, IAC, WONT, LINEMODE)), bytes((IAC, DONT, LINEMODE))),
        (bytes((IAC, DO, LINEMODE, IAC, DONT, LINEMODE)), bytes((IAC, WONT, LINEMODE))),
    ],
)
def test_what_is_asked_for_is_answered_and_what_is_an_answer_is_not(peer: bytes, reply: bytes) -> None:
    telnet = server()
    assert received(telnet, peer) == []
    assert telnet.replies == reply


@given(st.lists(st.tuples(st.sampled_from([WILL, WONT, DO, DONT]), st.sampled_from([ECHO, SGA, NAWS, LINEMODE])), max_size=30))
def test_two_servers_fall_silent_whatever_one_said_first(opening: list[tuple[int, int]]) -> None:
    ours, theirs = TelnetServer(), TelnetServer()
    theirs.replies = bytearray(b"".join(bytes((IAC, verb, option)) for verb, option in opening))
    for _ in range(2 * MAX_ANSWERS + 3):
        to_theirs, to_ours = bytes(ours.replies), bytes(theirs.replies)
        ours.replies.clear()
        theirs.replies.clear()
        if not to_theirs and not to_ours:
            return
        assert received(ours, to_ours) == []
        assert received(theirs, to_theirs) == []
    raise AssertionError("they talk for ever")


def naws(*values: int) -> bytes:
    return bytes((IAC, SB, NAWS)) + bytes(values).replace(b"\xff", b"\xff\xff") + bytes((IAC, SE))


@pytest.mark.parametrize(
    ("peer", "items"),
    [
        (naws(0, 80, 0, 24), [Size(24, 80)]),
        (b"a" + naws(0, 255, 255, 0) + b"b", [b"a", Size(0xFF00, 255), b"b"]),
        (naws(0, 80, 0), []),
        (naws(0, 80, 0, 24, 0), []),
        (bytes((IAC, SB, IAC, SE)), []),
        (bytes((IAC, SB, NAWS)) + bytes(10 * SUBNEGOTIATION_BYTES) + bytes((IAC, SE)) + naws(0, 1, 0, 2), [Size(2, 1)]),
        (bytes((IAC, SB, NAWS, 0, 80, IAC, WILL, ECHO)) + b"x", [b"x"]),
    ],
)
def test_the_size_is_four_bytes_and_anything_else_is_nothing(peer: bytes, items: list[bytes | Size]) -> None:
    telnet = server()
    received(telnet, bytes((IAC, WILL, NAWS)))
    assert received(telnet, peer) == items


def test_a_size_that_nobody_agreed_to_tell_is_nothing() -> None:
    assert received(server(), naws(0, 80, 0, 24)) == []


# An independent reading of RFC 854: one regular expression that splits a complete stream into its parts.
_PART = re.compile(
    rb"(?P<sb>\xff\xfa(?:[^\xff]|\xff\xff)*\xff\xf0)|(?P<option>\xff[\xfb-\xfe][\0-\xff])|(?P<iac>\xff\xff)"
    rb"|(?P<command>\xff[\xf1-\xf9])|(?P<end>\r[\n\0])|(?P<byte>[\0-\xfe])",
    re.DOTALL,
)
_KEYS = {0xF4: b"\x03", 0xF7: b"\x7f", 0xF8: b"\x15"}
_parts = st.one_of(
    st.binary(max_size=8).map(lambda data: data.replace(b"\xff", b"\xff\xff")),
    st.sampled_from([b"\r\n", b"\r\0", b"\r", b"\n", b"\xff\xff", naws(0, 80, 255, 24), b"\xff\xf4", b"\xff\xf7", b"\xff\xf1"]),
    st.tuples(st.integers(WILL, DONT), st.integers(0, 255)).map(lambda pair: bytes((IAC, *pair))),
)


@given(st.lists(_parts, max_size=12), st.data())
def test_keys_are_those_of_an_independent_reading_however_the_stream_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    # Commands between a CR and its LF are out of this reader's reach: none are put there.
    stream = b"".join(part if not part.startswith(b"\xff") or part == b"\xff\xff" else b"." + part for part in parts)
    expected = bytearray()
    for match in _PART.finditer(stream):
        kind, text = match.lastgroup, match[0]
        if kind == "iac":
            expected += b"\xff"
        elif kind == "command":
            expected += _KEYS.get(text[1], b"")
        elif kind in ("end", "byte"):
            expected += text[:1]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    telnet = server()
    keys = b"".join(item for item in received(telnet, *pieces) if isinstance(item, bytes))
    assert keys == expected


@given(st.binary(max_size=300))
def test_nothing_that_comes_makes_it_fail_or_answer_more_than_was_said(data: bytes) -> None:
    telnet = server()
    received(telnet, data)
    assert len(telnet.replies) <= 5 * len(data)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_what_a_guest_writes_is_read_as_it_was_however_it_is_cut(pieces: list[bytes]) -> None:
    telnet = server()
    sent = b"".join(telnet.encode(piece) for piece in pieces)
    # The network virtual terminal: IAC doubled, CR always with LF or NUL (the last one may still wait for its partner).
    read = re.sub(rb"\r\0", b"\r", sent.replace(b"\xff\xff", b"\xff"))
    assert read == re.sub(rb"\r\0", b"\r", b"".join(pieces)) or b"\r\0" in b"".join(pieces)
    assert not re.search(rb"\r[^\n\0]", sent, re.DOTALL)
    assert not re.search(rb"(?<!\xff)(\xff\xff)*\xff(?!\xff)", sent)
