# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm save`, `restore` and `migrate`: a running VM to a file, from a file, and to another cpu_service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from splitvisor.cli.control import FAILED, USAGE, fail, machine_stub
from splitvisor.machine.config import ConfigError
from splitvisor.machine.service_addresses import parse_connect
from splitvisor.net.addresses import AddressError
from splitvisor.net.tls_files import check_address
from splitvisor.process.files import WrongFileError
from splitvisor.process.inputs import Pipes
from splitvisor.process.signals import Unwinding
from splitvisor.service.names import SERVICE_NAMES

TRANSFER_SECONDS = 300.0

Vm = Annotated[str, typer.Argument(metavar="VM", help="The VM's name")]
Cpu = Annotated[str | None, typer.Option("--cpu", metavar="ADDRESS", help="cpu_service \\[that of the run with the VM]")]
Connect = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=ADDRESS", help="Address of a back end: hcall, vio or of-client \\[as saved]; may be repeated"),
]


def register(vm: typer.Typer) -> None:
    """Add the commands to `splitvisor vm`."""
    for name, command in (("save", save), ("restore", restore), ("migrate", migrate)):
        vm.command(name)(command)


def save(
    vm: Vm,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the snapshot")],
    *,
    stop: Annotated[bool, typer.Option("--stop", help="End the VM once it is saved")] = False,
    cpu: Cpu = None,
) -> None:
    """Save a VM: memory, vCPUs, and the state of every back end. It is paused meanwhile, then continues."""
    from splitvisor.machine.snapshot_file import SnapshotError
    from splitvisor.machine.snapshot_transfer import snapshot_output, write_snapshot
    from splitvisor.net.times import seconds
    from splitvisor.rpc import machine_pb2  # slow to load

    try:
        output = snapshot_output(vm, file)
        streams = output.streams
    except OSError as error:
        _fail_file("vm save", file, error)
    with machine_stub("vm save", vm, cpu) as stub:
        try:
            responses = stub.SaveMachine(machine_pb2.SaveMachineRequest(vm=vm, stop=stop), timeout=TRANSFER_SECONDS)
            with Unwinding():  # Nothing stays of a file that is not whole.
                saved, size = write_snapshot(responses, output)
        except OSError as error:
            _fail_file("vm save", file, error)
        except SnapshotError as error:
            fail("vm save", str(error))
    sizes = f"{_mebibytes(size)} for {_mebibytes(saved.ram_bytes)} of memory in use"
    typer.echo(f"{file}: {sizes}; {vm} was paused for {seconds(saved.paused):.2f} s", err=streams)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The snapshot")],
    *,
    cpu: Annotated[str, typer.Option("--cpu", metavar="ADDRESS", help="The cpu_service that will run the VM")],
    connect: Connect = None,
) -> None:
    """Restore a VM on running services. `splitvisor run --from FILE` does it with services of its own."""
    from splitvisor.machine.snapshot_file import SnapshotError, read_machine
    from splitvisor.machine.snapshot_transfer import restore_requests

    backends = _backends("vm restore", connect)
    try:
        file, given = Pipes().file(file), file
    except OSError as error:
        _fail_file("vm restore", file, error)
    try:
        vm = read_machine(file).config.name
    except OSError as error:
        _fail_file("vm restore", given, error)
    except SnapshotError as error:
        fail("vm restore", f"{given}: {error}", USAGE)
    began = time.monotonic()
    with machine_stub("vm restore", vm, cpu) as stub:
        for _ in stub.RestoreMachine(restore_requests(vm, file, backends), timeout=TRANSFER_SECONDS):
            pass
    typer.echo(f"{vm} runs at {cpu}, restored in {time.monotonic() - began:.2f} s")


def migrate(
    vm: Vm,
    *,
    to: Annotated[
        str,
        typer.Option("--to", metavar="ADDRESS", help="The cpu_service to move to, at an address that the present one can reach"),
    ],
    connect: Connect = None,
    cpu: Cpu = None,
) -> None:
    """Move a running VM to another cpu_service, with the same or other back ends. If that fails, it keeps running here."""
    from splitvisor.net.times import seconds
    from splitvisor.rpc import machine_pb2  # slow to load

    try:
        check_address(to)
    except AddressError as error:
        fail("vm migrate", f"--to: {error}", USAGE)
    backends = [
        machine_pb2.BackendAddress(name=name, address=address) for name, address in _backends("vm migrate", connect).items()
    ]
    request = machine_pb2.MigrateMachineRequest(vm=vm, target=to, backends=backends)
    with machine_stub("vm migrate", vm, cpu) as stub:
        moved = stub.MigrateMachine(request, timeout=TRANSFER_SECONDS)
    typer.echo(f"{vm} runs at {to}; it was paused for {seconds(moved.downtime):.2f} s, {_mebibytes(moved.sent_bytes)} were sent")


def _backends(command: str, connect: list[str] | None) -> Mapping[str, str]:
    try:
        targets = parse_connect(connect or [], "--connect")
    except ConfigError as error:
        fail(command, str(error), USAGE)
    if "cpu" in targets:
        fail(command, "--connect: cpu is not a back end; leave it out", USAGE)
    packages = {name.command: name.package for name in SERVICE_NAMES}
    return {packages[command]: target for command, target in targets.items()}


def _fail_file(command: str, file: Path, error: OSError) -> NoReturn:
    fail(
        command, f"{file}: {error.strerror or error}", USAGE if isinstance(error, FileNotFoundError | WrongFileError) else FAILED
    )


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
