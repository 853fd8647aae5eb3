# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong usage of any command: one line that says where, what and what to do; status 2.

Also what typer lets pass is wrong here: an empty text where a name, a place or a number is meant, an option that is given twice,
and a number that is not finite.
Typer's older versions build on click and newer ones bring their own copy, so errors are told apart by what they have.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from splitvisor.cli.flags import MAY_BE_EMPTY
from splitvisor.errors.similar import did_you_mean

USAGE = 2


class _MisusedError(Exception):
    """An option or argument is used as it must not be."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


class StrictGroup(TyperGroup):
    """Commands whose wrong usage is one line."""

    def main(self, args: Any = None, prog_name: Any = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]  # nobody passes more by place
        """See TyperGroup."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            status = super().main(args, prog_name, standalone_mode=False, **extra)
        except _MisusedError as error:
            typer.echo(str(error), err=True)
            sys.exit(USAGE)
        except typer.Abort:
            sys.exit(1)
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            _tell(error)
            sys.exit(USAGE)
        sys.exit(status if isinstance(status, int) else 0)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See TyperGroup."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            make_strict(command)
        return command


def make_strict(command: Any) -> None:
    """Let a command, or all below a group, refuse empty texts and repeated options."""
    for each in getattr(command, "commands", {}).values():
        make_strict(each)
    if hasattr(command, "commands"):
        return
    if not hasattr(command, "is_strict"):
        command.is_strict = True
        command.make_parser = _once(command.make_parser)
    for parameter in command.params:
        if parameter.name not in MAY_BE_EMPTY and not hasattr(parameter, "is_strict"):
            parameter.is_strict = True
            parameter.consume_value = _full(parameter)
            parameter.process_value = _finite(parameter)


def _once(make_parser: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what makes a parser that refuses an option that is given twice and has one value."""

    def make(ctx: Any) -> Any:
        parser = make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: Any) -> Any:
            try:
                options, rest, order = parse(args)
            except Exception as error:
                error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined]  # typer does not say where
                raise
            for parameter, count in Counter(order).items():
                single = parameter.param_type_name == "option" and not parameter.multiple and not parameter.is_flag
                if single and count > 1:
                    raise _MisusedError(ctx.command_path, f"{_name(parameter)} is given {count} times; give it once")
            return options, rest, order

        parser.parse_args = parse_args
        return parser

    return make


def _full(parameter: Any) -> Callable[[Any, Any], Any]:
    """Return what takes a parameter's value from the command line and refuses an empty one."""
    take = parameter.consume_value

    def consume_value(ctx: Any, opts: Any) -> Any:
        given = parameter.given = opts.get(parameter.name)
        if given == "" or (isinstance(given, list | tuple) and "" in given):
            option = parameter.param_type_name == "option" and not parameter.required
            remedy = "give a value, or leave it out" if option else "give a value"
            raise _MisusedError(ctx.command_path, f"{_name(parameter)} is empty; {remedy}")
        return take(ctx, opts)

    return consume_value


def _finite(parameter: Any) -> Callable[[Any, Any], Any]:
    """Return what makes a parameter's value of its text and refuses what is no finite number."""
    process = parameter.process_value

    def process_value(ctx: Any, value: Any) -> Any:
        made = process(ctx, value)
        if isinstance(made, float) and not math.isfinite(made):
            raise _MisusedError(ctx.command_path, f"{_name(parameter)}: {made} is not a finite number; give a number")
        return made

    return process_value


def _name(parameter: Any) -> str:
    """How people call a parameter: its long option, or its metavar."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name)


def _tell(error: Any) -> None:
    """Print what is wrong with the usage; help where nothing was given."""
    ctx: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(ctx.get_help(), err=True)
        return
    where = ctx.command_path if ctx is not None else "splitvisor"
    parameter = getattr(error, "param", None)
    message = " ".join(str(getattr(error, "message", "") or error.format_message()).split()).rstrip(".")
    if type(error).__name__ == "MissingParameter" and parameter is not None:
        what = f"{_name(parameter)} is missing"
    elif parameter is not None and message:
        what = f"{_name(parameter)}: {_plainly(message, parameter)}"
    else:
        what = message.partition(". Did you mean")[0]
        what = what[:1].lower() + what[1:]
    remedy = _meant(error, ctx, what)
    if not remedy and "; " not in what and " is not one of " not in what:
        remedy = f"`{where} --help` shows how it is used"
    typer.echo("; ".join(filter(None, (f"{where}: {what}", remedy))), err=True)


PLAINLY = (
    ("Input should be a valid integer", "{given!r} is not a whole number"),
    ("Input should be a valid number", "{given!r} is not a number"),
    ("Input should be greater than or equal to ", "{given} is too small; give {rest} or more"),
    ("Input should be less than or equal to ", "{given} is too large; give {rest} or less"),
    ("Input should be a finite number", "{given!r} is not a finite number"),
    ("Value error, ", "{rest}"),
)
"""How a library's words about a value begin, and ours."""


def _plainly(message: str, parameter: Any) -> str:
    given = getattr(parameter, "given", None)
    given = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    for start, plain in PLAINLY:
        if message.startswith(start):
            return plain.format(given=given, rest=message.removeprefix(start))
    return message


def _meant(error: Any, ctx: Any, what: str) -> str:
    """Return which option, command or value was probably meant."""
    if ctx is None:
        return ""
    option = getattr(error, "option_name", None)
    if option is not None and what.lower().startswith("no such option"):
        return did_you_mean(option, (name for parameter in ctx.command.params for name in parameter.opts))
    if what.startswith("no such command"):
        return did_you_mean(what.split("'")[1], ctx.command.commands)
    return ""
