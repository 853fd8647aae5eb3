# SPDX-License-Identifier: GPL-2.0-or-later
"""The flags of a command, declared once and read in two ways: by typer, and without it.

Typer and what it loads take longer than all else that `splitvisor run` does before its services start. So what is plainly right
is read here, and whatever is not, `--help` and every mistake among it, goes to typer, which has the words for it.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Any

PLAIN_DIGITS = 9
"""Before the point: a longer number may be out of bounds."""


@dataclass(frozen=True)
class Flag:
    """What the annotation of a parameter says when the parameter is a flag."""

    names: tuple[str, ...] = ()
    """How it is written; empty: as the parameter is called."""
    metavar: str | None = None
    help: str = ""
    panel: str | None = None
    """Of the help."""
    least: float | None = None
    """The smallest number that is allowed."""
    environment: str | None = None
    """The variable that counts when the flag is not given."""


MAY_BE_EMPTY = frozenset({"append", "text"})
"""Parameters of all commands: a kernel's command line, and what is typed at a console."""


class _NotPlainError(Exception):
    """Typer is to read this."""


@dataclass(frozen=True)
class _Parameter:
    """A parameter that is a flag, and how its text becomes a value."""

    name: str
    flag: Flag
    convert: Callable[[str], Any] | None
    """None: it has no value."""
    repeated: bool

    @property
    def names(self) -> tuple[str, ...]:
        return _names(self.name, self.flag)


def _names(parameter: str, flag: Flag) -> tuple[str, ...]:
    return flag.names or ("--" + parameter.replace("_", "-"),)


def read(command: Callable[..., Any], arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return the values of the flags that are given, by parameter, or None when typer is to read them.

    Args:
        command: takes flags only; each is annotated with a Flag.
        arguments: what follows the command's name.
    """
    parameters = {name: parameter for parameter in _parameters(command) for name in parameter.names}
    found: dict[str, Any] = {}
    rest = iter(arguments)
    try:
        for argument in rest:
            name, equals, text = argument.partition("=") if argument.startswith("--") else (argument, "", "")
            parameter = parameters.get(name)
            if parameter is None:
                return None
            if parameter.convert is None:
                if equals:
                    return None
                found[parameter.name] = True
                continue
            text = text if equals else _next(rest)
            if (not text and parameter.name not in MAY_BE_EMPTY) or (parameter.name in found and not parameter.repeated):
                return None
            value = parameter.convert(text)
            if parameter.flag.least is not None and value < parameter.flag.least:
                return None
            found[parameter.name] = [*found.get(parameter.name, ()), value] if parameter.repeated else value
    except _NotPlainError:
        return None
    left = (parameter.flag for parameter in parameters.values() if parameter.name not in found)
    return None if any(flag.environment in os.environ for flag in left if flag.environment) else found


def for_typer(command: Callable[..., int | None]) -> Callable[..., None]:
    """Return a command as typer takes it: with options in place of each Flag, ending with the status that it returns."""
    import inspect  # neither is wanted where read() does

    import typer

    from splitvisor.cli.seconds import seconds

    @wraps(command)
    def run(**values: Any) -> None:
        status = command(**values)
        if status is not None:
            raise typer.Exit(status)

    hints = typing.get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    for name, hint in hints.items():
        flag = _flag(hint)
        if flag is not None:
            is_time = flag.least is not None and _without_none(typing.get_args(hint)[0]) is float
            bounds: dict[str, Any] = {"parser": seconds(flag.least or 0)} if is_time else {"min": flag.least}
            option = typer.Option(
                *_names(name, flag), metavar=flag.metavar, help=flag.help, rich_help_panel=flag.panel, envvar=flag.environment,
                **bounds,
            )  # fmt: skip
            hints[name] = typing.Annotated[typing.get_args(hint)[0], option]
    changed = [each.replace(annotation=hints[each.name]) for each in signature.parameters.values()]
    vars(run)["__signature__"] = signature.replace(parameters=changed, return_annotation=None)
    run.__annotations__ = hints
    return run


def _flag(hint: Any) -> Flag | None:
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Flag)), None)


def _parameters(command: Callable[..., Any]) -> Iterator[_Parameter]:
    for name, hint in typing.get_type_hints(command, include_extras=True).items():
        flag = _flag(hint)
        if flag is None:
            continue
        kind = _without_none(typing.get_args(hint)[0])
        repeated = typing.get_origin(kind) is list
        if repeated:
            (kind,) = typing.get_args(kind)
        yield _Parameter(name, flag, None if kind is bool else _conversion(kind), repeated)


def _without_none(kind: Any) -> Any:
    kinds = [each for each in typing.get_args(kind) if each is not NoneType]
    return kinds[0] if kinds and typing.get_origin(kind) is not list else kind


def _conversion(kind: Any) -> Callable[[str], Any]:
    if issubclass(kind, Enum):
        values = {member.value: member for member in kind}

        def member(text: str) -> Any:
            if text not in values:
                raise _NotPlainError
            return values[text]

        return member
    return _CONVERSIONS[kind]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise _NotPlainError
    return int(text)


def _decimal(text: str) -> float:
    whole, _, fraction = text.partition(".")
    if not text.isascii() or not (whole + fraction).isdecimal() or len(whole) > PLAIN_DIGITS:
        raise _NotPlainError
    return float(text)


_CONVERSIONS: Mapping[Any, Callable[[str], Any]] = {str: str, Path: Path, int: _number, float: _decimal}


def _next(rest: Iterator[str]) -> str:
    text = next(rest, None)
    if text is None or text.startswith("-"):
        raise _NotPlainError
    return text
