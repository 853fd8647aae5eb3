# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands that talk to running services have in common: one rpc, and one line when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer

from splitvisor.machine.config import ConfigError
from splitvisor.net.addresses import AddressError
from splitvisor.process.outputs import SHARED, Content, Output
from splitvisor.run.running_vms import NoSuchVmError, service_address

DEADLINE_S = 10.0
OPTIONS = (
    # A service that takes connections and does not answer, or is stopped, or whose host is gone, is noticed.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
)
"""Of every command's channels."""
FAILED, USAGE = 1, 2
"""Exit statuses."""


def fail(command: str, text: str, status: int = FAILED) -> NoReturn:
    """Print one line and end the program."""
    typer.echo(f"splitvisor {command}: {text}", err=True)
    raise typer.Exit(status)


def output_file(command: str, path: Path, content: Content, mode: int = SHARED) -> Output:
    """Return an output of a command; one that cannot be written ends the program with one line."""
    try:
        return Output(path, content, mode)
    except OSError as error:
        fail(command, f"{path}: {error.strerror}; give another file", USAGE)


@contextmanager
def service_stub(
    command: str,
    vm: str,
    service: str,
    address: str | None,
    stub: Callable[[Any], Any],
    *,
    failed: int = FAILED,
) -> Iterator[Any]:
    """Yield a stub for one of a VM's services; an rpc that fails ends the program with its reason.

    Args:
        command: for messages.
        vm: the VM.
        service: "cpu", "hcall" or "vio".
        address: where it is; None: as the run that has the VM says.
        stub: makes the stub of a channel.
        failed: the exit status when an rpc fails.
    """
    import grpc  # slow to load, and most commands do without

    from splitvisor.errors.status import problem_in
    from splitvisor.net.channels import explain, open_channel

    try:
        target = address or service_address(vm, service)
        channel = open_channel(target, OPTIONS)
    except (NoSuchVmError, AddressError, ConfigError) as error:
        fail(command, str(error), USAGE)
    with channel:
        try:
            yield stub(channel)
        except grpc.RpcError as error:
            silent = error.code() is grpc.StatusCode.UNAVAILABLE and not error.details()
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not problem_in(error).reason
            text = (
                f"no answer at {target} in time; is the service stopped, or very busy?"
                if silent or late
                else explain(error, target)
            )
            fail(command, text, failed)


@contextmanager
def machine_stub(command: str, vm: str, cpu: str | None, *, failed: int = FAILED) -> Iterator[Any]:
    """Yield a stub for a VM's cpu_service, as service_stub() does. A VM that is not there is wrong usage."""
    import grpc  # slow to load, and most commands do without

    from splitvisor.errors.status import NO_SUCH_MACHINE, problem_in
    from splitvisor.rpc import machine_pb2_grpc

    with service_stub(command, vm, "cpu", cpu, machine_pb2_grpc.MachineServiceStub, failed=failed) as stub:
        try:
            yield stub
        except grpc.RpcError as error:
            problem = problem_in(error)
            if problem.reason == NO_SUCH_MACHINE:
                fail(command, str(problem), USAGE)
            raise
