# SPDX-License-Identifier: GPL-2.0-or-later
"""Every command that talks to services takes the flags of splitvisor/net/tls_flags.py: they are added here, once for all."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import typer
from typer.main import get_command

from splitvisor.cli.usage import StrictGroup, make_strict
from splitvisor.net.tls_flags import FLAGS, flag, use_tls_flags

WITHOUT = frozenset({"bench", "certs", "guests", "health", "protos", "record", "service", "version"})
"""Commands that talk to no service, and `service` and `health`, which read their arguments themselves."""


class TlsGroup(StrictGroup):
    """The commands, with --tls and its kin."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See TyperGroup."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and cmd_name not in WITHOUT:
            _add(command)
            make_strict(command)
        return command


def _add(command: Any) -> None:
    """Add the flags to a command, or to all below a group."""
    below = getattr(command, "commands", None)
    if below is not None:
        for each in below.values():
            _add(each)
    elif not any(parameter.name in FLAGS for parameter in command.params):
        command.params.extend(_parameters())


def _option(name: str) -> Any:
    metavar, environment, text = FLAGS[name]
    return typer.Option(
        None,
        flag(name),
        metavar=metavar,
        help=f"{text[0].upper()}{text[1:]} [{environment}]",
        expose_value=False,
        # The directory first: it takes the place of the whole environment.
        is_eager=name == "tls",
        callback=_use(name),
        rich_help_panel="Certificate",
    )


def _use(name: str) -> Callable[[str | None], None]:
    def use(value: str | None) -> None:
        use_tls_flags({name: value})

    return use


@cache
def _parameters() -> list[Any]:
    """Make the parameters, as typer does for a function that has them."""

    def flags(**_values: str | None) -> None:
        """Carry the parameters."""

    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_option(name), annotation=str | None) for name in FLAGS
    ]
    # From the table, not written out: typer reads a function's signature.
    vars(flags)["__signature__"] = inspect.Signature(options)
    flags.__annotations__ = dict.fromkeys(FLAGS, str | None)
    template = typer.Typer(add_completion=False)
    template.command()(flags)
    command: Any = get_command(template)
    return [parameter for parameter in command.params if parameter.name in FLAGS]
