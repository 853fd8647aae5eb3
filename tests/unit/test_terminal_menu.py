# SPDX-License-Identifier: GPL-2.0-or-later
"""The menu's keys are found anywhere in what is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitvisor.terminal.menu import HELP, MENU, Command, MenuFilter


def fed(*pieces: bytes) -> tuple[list[bytes | Command], bool]:
    menu = MenuFilter()
    return joined(item for piece in pieces for item in menu.feed(piece)), menu.is_open


def joined(items: object) -> list[bytes | Command]:
    """Neighbouring bytes in one."""
    result: list[bytes | Command] = []
    for item in items:  # type: ignore[attr-defined]
        if isinstance(item, bytes) and result and isinstance(result[-1], bytes):
            result[-1] += item
        else:
            result.append(item)
    return result


@pytest.mark.parametrize(
    ("pieces", "items", "is_open"),
    [
        ((b"ls\r",), [b"ls\r"], False),
        ((b"abc\x1dqdef",), [b"abc", Command.QUIT, b"def"], False),
        ((b"abc\x1d", b"q"), [b"abc", Command.QUIT], False),
        ((b"\x1d\x1dq",), [b"\x1dq"], False),
        ((b"\x1d", b"\x1d", b"\x1d", b"q"), [b"\x1d", Command.QUIT], False),
        ((b"\x1dxy",), [b"y"], False),
        ((b"q\x1d",), [b"q"], True),
        ((b"a\x1d", b"", b"?b\x1dsc"), [b"a", Command.HELP, b"b", Command.STATUS, b"c"], False),
    ],
)
def test_a_key_after_the_escape_is_a_command(pieces: tuple[bytes, ...], items: list[bytes | Command], is_open: bool) -> None:
    assert fed(*pieces) == (items, is_open)


@given(st.lists(st.sampled_from([b"\x1d", b"q", b"f", b"x", b"?", b"\r", b"text"]), max_size=12), st.data())
def test_it_does_not_matter_how_the_input_is_cut(keys: list[bytes], data: st.DataObject) -> None:
    typed = b"".join(keys)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(typed)), max_size=5)))
    pieces = [typed[start:end] for start, end in zip([0, *cuts], [*cuts, len(typed)], strict=True)]
    assert fed(*pieces) == fed(typed)


def test_every_command_is_in_the_menu_and_in_the_help() -> None:
    for command in Command:
        assert f"{command.value} " in MENU
        assert any(line.startswith(f"{command.value}  ") for line in HELP)
