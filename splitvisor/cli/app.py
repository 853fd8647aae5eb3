# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands."""

from __future__ import annotations

from typing import Annotated

import typer

from splitvisor import __version__
from splitvisor.cli.bench import bench
from splitvisor.cli.certs import certs
from splitvisor.cli.console import console
from splitvisor.cli.dt import dt
from splitvisor.cli.new_device import new_device
from splitvisor.cli.run import run
from splitvisor.cli.tls_options import TlsGroup
from splitvisor.cli.top import top
from splitvisor.cli.trace import trace
from splitvisor.cli.vm_control import add_commands
from splitvisor.cli.vm_devices import vm
from splitvisor.cli.vm_snapshot import register as register_snapshots
from splitvisor.guests import GuestError, cache_directory, fetch

app = typer.Typer(
    name="splitvisor",
    cls=TlsGroup,
    help="A PAPR (POWER pseries) hypervisor whose parts are separate processes that talk gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(run)
app.command()(new_device)
app.command()(top)
app.command()(trace)
app.add_typer(bench, name="bench")
add_commands(vm)
register_snapshots(vm)
app.add_typer(vm, name="vm")
app.add_typer(dt, name="dt")
app.add_typer(certs, name="certs")
app.add_typer(console, name="console")


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def service(arguments: Annotated[list[str] | None, typer.Argument(metavar="NAME [OPTIONS]")] = None) -> None:
    """Run one service: cpu, hcall, vio, of-client or gateway; [bold]service NAME --help[/] tells its options."""
    from splitvisor.service_main import main  # gRPC is slow to load; main() takes this way only for help

    raise typer.Exit(main(arguments or []))


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def health(arguments: Annotated[list[str] | None, typer.Argument(metavar="ADDRESS [--timeout S]")] = None) -> None:
    """Ask a service whether it serves, as container engines do: exit status 0 or 1."""
    from splitvisor.health import main  # main() of the command line takes this way only for help

    raise typer.Exit(main(arguments or []))


@app.command()
def guests() -> None:
    """Fetch real guests (a Debian kernel, an initramfs with a shell, firmware) into the cache, and list them."""
    try:
        found = fetch(lambda step: typer.echo(f"{step} ...", err=True))
    except GuestError as error:
        typer.echo(f"splitvisor guests: {error}", err=True)
        raise typer.Exit(1) from None
    for guest in found.values():
        typer.echo(f"{guest.kind:<9} {guest.name:<16} {guest.package} {guest.version}\n{'':<26} {cache_directory() / guest.path}")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"splitvisor {__version__}")
