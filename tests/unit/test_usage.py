# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong usage of any command or service is one line with status 2; what is tried here comes from the commands themselves."""

from __future__ import annotations

import io
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib import metadata
from typing import Any

import pytest
from typer.main import get_command

import splitvisor
from splitvisor.cli.app import make_app
from splitvisor.cli.flags import MAY_BE_EMPTY, read
from splitvisor.cli.run import run
from splitvisor.errors.similar import did_you_mean, similar
from splitvisor.service import health
from splitvisor.service import main as service_main
from splitvisor.service.names import ALL_SERVICE_NAMES

APP: Any = get_command(make_app())


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        elif name not in ("service", "health"):  # They read their arguments themselves.
            yield (*path, name), command


def make_commands() -> list[tuple[tuple[str, ...], Any]]:
    return list(leaves(APP))


COMMANDS = make_commands()
OPTIONS = [
    pytest.param(path, each, id=" ".join((*path, max(each.opts, key=len))))
    for path, command in COMMANDS
    for each in command.params
    if each.param_type_name == "option" and not each.is_flag and each.name != "help"
]


def wrong(*arguments: str) -> str:
    """Run a command that is used wrongly; return the line that it prints."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr), pytest.raises(SystemExit) as ended:
        APP.main(list(arguments), prog_name="splitvisor")
    assert (ended.value.code, stdout.getvalue(), stderr.getvalue().count("\n")) == (2, "", 1), (arguments, stderr.getvalue())
    return stderr.getvalue().rstrip("\n")


def longest(option: Any) -> str:
    return str(max(option.opts, key=len))


def test_the_tree_of_commands_is_all_there() -> None:
    assert len(COMMANDS) > 40
    assert len(OPTIONS) > 150
    assert {path[0] for path, _ in COMMANDS} >= {"run", "vm", "console", "dt", "bench", "certs", "record", "replay", "fault"}


@pytest.mark.parametrize(("path", "option"), OPTIONS)
def test_an_option_is_neither_empty_nor_given_twice(path: tuple[str, ...], option: Any) -> None:
    name, where = longest(option), f"splitvisor {' '.join(path)}: "
    if option.name not in MAY_BE_EMPTY:
        assert wrong(*path, name, "").startswith(f"{where}{name} is empty; give a value")
        assert wrong(*path, f"{name}=").startswith(f"{where}{name} is empty; give a value")
    if not option.multiple:
        assert wrong(*path, name, "1", name, "2") == f"{where}{name} is given 2 times; give it once"


def kind(option: Any) -> Any:
    return option.type_descriptor.annotation


def is_choice(option: Any) -> bool:
    return bool(option.type_descriptor.is_choice)


NUMBERS = [each for each in OPTIONS if kind(each.values[1]) in (int, float)]
CHOICES = [each for each in OPTIONS if is_choice(each.values[1])]


@pytest.mark.parametrize(("path", "option"), NUMBERS)
def test_a_number_is_a_number_in_its_range(path: tuple[str, ...], option: Any) -> None:
    name, where = longest(option), f"splitvisor {' '.join(path)}: "
    whole = kind(option) is int
    what = "a whole number" if whole else "a number"
    assert wrong(*path, name, "many").startswith(f"{where}{name}: 'many' is not {what}")
    if whole:
        assert wrong(*path, name, "1.5").startswith(f"{where}{name}: '1.5' is not {what}; ")
    else:
        for text in ("nan", "inf", "-inf"):
            assert wrong(*path, name, text).startswith(f"{where}{name}: ")
    limits = option.type_descriptor.parameter_info
    if limits.min is not None:
        assert wrong(*path, name, str(limits.min - 1)).startswith(
            f"{where}{name}: {limits.min - 1} is too small; give {limits.min:g}"
        )
    if limits.max is not None:
        assert wrong(*path, name, str(limits.max + 1)).startswith(f"{where}{name}: {limits.max + 1} is too large; give ")


@pytest.mark.parametrize(("path", "option"), CHOICES)
def test_a_choice_lists_what_there_is(path: tuple[str, ...], option: Any) -> None:
    assert "'nonsense' is not one of '" in wrong(*path, longest(option), "nonsense")


@pytest.mark.parametrize(("path", "option"), OPTIONS)
def test_a_mistyped_option_is_recognized(path: tuple[str, ...], option: Any) -> None:
    name = longest(option)
    mistyped = name.replace(name[-3:-1], name[-2] + name[-3]) if len(name) > 6 else f"{name}x"
    if mistyped != name:
        assert name in wrong(*path, mistyped, "1").partition("; did you mean ")[2], mistyped


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
def test_a_mistyped_command_is_recognized(path: tuple[str, ...]) -> None:
    *groups, name = path
    line = wrong(*groups, f"{name}e")
    assert line.startswith(f"splitvisor{''.join(f' {each}' for each in groups)}: no such command '{name}e'; did you mean ")
    assert name in line.partition("did you mean ")[2]


def test_what_is_missing_or_too_much_is_named() -> None:
    assert wrong("vm", "status") == "splitvisor vm status: NAME is missing; `splitvisor vm status --help` shows how it is used"
    assert wrong("vm", "status", "") == "splitvisor vm status: NAME is empty; give a value"
    assert wrong("run", "--smp").startswith("splitvisor run: option '--smp' requires an argument; `splitvisor run --help`")
    assert wrong("run", "more").startswith("splitvisor run: got unexpected extra argument(s) (more); `splitvisor run --help`")
    assert wrong("certs", "issue", "DIR").startswith("splitvisor certs issue: --role is missing; ")


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("vm",)):
        with pytest.raises(SystemExit) as ended:
            APP.main(list(arguments), prog_name="splitvisor")
        assert ended.value.code == 2
        shown = capsys.readouterr()
        assert "Usage: splitvisor" in shown.out + shown.err


@pytest.mark.parametrize(
    "arguments", [["--store", ""], ["--store="], ["--smp", "1", "--smp", "2"], ["--timeout", "nan"], ["--kernel", ""]]
)
def test_the_quick_way_leaves_wrong_usage_to_typer(arguments: list[str]) -> None:
    assert read(run, arguments) is None
    assert read(run, ["--append", "", "--backend", "a=b", "--backend", "c=d"]) == {"append": "", "backend": ["a=b", "c=d"]}


# Services.

PARSERS = {
    **{f"service {name.command}": service_main.make_parser(name, name.load().Options) for name in ALL_SERVICE_NAMES},
    "health": health.make_parser(),
}
FLAGS = [
    pytest.param(command, action, id=f"{command} {action.option_strings[-1]}")
    for command, parser in PARSERS.items()
    for action in parser._actions
    if action.option_strings and action.nargs != 0
]


def refused(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        PARSERS[command].parse_args(arguments)
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out, shown.err.count("\n")) == (2, "", 1), shown
    return shown.err.rstrip("\n")


@pytest.mark.parametrize(("command", "action"), FLAGS)
def test_a_flag_of_a_service_is_neither_empty_nor_given_twice(
    capsys: pytest.CaptureFixture[str], command: str, action: Any
) -> None:
    name, where = action.option_strings[-1], f"splitvisor {command}: "
    assert refused(capsys, command, name, "") == f"{where}{name} is empty; give a value, or leave it out"
    if "Append" not in type(action).__name__:
        value = "info" if name == "--log-level" else "1"
        assert refused(capsys, command, name, value, name, value) == f"{where}{name} is given twice; give it once"
    kinds = [type(action.default)]
    if int in kinds or float in kinds:
        assert refused(capsys, command, name, "many").startswith(f"{where}{name}: 'many' is not a ")
        assert refused(capsys, command, name, "nan").startswith(f"{where}{name}: 'nan' is not a ")
    needed = [text for each in PARSERS[command]._actions if each.required for text in (*each.option_strings[-1:], "1")]
    assert name in refused(capsys, command, *needed, f"{name}x", "1").partition("; did you mean ")[2]


def test_a_service_is_known_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert service_main.main(["cppu"]) == 2
    assert capsys.readouterr().err == "splitvisor service: no service 'cppu'; did you mean cpu?\n"
    assert service_main.main(["xyzzy"]) == 2
    assert (
        capsys.readouterr().err == "splitvisor service: no service 'xyzzy'; known: cpu, hcall, vio, of-client, gateway, fault\n"
    )


@pytest.mark.parametrize("command", [["--version"], ["service", "cpu", "--version"]])
def test_the_versions_are_told_in_one_line(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "splitvisor", *command], capture_output=True, text=True, check=True)
    versions = f"Python {platform.python_version()}, unicorn {metadata.version('unicorn')}"
    assert (done.stdout, done.stderr) == (f"splitvisor {splitvisor.__version__} ({versions})\n", "")


def test_names_that_are_alike() -> None:
    known = ["build", "web-1", "web-2", "database"]
    assert did_you_mean("biuld", known) == "did you mean build?"
    assert similar("WEB-1", known)[0] == "web-1"
    assert similar("data", known) == ["database"]
    assert did_you_mean("nothing", known) == did_you_mean("", known) == ""


@pytest.mark.parametrize("bench", ["boot", "record", "slof"])
def test_a_bench_refuses_a_size_before_it_measures(bench: str) -> None:
    assert wrong("bench", bench, "--memory", "512").endswith(f"bench {bench}: --memory: 512 is out of range; did you mean 512M?")
    assert wrong("bench", bench, "--memory", "foo").startswith(f"splitvisor bench {bench}: --memory: 'foo' is not a size; give")
