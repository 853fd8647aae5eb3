# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands. Each is loaded when it is wanted: a guest waits for `splitvisor run` to load, and for nothing else."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

from splitvisor.cli.flags import for_typer
from splitvisor.cli.plain import protos, version
from splitvisor.cli.tls_options import TlsGroup
from splitvisor.process.signals import Unwinding

PLAIN = {"run": "run", "new-device": "new_device", "top": "top", "trace": "trace", "replay": "replay"}
"""Commands: the module of splitvisor.cli that has each, whose function has the same name."""
GROUPS = {name: name for name in ("bench", "vm", "dt", "certs", "console", "record", "fault")}
"""Commands that have commands; the same."""


def make_app(wanted: str | None = None) -> typer.Typer:
    """Return the command line; with wanted, the name of a command, only as much of it as that takes."""
    app = typer.Typer(
        name="splitvisor",
        cls=TlsGroup,
        help="A PAPR (POWER pseries) hypervisor whose services are separate processes connected by gRPC.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(whole)
    chosen = {wanted} if wanted in {*PLAIN, *GROUPS} else {*PLAIN, *GROUPS}
    for name, module in PLAIN.items():
        if name in chosen:
            command = _load(module)
            app.command(name)(for_typer(command) if name == "run" else command)
    for name, module in GROUPS.items():
        if name in chosen:
            app.add_typer(_load(module), name=name)
    passed_on = app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
    passed_on(service)
    passed_on(health)
    app.command()(guests)
    app.command()(protos)
    app.command()(version)
    return app


def _load(name: str) -> Any:
    return getattr(importlib.import_module(f"splitvisor.cli.{name}"), name)


def whole(
    *, versions: Annotated[bool, typer.Option("--version", help="Print the versions of Splitvisor, Python and Unicorn")] = False
) -> None:
    """The options of no command."""
    if versions:  # main() of the command line takes this way only for help
        from splitvisor.process.versions import versions as all_versions

        typer.echo(all_versions())
        raise typer.Exit


def service(arguments: Annotated[list[str] | None, typer.Argument(metavar="NAME [OPTIONS]")] = None) -> None:
    """Run one service: cpu, hcall, vio, of-client, gateway or fault; [bold]service NAME --help[/] lists its options."""
    from splitvisor.service.main import main  # gRPC is slow to load; main() takes this way only for help

    raise typer.Exit(main(arguments or []))


def health(arguments: Annotated[list[str] | None, typer.Argument(metavar="ADDRESS [--timeout S]")] = None) -> None:
    """Check a service's health, as container engines do: exit status 0 or 1."""
    from splitvisor.service.health import main  # main() of the command line takes this way only for help

    raise typer.Exit(main(arguments or []))


def guests() -> None:
    """Fetch real guests (a Debian kernel, an initramfs with a shell, firmware) into the cache, and list them."""
    from splitvisor.guests.fetch import GuestError, cache_directory, fetch

    try:
        with Unwinding():  # Nothing stays of what is not whole.
            found = fetch(lambda step: typer.echo(f"{step} ...", err=True))
    except GuestError as error:
        typer.echo(f"splitvisor guests: {error}", err=True)
        raise typer.Exit(1) from None
    for guest in found.values():
        typer.echo(f"{guest.kind:<9} {guest.name:<16} {guest.package} {guest.version}\n{'':<26} {cache_directory() / guest.path}")
