# SPDX-License-Identifier: GPL-2.0-or-later
"""The arguments of a service: argparse, with one line for wrong usage, as splitvisor/cli/usage.py has it for other commands."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from splitvisor.errors.similar import did_you_mean

USAGE = 2

_UNKNOWN = "unrecognized arguments: "


class StrictParser(argparse.ArgumentParser):
    """Refuses empty texts, and an option that is given twice and has one value."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """See ArgumentParser."""
        strict(settings)
        return super().add_argument(*names, **settings)

    def add_argument_group(self, *arguments: Any, **settings: Any) -> Any:
        """See ArgumentParser."""
        group = super().add_argument_group(*arguments, **settings)
        add = group.add_argument

        def add_argument(*names: str, **settings: Any) -> argparse.Action:
            strict(settings)
            return add(*names, **settings)

        group.add_argument = add_argument  # type: ignore[method-assign]
        return group

    def error(self, message: str) -> NoReturn:
        """Print one line and end with status 2."""
        what = re.sub(r"^argument (\S+?)(: (?=is )|:)", lambda found: found[1] + (" " if found[2] != ":" else ":"), message)
        remedy = ""
        if what.startswith(_UNKNOWN):
            name = what.removeprefix(_UNKNOWN).split()[0].partition("=")[0]
            what = f"no such {'option' if name.startswith('-') else 'argument'}: {name}"
            remedy = did_you_mean(name, self._option_string_actions) if name.startswith("-") else ""
        elif what.startswith("the following arguments are required: "):
            what = f"{what.rpartition(': ')[2]} is missing"
        if not remedy and "; " not in what:
            remedy = f"`{self.prog} --help` shows how it is used"
        print("; ".join(filter(None, (f"{self.prog}: {what}", remedy))), file=sys.stderr)
        raise SystemExit(USAGE)


def strict(settings: dict[str, Any]) -> None:
    """Change the settings of an argument so that it refuses an empty text, and a second one if it has one value."""
    action = settings.get("action", "store")
    if action == "store":
        settings["action"] = _Once
    if action not in ("store_true", "help") and settings.get("nargs") != 0:
        settings["type"] = _full(settings.get("type", str))
        if isinstance(settings.get("default"), str):
            settings["default"] = _Default(settings["default"])


class _Default(str):
    """The default of an argument. argparse converts it too, and it may be empty."""

    __slots__ = ()


class _Once(argparse.Action):
    """Stores a value, once."""

    given = False

    def __call__(self, _parser: Any, namespace: argparse.Namespace, values: Any, _option: str | None = None) -> None:
        if vars(namespace).get(f"{self.dest} given"):
            raise argparse.ArgumentError(self, "is given twice; give it once")
        setattr(namespace, f"{self.dest} given", True)
        setattr(namespace, self.dest, values)


NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}


def _full(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def full(text: str) -> Any:
        if not text and not isinstance(text, _Default):
            raise argparse.ArgumentTypeError("is empty; give a value, or leave it out")
        if convert not in NUMBERS:
            return convert(text)
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {NUMBERS[convert]}; give one")
        return value

    full.__name__ = getattr(convert, "__name__", "value")
    return full


def choice(what: str, values: Sequence[str]) -> Callable[[str], str]:
    """Return what takes one of some texts."""

    def convert(text: str) -> str:
        if text not in values:
            remedy = did_you_mean(text, values) or f"give one of {', '.join(values)}"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}; {remedy}")
        return text

    return convert
