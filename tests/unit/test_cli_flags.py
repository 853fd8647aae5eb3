# SPDX-License-Identifier: GPL-2.0-or-later
"""Flags read without typer mean what they mean with it; what is not plain is left to typer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from splitvisor.cli import flags
from splitvisor.cli.app import make_app
from splitvisor.cli.run import LogLevel, run
from splitvisor.machine.service_addresses import CONNECT_VARIABLE

PLAIN: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--kernel", "debian", "--append", "console=hvc0 panic=-1"], {"kernel": "debian", "append": "console=hvc0 panic=-1"}),
    (["-m", "1G", "--smp=2", "--timeout", "2.5"], {"memory": "1G", "smp": 2, "timeout": 2.5}),
    (["--append="], {"append": ""}),
    (["--from", "a/b", "--flat-tree"], {"snapshot": Path("a/b"), "flat_tree": True}),
    (["--boot", "cdrom,disk"], {"boot": "cdrom,disk"}),
    (["--no-shared-memory"], {"no_shared_memory": True}),
    (["--backend", "a=b", "--backend", "c=d"], {"backend": ["a=b", "c=d"]}),
    (["--log-level", "debug"], {"log_level": LogLevel.DEBUG}),
    (["--exit-on", "a=b=c", "--report=r=s"], {"exit_on": "a=b=c", "report": Path("r=s")}),
]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONNECT_VARIABLE, raising=False)


@pytest.mark.parametrize(("arguments", "values"), PLAIN)
def test_what_is_plain_is_read_as_typer_reads_it(arguments: list[str], values: dict[str, Any]) -> None:
    assert flags.read(run, arguments) == values
    assert {name: value for name, value in _by_typer(arguments).items() if name in values} == values


def test_what_is_not_given_has_the_functions_default() -> None:
    assert _by_typer([]) == run.__kwdefaults__


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["-h"], ["--krenel", "x"], ["--kernel"], ["kernel"], ["--", "x"], ["--smp", "many"], ["--smp", "-1"],
        ["--timeout", "0"], ["--timeout", "1e3"], ["--flat-tree=yes"], ["--log-level", "loud"], ["-m1G"], ["--append", "--smp"],
        ["--tls", "directory"], ["--kern", "x"], ["--smp", "\u0663"], ["--timeout", "."],
    ],
)  # fmt: skip
def test_what_is_not_plain_is_typers(arguments: list[str]) -> None:
    assert flags.read(run, arguments) is None


def test_a_variable_in_place_of_a_flag_is_typers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONNECT_VARIABLE, "cpu=unix:/there")
    assert flags.read(run, []) is None
    assert flags.read(run, ["--connect", "vio=unix:/here"]) == {"connect": ["vio=unix:/here"]}


def test_what_a_command_returns_is_its_exit_status() -> None:
    def command() -> int:
        return 3

    app = typer.Typer()
    app.command()(flags.for_typer(command))
    assert CliRunner().invoke(app, []).exit_code == 3


def _by_typer(arguments: list[str]) -> dict[str, Any]:
    """The values that typer calls run() with."""
    seen: dict[str, Any] = {}
    typed = flags.for_typer(run)

    def command(**values: Any) -> None:
        seen.update(values)

    vars(command).update(__signature__=vars(typed)["__signature__"])
    command.__annotations__ = typed.__annotations__
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return seen


@pytest.mark.parametrize(
    "arguments", [["--timeout", "nan"], ["--timeout", "inf"], ["--timeout=-1"], ["--timeout", "9" * 30], ["--exit-on="]]
)
def test_a_run_is_refused_that_would_never_end_or_end_at_once(arguments: list[str]) -> None:
    given = flags.read(run, arguments)
    assert given is None or run(**given) == 2
    assert CliRunner().invoke(make_app("run"), ["run", *arguments]).exit_code == 2
