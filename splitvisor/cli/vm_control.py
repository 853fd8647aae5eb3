# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm start|stop|pause|resume|reset|nmi|status|wait`: a VM on services that run already."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from splitvisor.cli import machine_options as options
from splitvisor.cli.control import DEADLINE_S, FAILED, USAGE, fail, machine_stub
from splitvisor.cli.flags import for_typer
from splitvisor.cli.reader import end_without_reader
from splitvisor.cli.seconds import LIMIT
from splitvisor.cli.vm_status import render_status, state_text, status_fields
from splitvisor.guests.fetch import resolve
from splitvisor.machine.config import ConfigError, MachineConfig
from splitvisor.machine.devices import with_nvram_file
from splitvisor.machine.machine_file import apply_flags, read_machine_file
from splitvisor.machine.service_addresses import parse_backends, parse_connect
from splitvisor.process.files import own_descriptor
from splitvisor.process.inputs import Pipes
from splitvisor.run.exit_status import ExitStatus
from splitvisor.service.names import SERVICE_NAMES

START_S = 60.0
_THIS_START = "This start"

Vm = Annotated[str, typer.Argument(metavar="NAME", help="The VM's name")]
Cpu = Annotated[str | None, typer.Option("--cpu", metavar="ADDRESS", help="cpu_service \\[that of the run with the VM]")]


def add_commands(vm: typer.Typer) -> None:
    """Add the commands to `splitvisor vm`."""
    for command in (start, stop, pause, resume, reset, nmi, status, wait):
        vm.command(command.__name__)(for_typer(command))


def start(
    vm: Vm,
    *,
    cpu: Annotated[str | None, typer.Option("--cpu", metavar="ADDRESS", help="cpu_service", rich_help_panel=_THIS_START)] = None,
    connect: Annotated[list[str] | None, options.connect("A service", _THIS_START)] = None,
    if_stopped: Annotated[
        bool, typer.Option("--if-stopped", help="Do nothing if the VM is running", rich_help_panel=_THIS_START)
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Report events until the VM ends", rich_help_panel=_THIS_START)] = False,
    kernel: options.Kernel = None,
    initrd: options.Initrd = None,
    append: options.Append = None,
    firmware: options.Firmware = None,
    boot: options.Boot = None,
    flat_tree: options.FlatTree = False,
    boot_protocol: options.BootProtocol = None,
    machine: options.MachineFile = None,
    memory: options.Memory = None,
    smp: options.Smp = None,
    vty: options.Vty = None,
    nvram: options.Nvram = None,
    disk: options.Disk = None,
    cdrom: options.Cdrom = None,
    watchdog_action: options.WatchdogAction = None,
    net: options.Net = None,
    no_shared_memory: options.NoSharedMemory = False,
    backend: options.Backend = None,
) -> None:
    """Start a VM on running services; without a kernel, what is on its disks, else the demo guest.

    cpu_service reads the images and vio_service the NVRAM's file and the disks,
    each on its own host. Exit status: 0 it runs or, with [bold]--wait[/], powered off;
    2 bad usage, or the services refuse the machine; 3 it crashed; 4 a service failed or does not answer.
    """
    command = "vm start"
    flags = {
        "name": vm,
        "memory": memory,
        "smp": smp,
        "append": append,
        "boot": boot,
        "flat_tree": True if flat_tree else None,
        "boot_protocol": boot_protocol,
        "watchdog_action": watchdog_action,
        "shared_memory": False if no_shared_memory else None,
        "vty": vty,
        "disk": disk,
        "cdrom": cdrom,
        "net": net,
        "backend": parse_backends(backend) if backend else None,
    }
    images = {"kernel": kernel, "initrd": initrd, "firmware": firmware}
    try:
        targets = parse_connect(connect or [], "--connect")
        targets |= parse_connect([f"cpu={cpu}"], "--cpu") if cpu is not None else {}
        config = MachineConfig()
        if machine is not None:
            config = read_machine_file(machine, read_from=_given(machine))
        config = _with_images(config, {kind: value for kind, value in images.items() if value is not None})
        config = apply_flags(config, flags, f"splitvisor {command}")
        if nvram is not None:
            config = dataclasses.replace(config, devices=with_nvram_file(config.devices, nvram))
    except ConfigError as error:
        fail(command, str(error).removeprefix(f"splitvisor {command}: "), USAGE)
    missing = [name.command for name in SERVICE_NAMES if name.command not in targets]
    if missing:
        first = missing[0]
        fail(command, f"--connect: no address of {', '.join(missing)}; give {first}=unix:/path or {first}=host:port", USAGE)
    backends = {name.package: targets[name.command] for name in SERVICE_NAMES if name.command != "cpu"}
    with _machine_stub(command, vm, targets["cpu"]) as stub:
        incarnation = (_running(stub, vm) if if_stopped else 0) or _start(stub, command, config.message(backends))
        if wait:
            raise typer.Exit(_tell_until_end(stub, vm, incarnation))


def _given(machine: Path) -> Path:
    """Return where the contents of a machine file are, which may be a pipe. Raises ConfigError."""
    try:
        return Pipes().file(machine)
    except OSError as error:
        raise ConfigError(str(machine), "", f"cannot be read ({error.strerror})", "give the path of a TOML file") from error


def _with_images(config: MachineConfig, images: Mapping[str, str]) -> MachineConfig:
    """Return config with the guest's images, by kind; unchecked, for their paths are those of cpu_service's host."""
    paths = {kind: resolve(kind, value) for kind, value in images.items()}
    for kind, path in paths.items():
        if own_descriptor(path) is not None:
            what = f"{path} is a descriptor of this command, which cpu_service does not have"
            raise ConfigError("splitvisor vm start", f"--{kind}", what, "give a file of its host")
    return dataclasses.replace(
        config, kernel=paths.get("kernel", config.kernel), initrd=paths.get("initrd", config.initrd),
        firmware=paths.get("firmware", config.firmware),
    )  # fmt: skip


def stop(vm: Vm, *, cpu: Cpu = None) -> None:
    """End a VM at once, as pulling the plug would."""
    _control("stop", vm, cpu, "StopMachine")


def pause(vm: Vm, *, cpu: Cpu = None) -> None:
    """Stop a VM's vCPUs where they are; its devices keep running."""
    _control("pause", vm, cpu, "PauseMachine")


def resume(vm: Vm, *, cpu: Cpu = None) -> None:
    """Continue a paused VM."""
    _control("resume", vm, cpu, "ResumeMachine")


def reset(vm: Vm, *, cpu: Cpu = None) -> None:
    """Reset a VM: reset its devices and load its guest again."""
    _control("reset", vm, cpu, "ResetMachine")


def nmi(
    vm: Vm,
    *,
    cpu: Cpu = None,
    vcpu: Annotated[int | None, typer.Option("--vcpu", metavar="N", min=0, help="Interrupt only this vCPU \\[all]")] = None,
) -> None:
    """Interrupt a VM's vCPUs by a system reset, which no guest can mask.

    Linux reports what each vCPU was doing, then writes a crash dump or panics.
    """
    _control("nmi", vm, cpu, "SignalSystemReset", vcpu=vcpu)


def status(
    vm: Vm,
    *,
    cpu: Cpu = None,
    calls: Annotated[int, typer.Option(metavar="N", min=0, help="Show the N most frequent calls")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all calls")] = False,
) -> None:
    """Show a VM's state, its back ends, and its most frequent calls."""
    with _machine_stub("vm status", vm, cpu) as stub:
        answer = _status(stub, vm)
    typer.echo(json.dumps(status_fields(answer)) if as_json else render_status(answer, calls))


def wait(
    vm: Vm,
    *,
    cpu: Cpu = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", parser=LIMIT, help="End with 124 after S seconds")] = None,
) -> None:
    """Wait until a VM ends, and report its events.

    Exit status: 0 it powered off or was stopped, 3 it crashed, 4 a service failed or does not answer, 124 timeout.
    """
    with _machine_stub("vm wait", vm, cpu) as stub:
        raise typer.Exit(_tell_until_end(stub, vm, _status(stub, vm).incarnation, timeout))


@contextmanager
def _machine_stub(command: str, vm: str, cpu: str | None) -> Iterator[Any]:
    """Yield a stub for the cpu_service of a VM; when it cannot be reached the program ends."""
    failed = ExitStatus.SERVICE_FAILED if command in {"vm start", "vm wait"} else FAILED
    with machine_stub(command, vm, cpu, failed=failed) as machine:
        yield machine


def _control(action: str, vm: str, cpu: str | None, rpc: str, **fields: Any) -> None:
    from splitvisor.rpc import machine_pb2 as pb  # slow to load

    with _machine_stub(f"vm {action}", vm, cpu) as stub:
        getattr(stub, rpc)(getattr(pb, f"{rpc}Request")(vm=vm, **fields), timeout=DEADLINE_S)


def _status(stub: Any, vm: str) -> Any:
    from splitvisor.rpc import machine_pb2 as pb  # slow to load

    return stub.GetStatus(pb.GetStatusRequest(vm=vm), timeout=DEADLINE_S)


def _running(stub: Any, vm: str) -> int:
    """Return the incarnation of a VM that runs; 0 when it does not."""
    from splitvisor.net.pages import every  # slow to load
    from splitvisor.rpc import machine_pb2 as pb

    alive = (pb.MACHINE_STATE_STARTING, pb.MACHINE_STATE_RUNNING, pb.MACHINE_STATE_PAUSED)
    machines = every(stub.ListMachines, pb.ListMachinesRequest(), DEADLINE_S)
    return next((each.incarnation for each in machines if each.vm == vm and each.state in alive), 0)


def _start(stub: Any, command: str, config: Any) -> int:
    """Start a VM; return its incarnation."""
    import grpc  # slow to load

    from splitvisor.errors.status import problem_in
    from splitvisor.rpc import machine_pb2 as pb

    try:
        incarnation: int = stub.StartMachine(pb.StartMachineRequest(config=config), timeout=START_S).incarnation
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
            fail(command, str(problem_in(error)), USAGE)
        raise
    return incarnation


def _tell_until_end(stub: Any, vm: str, incarnation: int, timeout: float | None = None) -> ExitStatus:
    """Print a line for everything that happens to the VM until it has ended; return the exit status."""
    import grpc  # slow to load

    from splitvisor.rpc import machine_pb2 as pb

    ends = {
        pb.MACHINE_STATE_POWERED_OFF: ExitStatus.POWERED_OFF,
        pb.MACHINE_STATE_STOPPED: ExitStatus.POWERED_OFF,
        pb.MACHINE_STATE_CRASHED: ExitStatus.CRASHED,
        pb.MACHINE_STATE_FAILED: ExitStatus.SERVICE_FAILED,
    }
    end_without_reader()
    try:
        for event in stub.WatchEvents(pb.WatchEventsRequest(vm=vm, incarnation=incarnation), timeout=timeout):
            if text := _event_text(event):
                typer.echo(f"{vm}: {text}")
            if event.HasField("state") and event.state.state in ends:
                return ends[event.state.state]
    except grpc.RpcError as error:
        if timeout is not None and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            typer.echo(f"splitvisor vm wait: {vm} did not end within {timeout:g} s", err=True)
            return ExitStatus.TIMEOUT
        raise
    raise AssertionError("the stream of events ends with a final state or an error")


def _event_text(event: Any) -> str:
    """One line about an event; empty for what needs none."""
    if event.HasField("state"):
        return state_text(event.state.state, event.state.detail)
    if event.HasField("backend"):
        return f"{event.backend.name} is {'attached again' if event.backend.attached else 'lost'}"
    return ""
