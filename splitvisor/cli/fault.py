# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor fault`: make things go wrong, on purpose."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from splitvisor.cli.control import USAGE, fail
from splitvisor.cli.seconds import seconds
from splitvisor.machine.config import ConfigError
from splitvisor.process.inputs import Pipes
from splitvisor.process.signals import Unwinding
from splitvisor.run.exit_status import ExitStatus

fault = typer.Typer(help="Inject faults into the streams and processes of a machine.", no_args_is_help=True)

Vm = Annotated[str, typer.Argument(metavar="VM", help="The machine; see [bold]splitvisor vm status[/]")]
Service = Annotated[str, typer.Argument(metavar="SERVICE", help="cpu, hcall, vio or of-client")]
Address = Annotated[
    str | None, typer.Option("--at", metavar="ADDRESS", help="The service's unix socket, for services started by hand")
]


@fault.command()
def proxy(
    *,
    listen: Annotated[str, typer.Option(metavar="ADDRESS", help="unix:/path or a loopback host:port")],
    to: Annotated[str, typer.Option(metavar="ADDRESS", help="The back end")],
    scenario: Annotated[Path, typer.Option(metavar="FILE", help="The scenario, a TOML file")],
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="The back end's name in the scenario")] = None,
    journal: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a line of JSON to this file for each fault")] = None,
) -> None:
    """Run a proxy between cpu_service and a back end until SIGTERM, and inject the scenario's faults."""
    from splitvisor.service.main import main  # gRPC is slow to load

    file = Pipes().file(scenario)
    arguments = ["fault", "--listen", listen, "--to", to, "--scenario", str(file)]
    if backend is not None:
        arguments += ["--backend", backend]
    raise typer.Exit(main([*arguments, *(("--journal", str(journal)) if journal is not None else ())]))


@fault.command()
def kill(vm: Vm, service: Service, *, at: Address = None) -> None:
    """Kill a service of a machine (SIGKILL). The run ends unless its scenario has kills for this service."""
    _signal("kill", vm, service, at)


@fault.command()
def stop(
    vm: Vm,
    service: Service,
    *,
    seconds: Annotated[float, typer.Option("--for", metavar="S", parser=seconds(0, 3600), help="How long")] = 5.0,
    at: Address = None,
) -> None:
    """Stop a service (SIGSTOP) for a time, then continue it."""
    from splitvisor.faults import PROCESS_SIGNALS
    from splitvisor.faults.process import NoProcessError, send_signal

    with Unwinding():
        pid = _signal("stop", vm, service, at)
        try:
            time.sleep(seconds)
        finally:
            try:
                send_signal(pid, PROCESS_SIGNALS["continue"])
            except NoProcessError as error:
                fail("fault stop", str(error))


@fault.command()
def check(scenario: Annotated[Path, typer.Argument(metavar="FILE", help="A scenario")]) -> None:
    """Check a scenario and explain it."""
    from splitvisor.faults.scenario import ScenarioError, read_scenario

    try:
        read = read_scenario(Pipes().file(scenario))
    except ScenarioError as error:
        fail("fault check", str(error), USAGE)
    for place, each in enumerate(read.faults):
        often = f"numbers {sorted(each.at)}" if each.at else f"each {each.every}., probability {each.probability:g}"
        typer.echo(f"{place:>2} {each.kind.name:<16} {each.backend or 'every back end'}, {each.direction}, {often}")


@fault.command()
def kinds() -> None:
    """List the kinds of faults."""
    from splitvisor.faults.scenario import KINDS

    for kind in KINDS.values():
        typer.echo(f"{kind.name:<16} {kind.setting or '-':<17} {kind.summary}")


def _signal(command: str, vm: str, service: str, at: str | None) -> int:
    from splitvisor.faults import PROCESS_SIGNALS
    from splitvisor.faults.process import NoProcessError, listener, send_signal
    from splitvisor.run.running_vms import NoSuchVmError, service_address
    from splitvisor.service.names import SERVICE_NAMES

    known = [name.command for name in SERVICE_NAMES]
    if service not in known:
        fail(f"fault {command}", f"{service!r} is not a service; known: {', '.join(known)}", USAGE)
    try:
        pid = listener(at or service_address(vm, service))
        send_signal(pid, PROCESS_SIGNALS[command])
    except (NoProcessError, NoSuchVmError, ConfigError) as error:
        fail(f"fault {command}", str(error), int(ExitStatus.USAGE))
    typer.echo(f"{service} of {vm}: process {pid}")
    return pid
