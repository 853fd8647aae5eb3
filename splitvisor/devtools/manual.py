# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the man page splitvisor(1) from the commands and their help: `./dev docs`.

Commands that typer reads and services, which argparse reads, end up as the same lists of entries.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

import splitvisor
from splitvisor.cli.app import make_app
from splitvisor.machine.service_addresses import CONNECT_VARIABLE
from splitvisor.net.tls_flags import FLAGS, flag
from splitvisor.run.exit_status import ExitStatus
from splitvisor.service import health
from splitvisor.service.main import make_parser
from splitvisor.service.names import ALL_SERVICE_NAMES

Entry = tuple[str, str]
"""What one types, which is printed in bold, and what it means, in typer's markup."""

SUMMARY = "virtual POWER machines whose devices and firmware are separate processes"
DESCRIPTION = """
Splitvisor implements PAPR, the interface that IBM's POWER servers give to operating systems, in software. The CPU of a virtual
machine runs in one process; its devices, its firmware and its device trees run in others, which it reaches over gRPC.

`splitvisor run` starts all of them, runs a guest on this terminal and stops them again. The other commands look at a running
machine and change it.
"""

ENVIRONMENT: tuple[Entry, ...] = (
    (CONNECT_VARIABLE, "Services that run already, as for `splitvisor run --connect`: NAME=ADDRESS, separated by commas."),
    *((environment, f"{text[0].upper()}{text[1:]}.") for _, environment, text in FLAGS.values()),
    ("SPLITVISOR_CACHE", "The directory of guests and firmware, instead of ~/.cache/splitvisor/guests."),
    ("XDG_RUNTIME_DIR", "The directory for sockets. Without it, or if its path has more than 60 bytes, /tmp."),
    ("TMPDIR", "The directory of what guests write to disks with `snapshot`, instead of /var/tmp. Nothing is left there."),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "The OTLP collector that services send spans to, as for `splitvisor service NAME --otel`."),
    ("NO_COLOR", "If set, the output of `splitvisor dt` has no colours."),
    ("USER", "The name under which others see this user at a console."),
)
FILES: tuple[Entry, ...] = (
    ("~/.cache/splitvisor/guests", "Guests and firmware that `splitvisor guests` fetched."),
    ("$XDG_RUNTIME_DIR/splitvisor-*", "A run's sockets, its device trees, and run.json, by which other commands find it."),
    (
        "/dev/shm/splitvisor-*",
        "The guest's RAM.",
    ),
)
CERTIFICATE = "Every command that talks to services takes these:"
PARSED = {"health": health.make_parser}
"""Commands that typer passes on to argparse."""
LIFETIME = "A run deletes its directories when it ends. What a killed run left is deleted by the next one."
OTHER_STATUS = "Other commands end with 0 on success, 1 on failure and 2 on bad usage, unless their description says otherwise."


def manual() -> str:
    """Return the page."""
    app = get_command(make_app())
    return "\n".join(
        [
            f'.TH SPLITVISOR 1 "" "splitvisor {splitvisor.__version__}" "User Commands"',
            *_section("NAME", f"splitvisor - {_text(SUMMARY)}"),
            *_section("SYNOPSIS", r"\fBsplitvisor\fR \fICOMMAND\fR [\fIOPTIONS\fR]"),
            *_section("DESCRIPTION", *_paragraphs(DESCRIPTION)),
            *_section("COMMANDS", *_commands(app, "splitvisor")),
            *_section("SERVICES", *_services()),
            *_section("CERTIFICATE OPTIONS", _text(CERTIFICATE), *list_of(_certificate())),
            *_section("ENVIRONMENT", *list_of(ENVIRONMENT)),
            *_section("FILES", *list_of(FILES), ".PP", _text(LIFETIME)),
            *_section("EXIT STATUS", _text("Of `splitvisor run`:"), *list_of(exit_statuses()), ".PP", _text(OTHER_STATUS)),
            *_section("SEE ALSO", r"\fBdtc\fR(1), \fBqemu\-system\-ppc64\fR(1)"),
            "",
        ]
    )


def exit_statuses() -> list[Entry]:
    """Return the exit statuses of `splitvisor run`, with the text below each in the source."""
    (definition,) = ast.parse(inspect.getsource(ExitStatus)).body
    assert isinstance(definition, ast.ClassDef)
    texts = [each.value.value for each in definition.body if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)]
    return [(str(status.value), str(text)) for status, text in zip(ExitStatus, texts[1:], strict=True)]


def _certificate() -> Iterator[Entry]:
    for name, (metavar, environment, text) in FLAGS.items():
        yield f"{flag(name)} {metavar}", f"{text[0].upper()}{text[1:]}. Environment: {environment}."


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        here = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, here)
            continue
        if name in PARSED:
            yield from _program(PARSED[name]())
            continue
        parameters = [each for each in command.params if each.name not in FLAGS and "--help" not in each.opts]
        arguments = [_argument(each) for each in parameters if each.param_type_name == "argument"]
        yield f".SS {_text(' '.join([here, *(name for name, _ in arguments)]))}"
        yield from _paragraphs(command.help)
        yield from list_of(entry for entry in arguments if entry[1])
        yield from list_of(_option(each) for each in parameters if each.param_type_name == "option")


def _argument(parameter: Any) -> Entry:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]", parameter.help or ""


def _option(parameter: Any) -> Entry:
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    hidden = parameter.default in (None, False, "") or not parameter.show_default
    default = "" if hidden else f" (default: {parameter.default})"
    return names + value, f"{parameter.help}{default}"


def _services() -> Iterator[str]:
    for name in ALL_SERVICE_NAMES:
        yield from _program(make_parser(name, name.load().Options))


def _program(program: argparse.ArgumentParser) -> Iterator[str]:
    """Describe a program that argparse reads."""
    actions = [each for each in vars(program)["_actions"] if each.dest not in {*FLAGS, "help"}]
    entries = []
    for each in actions:
        written = ", ".join(each.option_strings)
        entries.append((f"{written} {each.metavar or ''}".strip(), (each.help or "").replace("[", "\\[")))
    arguments = "".join(f" {each.metavar}" for each in actions if not each.option_strings)
    yield f".SS {_text(program.prog + arguments)}"
    yield from _paragraphs(f"{program.description} {program.epilog}")
    yield from list_of(entries)


def _section(title: str, *lines: str) -> list[str]:
    return [f".SH {title}", *lines]


def _paragraphs(markup: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(markup)):
        yield ".PP"
        yield _text(paragraph)


def list_of(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the lines of a list."""
    for name, text in entries:
        yield ".TP"
        yield rf"\fB{_text(name)}\fR"
        yield _text(text)


_BOLD = re.compile(r"\[bold\](.*?)\[/(?:bold)?\]|`([^`]*)`")
_SPECIAL = {"\\": r"\e", "-": r"\-", "^": r"\(ha", "~": r"\(ti", "`": r"\(ga", "'": r"\(cq"}


def _text(markup: str) -> str:
    """Return text for troff, one line, from typer's markup: bold, code, and brackets behind a backslash."""
    plain = " ".join(markup.split())
    parts, last = [], 0
    for match in _BOLD.finditer(plain):
        parts += [_escape(plain[last : match.start()]), rf"\fB{_escape(match[1] or match[2] or '')}\fR"]
        last = match.end()
    line = "".join([*parts, _escape(plain[last:])])
    return rf"\&{line}" if line.startswith(".") else line


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text.replace("\\[", "["))


def main() -> None:
    """Write the page to the file that is named."""
    path = Path(sys.argv[1])
    path.parent.mkdir(exist_ok=True)
    path.write_text(manual())


if __name__ == "__main__":
    main()
