# SPDX-License-Identifier: GPL-2.0-or-later
"""Where output may be cut, against a parser that goes character by character, and which sequences are queries."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from splitvisor.terminal.sequences import (
    OPEN_BYTES,
    Boundary,
    QueryFilter,
    boundary_after,
    unfinished,
    unit_end,
    units_end,
    without_queries,
)

INTRODUCERS = {"\x90": "dcs", "\x98": "sos", "\x9b": "csi", "\x9d": "osc", "\x9e": "pm", "\x9f": "apc"}
AFTER_ESCAPE = {"P": "dcs", "X": "sos", "[": "csi", "]": "osc", "^": "pm", "_": "apc"}


class Parser:
    """DEC's state machine, by character: an oracle that has nothing in common with the expressions under test."""

    def __init__(self) -> None:
        self.state = "ground"

    def feed(self, character: str) -> None:  # noqa: PLR0912 - a table of states would be the implementation again
        state, code = self.state, ord(character)
        if state not in ("ground", "escape", "middle", "csi"):
            if character == "\x1b":
                self.state = "string-escape"
                return
            if state != "string-escape":
                if character in "\x18\x1a\x9c" or (character == "\x07" and state == "osc"):
                    self.state = "ground"
                elif 0x80 <= code < 0xA0:
                    self.state = INTRODUCERS.get(character, "ground")
                return
            if character == "\\":
                self.state = "ground"
                return
            state = "escape"
        if character == "\x1b":
            self.state = "escape"
        elif character in "\x18\x1a":
            self.state = "ground"
        elif code >= 0x80:
            self.state = INTRODUCERS.get(character, "ground")
        elif state == "ground" or code < 0x20 or code == 0x7F:
            self.state = state
        elif state == "csi":
            self.state = "ground" if code >= 0x40 else "csi"
        elif code < 0x30:
            self.state = "middle"
        else:
            self.state = AFTER_ESCAPE.get(character, "ground") if state == "escape" else "ground"


PIECES = st.sampled_from(
    ["\x1b", "[", "]", "P", "_", "\\", "\x07", "\x18", "6", ";", "?", "$", "n", "m", "A", " ", "\n", "\x05", "é", "€", "😀",
     "\x9b", "\x9c", "\x9d", "\x90", "\x85", "\x1b[31m", "\x1b]0;t\x07", "\x1b[6n", "text", "°"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join))
def test_units_end_where_the_parser_is_in_ground_state(text: str) -> None:
    parser = Parser()
    shown = b""
    for character in text:
        parser.feed(character)
        shown += character.encode()
        assert (units_end(shown) == len(shown)) == (parser.state == "ground"), shown


@given(st.lists(st.one_of(PIECES.map(str.encode), st.binary(max_size=3)), max_size=40), st.data())
def test_pieces_have_their_boundaries_where_the_whole_has_them(pieces: list[bytes], data: st.DataObject) -> None:
    whole, boundary, last, position = b"".join(pieces), Boundary(), 0, 0
    for piece in pieces:
        rest = boundary.feed(piece)
        position += len(piece)
        if rest is not None:
            last = position - rest
        assert boundary.open == whole[last:position]
    assert last == units_end(whole)
    start = data.draw(st.integers(0, len(whole)))
    begun = units_end(whole, 0, start)
    end = unit_end(whole, begun) if begun < start else begun
    assert end is None or end + units_end(whole[end:]) == last, "whoever begins there comes to the same places"


@given(st.binary(max_size=200))
def test_without_queries_nothing_moves(data: bytes) -> None:
    shown = without_queries(data)
    assert len(shown) == len(data)
    assert all(new in (old, 0) for old, new in zip(data, shown, strict=True))
    assert without_queries(shown) == shown


@pytest.mark.parametrize("start", [b"\x1b]0;", b"\x1bP", b"\x1b_", b"\x1b[", b"\xc2\x9d", b"\x1b("])
def test_an_endless_unit_is_remembered_by_its_kind(start: bytes) -> None:
    boundary = Boundary()
    boundary.feed(start)
    for _ in range(3 * OPEN_BYTES // 100):
        assert boundary.feed(b"1" * 100 if start != b"\x1b(" else b" " * 100) is None
    assert 0 < len(boundary.open) <= OPEN_BYTES
    end = b"m" if start in (b"\x1b[", b"\x1b(") else b"\x1b\\"
    assert boundary.feed(end[:1]) in (None, 0)
    boundary.feed(end[1:])
    assert boundary.feed(b"x") == 0
    assert unfinished(b"x") == b""


CONTROL = (
    "6n 5n ?6n ?15n ?26n ?53n ?996n 7n "
    "c 0c >c >0c =c x 0x 1x 11t 13t 13;2t 14t 14;2t 15t 16t 18t 19t 20t 21t 021t ?25$p 4$p "
    "+p >q >0q ?u 1$u 2;1$u &u 1,u "
    "1$w 2$w \"v 1;1;1;1;24;80*y '| 0'| 1;1;2;2#| #R ?1;1;0S ?4m ?2048h ?25;2048h 6\nn 6\x05n \n>\x00c"
)
STRINGS = (
    "]10;? ]11;? ]4;1;? ]4;0;?;1;? ]5;0;? ]104;? ]012;? ]52;c;? ]52;;? ]50;? "
    "]21;foreground=? ]22;?__current__ ]60 ]61 "
    "]1337;ReportCellSize "
    ']1337;ReportVariable=x ]99;i=1:p=?; ]3;?prop ]702;? P$qm P$q"p P+q544e P+Qx P0;1zz _Gi=31,s=1,a=q;AAAA ^x Xx'
)


@pytest.mark.parametrize("body", CONTROL.split(" "))
@pytest.mark.parametrize("start", [b"\x1b[", b"\x1b\n[", b"\xc2\x9b", b"\x9b"])
def test_a_control_sequence_that_is_answered_is_left_out(start: bytes, body: str) -> None:
    query = start + body.encode()
    assert without_queries(b"before " + query + b" after") == b"before " + bytes(len(query)) + b" after"


@pytest.mark.parametrize("body", STRINGS.split(" "))
@pytest.mark.parametrize("end", [b"\x1b\\", b"\xc2\x9c", b"\x9c", b"\x07"])
def test_a_control_string_that_is_answered_is_left_out(body: str, end: bytes) -> None:
    eight_bits = {"]": b"\x9d", "P": b"\x90", "_": b"\x9f", "^": b"\x9e", "X": b"\x98"}[body[0]]
    starts = [b"\x1b" + body[:1].encode(), b"\xc2" + eight_bits]
    for start in [eight_bits] if end == b"\x9c" else starts if end != b"\x07" or body[0] == "]" else []:
        query = start + body[1:].encode() + end
        assert without_queries(b"before " + query + b" after") == b"before " + bytes(len(query)) + b" after", query


@pytest.mark.parametrize("query", [b"\x05", b"\x1bZ", b"\x1b\rZ", b"\xc2\x9a", b"\x9a"])
def test_a_control_character_that_is_answered_is_left_out(query: bytes) -> None:
    assert without_queries(b"before " + query + b" after") == b"before " + bytes(len(query)) + b" after"


def test_a_query_inside_of_a_string_for_another_terminal_is_left_out() -> None:
    shown = without_queries(b"\x1bPtmux;\x1b\x1b]11;?\x07\x1b\\\x1bP\x1b[6n\x1b\\")
    assert b"?" not in shown
    assert b"6n" not in shown


@pytest.mark.parametrize(
    "text",
    ["\x1b[31m", "\x1b[2J", "\x1b]0;what?\x07", "\x1b]8;;http://x?y\x1b\\", "\x1b[8;24;80t", "\x1b[2 q", "\x1b[u", "\x1b[?25h",
     "\x1b[!p", "\x1bPq#0~\x1b\\", "\x1b(B", "\x1b[1;5r", "\u26446n", "\x1b[?1c", "\u015a", "\x1b[>4;1m", "\x1b[22;0t", "\x1b[4h",
     "\x1b[?1049h", "\x1b[>1u", "\x1b[<u", "\x1b[1q", "\x1b]133;A?\x07", "\x1b]2;a?\x1b\\", "\x1b[?1;2c", "[6n", "\x1b[?2004h",
     "\x1bc", "Zcnx?", "\x1b[6"],
)  # fmt: skip
def test_what_nobody_answers_stays(text: str) -> None:
    assert without_queries(text.encode()) == text.encode()


@given(st.lists(st.one_of(PIECES.map(str.encode), st.binary(max_size=3)), max_size=40))
@example([b"\xc2\x90", b"\x1b", b"\x1b", b"\x1b"])  # A query that the begin of the next sequence ends.
def test_a_filter_shows_in_pieces_what_it_shows_of_the_whole(pieces: list[bytes]) -> None:
    stream = QueryFilter()
    shown, whole = b"".join(stream.feed(piece) for piece in pieces), b"".join(pieces)
    assert shown == without_queries(whole)[: units_end(whole)]


@pytest.mark.parametrize(
    ("before", "again"), [(b"\x1b[3", b"\x1b[3"), (b"text", b""), (b"\xe2\x82", b"\xe2\x82"), (b"\x1b]0;title", b"\x1b]0;title")]
)
def test_a_notice_ends_what_is_unfinished_and_begins_it_again(before: bytes, again: bytes) -> None:
    boundary = Boundary()
    boundary.feed(before)
    aborted = b"\x18" if again[:1] == b"\x1b" else b""
    assert boundary.interject(b"[note]") == aborted + b"[note]" + again
    assert boundary.interject(b"[note]", lost=True) == aborted + b"[note]"
    assert boundary.interject(b"[note]") == b"[note]"


def test_where_a_file_goes_on_between_two_units_is_learnt_from_what_is_before() -> None:
    text = b"\x1b[1;31m" * 20
    assert [boundary_after(text[3:], position) for position in (25, 26, 32, 137)] == [25, 32, 32, 137]
    assert boundary_after(b"text\x1b[3", 6) == 7
