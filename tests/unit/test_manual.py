# SPDX-License-Identifier: GPL-2.0-or-later
"""The man page has every command, flag, variable and exit status, and troff takes it as it is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from splitvisor.cli.app import make_app
from splitvisor.devtools import manual
from splitvisor.run.exit_status import ExitStatus
from splitvisor.service.main import make_parser
from splitvisor.service.names import ALL_SERVICE_NAMES

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("splitvisor", "cpu_service", "hcall_service", "vio_service", "of_client_service", "gateway_service")
NOT_FOR_USERS = {"PYTHONPATH"}


@pytest.fixture(scope="module")
def page() -> str:
    return manual.manual()


@pytest.fixture(scope="module")
def plain(page: str) -> str:
    """The page without troff's escapes."""
    return re.sub(r"\\f.|\\&", "", page).replace(r"\-", "-").replace(r"\(cq", "'")


def commands(group: Any, path: str) -> list[tuple[str, Any]]:
    found = []
    for name, command in group.commands.items():
        found += commands(command, f"{path} {name}") if hasattr(command, "commands") else [(f"{path} {name}", command)]
    return found


def test_every_command_has_a_part_with_its_flags(plain: str) -> None:
    described = re.split(r"^\.S[SH] ", plain, flags=re.MULTILINE)
    parts = {re.sub(r" [A-Z[].*", "", part.partition("\n")[0]): part for part in described}
    for path, command in commands(get_command(make_app()), "splitvisor"):
        flags = [name for each in command.params if each.param_type_name == "option" for name in each.opts if name != "--help"]
        assert [name for name in flags if name not in parts[path]] == [], path
    for name in ALL_SERVICE_NAMES:
        flags = re.findall(r"--[a-z-]+", make_parser(name, name.load().Options).format_usage())
        missing = {flag for flag in flags if flag not in parts[name.program]}
        assert missing == {"--tls", "--tls-cert", "--tls-key", "--tls-ca"}  # They have a section of their own.


def test_every_variable_that_users_set_is_in_it() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "devtools" not in path.parts]
    sources = [path.read_text() for path in files]
    read = {name for text in sources for name in re.findall(r'environ(?:\.get\(|\[)"(\w+)"', text)}
    named = {name for text in sources for name in re.findall(r'^\w+_VARIABLE = "(\w+)"', text, re.MULTILINE)}
    assert read > NOT_FOR_USERS
    assert (read | named) - NOT_FOR_USERS <= {name for name, _ in manual.ENVIRONMENT}


def test_every_exit_status_of_a_run_is_explained() -> None:
    assert [int(status) for status, _ in manual.exit_statuses()] == list(ExitStatus)
    assert dict(manual.exit_statuses())["124"] == "--timeout expired."


def test_a_line_is_not_taken_for_a_request() -> None:
    """A dot or an apostrophe that begins a line would make one."""
    lines = list(manual.list_of([("-a", ".b"), ("c", "'d' [bold]e[/] `f-g` \\[h] i\\j")]))
    assert lines == [".TP", r"\fB\-a\fR", r"\&.b", ".TP", r"\fBc\fR", r"\(cqd\(cq \fBe\fR \fBf\-g\fR [h] i\ej"]


def test_troff_warns_of_nothing(page: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Kutf8"], input=page, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
