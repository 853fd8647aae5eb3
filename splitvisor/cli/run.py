# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from splitvisor import launcher
from splitvisor.addresses import AddressError, check_address
from splitvisor.config import BackendAddress, ConfigError, MachineConfig, apply_flags, read_machine_file
from splitvisor.exit_status import ExitStatus
from splitvisor.guests import resolve
from splitvisor.service_names import SERVICE_NAMES


class LogLevel(StrEnum):
    """As splitvisor.logging has it, without loading that."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_GUEST = "Guest"
_MACHINE = "Machine"
_RUN = "This run"


def run(
    *,
    kernel: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="vmlinux, zImage or client program, or [bold]debian[/]", rich_help_panel=_GUEST),
    ] = None,
    initrd: Annotated[
        str | None, typer.Option(metavar="FILE", help="Initial RAM disk, or [bold]debian[/]", rich_help_panel=_GUEST)
    ] = None,
    append: Annotated[str | None, typer.Option(metavar="TEXT", help="The kernel's command line", rich_help_panel=_GUEST)] = None,
    firmware: Annotated[
        str | None, typer.Option(metavar="FILE", help="Raw firmware image to run instead of ours", rich_help_panel=_GUEST)
    ] = None,
    flat_tree: Annotated[
        bool, typer.Option("--flat-tree", help="That image, though small, wants a flattened tree in r3", rich_help_panel=_GUEST)
    ] = False,
    machine: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Machine file; flags override it", rich_help_panel=_MACHINE)
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The VM's name [guest]", rich_help_panel=_MACHINE)] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", "-m", metavar="SIZE", help="RAM, 256M to 16G [512M]", rich_help_panel=_MACHINE)
    ] = None,
    smp: Annotated[int | None, typer.Option(metavar="N", help="vCPUs, 1 to 8 [1]", rich_help_panel=_MACHINE)] = None,
    vty: Annotated[int | None, typer.Option(metavar="N", help="Terminals of the VM [1]", rich_help_panel=_MACHINE)] = None,
    nvram: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the NVRAM there; made when it is new", rich_help_panel=_MACHINE)
    ] = None,
    no_shared_memory: Annotated[
        bool, typer.Option("--no-shared-memory", help="Back ends reach RAM through gRPC only", rich_help_panel=_MACHINE)
    ] = False,
    exit_on: Annotated[
        str | None, typer.Option(metavar="TEXT", help="End with 0 once the console shows TEXT", rich_help_panel=_RUN)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="S", min=0.001, help="End with 124 after S seconds", rich_help_panel=_RUN)
    ] = None,
    connect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ADDRESS",
            help="Use a service that runs already: cpu, hcall, vio or of-client; may be repeated, or a list with commas",
            rich_help_panel=_RUN,
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ADDRESS", help="Add a back end of your own, which runs already; may be repeated, or a list with commas",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(metavar="LEVEL", help="Of the services; debug shows their logs on stderr", rich_help_panel=_RUN)
    ] = LogLevel.INFO,
    log_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the services' logs to FILE", rich_help_panel=_RUN)
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="Keep device trees there: a file, or postgresql://...; without, they go with the run",
            rich_help_panel=_RUN,
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Record what the machine and its back ends say to each other", rich_help_panel=_RUN),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write an account of the run: calls, times", rich_help_panel=_RUN)
    ] = None,
) -> None:
    """Run a guest; its console is this terminal. Without a kernel, the demo guest.

    [bold]^][/] then [bold]q[/] leaves. Exit status: 0 the guest powered off, 1 it did so without showing the text of --exit-on,
    2 bad usage or configuration, 3 the guest crashed, 4 a service failed, 124 timeout.
    """
    flags = {
        "name": name,
        "memory": memory,
        "smp": smp,
        "kernel": resolve("kernel", kernel) if kernel is not None else None,
        "initrd": resolve("initrd", initrd) if initrd is not None else None,
        "append": append,
        "firmware": resolve("firmware", firmware) if firmware is not None else None,
        "flat_tree": True if flat_tree else None,
        "shared_memory": False if no_shared_memory else None,
        "vty": vty,
        "nvram": nvram,
        "backend": parse_backends(backend) if backend else None,
    }
    try:
        config = apply_flags(read_machine_file(machine) if machine is not None else MachineConfig(), flags)
        request = launcher.RunRequest(
            config=config,
            connect=parse_connect(connect or []),
            log_level=log_level.value,
            log_file=log_file,
            log_to_stderr=log_level is LogLevel.DEBUG,
            exit_on=exit_on.encode() if exit_on else None,
            timeout=timeout,
            report=report,
            store=store,
            record=record,
            progress=_progress_line() if sys.stderr.isatty() else lambda _step: None,
        )
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(ExitStatus.USAGE) from None
    result = uvloop.run(launcher.run(request))
    if result.message:
        if sys.stderr.isatty():
            typer.echo(err=True)  # The guest may have left its last line unfinished.
        typer.echo(f"splitvisor run: {result.message}", err=True)
    raise typer.Exit(int(result.status))


def parse_connect(values: list[str]) -> dict[str, str]:
    """Return gRPC targets by service from "NAME=ADDRESS,NAME=ADDRESS" texts. Raises ConfigError."""
    known = [name.command for name in SERVICE_NAMES]
    targets: dict[str, str] = {}
    for item in ",".join(values).split(",") if values else ():
        name, _, address = item.strip().partition("=")
        if name not in known:
            raise ConfigError("splitvisor run", "--connect", f"{name!r} is not a service", f"known: {', '.join(known)}")
        if not address:
            remedy = f"give {name}=unix:/path or {name}=host:port"
            raise ConfigError("splitvisor run", "--connect", f"{name} has no address", remedy)
        if name in targets:
            raise ConfigError("splitvisor run", "--connect", f"{name} is there twice", "give each service once")
        try:
            targets[name] = check_address(address)
        except AddressError as error:
            text, _, remedy = str(error).rpartition("; ")
            raise ConfigError("splitvisor run", "--connect", text, remedy) from None
    return targets


def parse_backends(values: list[str]) -> list[BackendAddress]:
    """Return back ends from "NAME=ADDRESS,NAME=ADDRESS" texts; splitvisor.config checks them."""
    parts = (item.strip().partition("=") for item in ",".join(values).split(","))
    return [BackendAddress(name, address) for name, _, address in parts]


def _progress_line() -> launcher.Progress:
    """Return what shows one changing line on stderr, and takes it away when there is nothing more to show."""

    shown = False

    def show(step: str) -> None:
        nonlocal shown
        # Only what was shown here is wiped: in the end the line is the guest's.
        if step or shown:
            # os.write: the terminal may be raw and belong to the guest a moment later.
            os.write(sys.stderr.fileno(), f"\r\x1b[K{step + ' ...' if step else ''}".encode())
        shown = bool(step)

    return show
