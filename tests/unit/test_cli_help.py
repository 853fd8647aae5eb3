# SPDX-License-Identifier: GPL-2.0-or-later
"""Help texts come out as they were written: what stands in brackets is a remark, and must not be taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.text import Text
from typer.main import get_command

from splitvisor.cli.app import make_app
from splitvisor.service.main import _fields
from splitvisor.service.names import ALL_SERVICE_NAMES, ServiceName

MARKUP = re.compile(r"\[/?(bold|/)?\]")
"""What is used on purpose."""


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """A command with all that are below it, by what one types."""
    yield name, command
    for key, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {key}")


def help_texts() -> Iterator[tuple[str, str]]:
    for name, command in commands(get_command(make_app()), "splitvisor"):
        yield name, command.help or ""
        for parameter in command.params:
            yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""


def test_no_part_of_a_help_text_is_lost() -> None:
    texts = dict(help_texts())
    assert len(texts) > 200
    for where, text in texts.items():
        written = MARKUP.sub("", text).replace("\\[", "[")
        assert Text.from_markup(text).plain.replace("\\", "") == written.replace("\\", ""), where


def test_every_parameter_says_what_it_is() -> None:
    silent = {"dt get arguments", "dt diff arguments", "service arguments", "health arguments"}
    assert [where for where, text in help_texts() if not text.strip() and where.removeprefix("splitvisor ") not in silent] == []


def test_usage_lines_have_one_pair_of_brackets() -> None:
    names = [
        (name, parameter.metavar)
        for name, command in commands(get_command(make_app()), "splitvisor")
        for parameter in command.params
        if parameter.metavar is not None and re.fullmatch(r"\[\w+\]", parameter.metavar)
    ]
    assert names == []


@pytest.mark.parametrize("name", ALL_SERVICE_NAMES, ids=lambda name: name.command)
def test_every_flag_of_a_service_says_what_it_is(name: ServiceName) -> None:
    flags = _fields(name.load().Options)
    assert flags
    assert [flag.flag for flag in flags if not flag.help] == []
