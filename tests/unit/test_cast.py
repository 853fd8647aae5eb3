# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorded run: what a terminal shows becomes frames, and frames a drawing that stands by itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from splitvisor.devtools import cast
from splitvisor.devtools.cast import CastError, Frame, Run, Step

PICTURE = Path(__file__).resolve().parent.parent.parent / "docs/pictures/boot.svg"
SVG = "{http://www.w3.org/2000/svg}"


def texts(line: tuple[Run, ...]) -> str:
    return "".join(run.text for run in line)


def test_a_shell_is_recorded_with_colours_and_times() -> None:
    steps = (Step(cast.PROMPT, r"printf 'one \033[1;31mtwo\033[0m\n'"),)
    frames = cast.record(steps, os.environ)
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)
    line = next(line for line in frames[-1].lines if texts(line).startswith("one"))
    assert [(run.column, run.text, run.colour, run.bold) for run in line] == [
        (0, "one", cast.FOREGROUND, False),
        (4, "two", cast.COLOURS["red"], True),
    ]


def test_a_prompt_that_does_not_come_is_an_error_with_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cast, "WAIT_SECONDS", 2.0)
    with pytest.raises(CastError, match=r"no prompt 'never# '.*\n(.*\n)*\$ echo here"):
        cast.record((Step(cast.PROMPT, "echo here"), Step("never# ", "")), os.environ)


def test_a_line_is_drawn_once_and_its_text_is_escaped() -> None:
    line = (Run(2, "a < b & c", cast.FOREGROUND, "", False),)
    drawing = ElementTree.fromstring(cast.draw([Frame(0, (line, ())), Frame(1, ((), line))], 'a "run"'))
    (definition,) = drawing.findall(f"{SVG}defs/{SVG}g")
    assert [text.text for text in definition] == ["a < b & c"]
    uses = [use.attrib for use in drawing.iter(f"{SVG}use")]
    assert [use["y"] for use in uses] == ["0", str((cast.ROWS + 1) * cast.CELL_HEIGHT)]
    assert {use["href"] for use in uses} == {f"#{definition.attrib['id']}"}


def test_the_picture_in_the_documentation_is_a_whole_run_and_needs_nothing_from_elsewhere() -> None:
    content = PICTURE.read_bytes()
    assert len(content) <= cast.MAX_BYTES
    drawing = ElementTree.fromstring(content)
    shown = [text.text or "" for text in drawing.iter(f"{SVG}text")]
    assert [step.line for step in cast.BOOT if not any(text.endswith(step.line) for text in shown)] == []
    assert any("reboot: Power down" in text for text in shown)
    assert re.findall(rb"https?://(?!www\.w3\.org/2000/svg)|url\(|<script", content) == []
