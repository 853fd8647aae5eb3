# SPDX-License-Identifier: GPL-2.0-or-later
"""Which back ends may have devices on a VM's VIO bus, and one question to all of them.

vio_service is one; the machine's status names the others. Not every back end has such devices: those that do serve VioBusService,
or ConsoleService for their terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from splitvisor.cli.control import DEADLINE_S, USAGE, fail, service_stub
from splitvisor.machine.config import ConfigError
from splitvisor.run.running_vms import NoSuchVmError, service_address
from splitvisor.service.names import SERVICE_NAMES, VIO_SERVICE

OTHERS_SECONDS = 2.0
"""How long cpu_service, or a back end besides vio_service, may take: without it there is still an answer."""

Ask = Callable[[Any, float], Any]
"""Asks a stub something, with a deadline in seconds."""


@dataclass(frozen=True)
class BusBackend:
    """A back end that may have devices of the VIO bus."""

    name: str
    """Its name in the machine's configuration; empty: the service at a given address."""
    address: str


def vio_backends(command: str, vm: str, vio: str | None) -> Sequence[BusBackend]:
    """Return a VM's back ends that may have VIO devices, vio_service first; what cannot be found ends the program.

    Args:
        command: for messages.
        vm: the VM.
        vio: the only one, when its address was given.
    """
    if vio is not None:
        return (BusBackend("", vio),)
    try:
        own = BusBackend(VIO_SERVICE, service_address(vm, "vio"))
    except (NoSuchVmError, ConfigError) as error:
        fail(command, str(error), USAGE)
    try:
        cpu = service_address(vm, "cpu")
    except NoSuchVmError:  # Of services that were started by hand only some may be known.
        return (own,)
    return (own, *further_backends(command, vm, cpu))


def further_backends(command: str, vm: str, cpu: str) -> Sequence[BusBackend]:
    """Return the back ends that a VM has besides Splitvisor's services. A cpu_service that does not answer is one line.

    Args:
        command: for messages.
        vm: the VM that is meant; empty: all that run there.
        cpu: gRPC target of its cpu_service.
    """
    import grpc  # slow to load, and most commands do without

    from splitvisor.net.addresses import AddressError
    from splitvisor.net.channels import explain, open_channel
    from splitvisor.net.pages import every
    from splitvisor.rpc import machine_pb2, machine_pb2_grpc

    try:
        with open_channel(cpu) as channel:
            machine = machine_pb2_grpc.MachineServiceStub(channel)
            there = every(machine.ListMachines, machine_pb2.ListMachinesRequest(), OTHERS_SECONDS)
            statuses = [
                machine.GetStatus(machine_pb2.GetStatusRequest(vm=each.vm), timeout=OTHERS_SECONDS)
                for each in there
                if vm in ("", each.vm)
            ]
    except (grpc.RpcError, AddressError) as error:
        why = explain(error, cpu) if isinstance(error, grpc.RpcError) else str(error)
        typer.echo(f"splitvisor {command}: only vio_service is shown, not the other back ends: cpu_service: {why}", err=True)
        return ()
    own = {name.package for name in SERVICE_NAMES}
    return [BusBackend(each.name, each.address) for status in statuses for each in status.backends if each.name not in own]


def ask_all(
    command: str, vm: str, backends: Sequence[BusBackend], stub: Callable[[Any], Any], ask: Ask
) -> Iterator[tuple[BusBackend, Any]]:
    """Yield what each back end answers that serves the service; the program ends when the first does not answer.

    Args:
        command: for messages.
        vm: the VM.
        backends: whom to ask; any but the first may be unable to answer, which is one line.
        stub: makes the stub of a channel.
        ask: what to ask.
    """
    first, *others = backends
    with service_stub(command, vm, "vio", first.address, stub) as service:
        yield first, ask(service, DEADLINE_S)
    for backend in others:
        answer = ask_one(backend, stub, ask)
        if isinstance(answer, str):
            typer.echo(f"splitvisor {command}: {backend.name} is left out: {answer}", err=True)
        elif answer is not None:
            yield backend, answer


def bus_devices(command: str, vm: str, backends: Sequence[BusBackend]) -> Sequence[tuple[BusBackend, Any]]:
    """Return the devices on a VM's bus at these back ends, by unit address; see ask_all()."""
    from splitvisor.rpc import vio_bus_pb2, vio_bus_pb2_grpc  # slow to load

    request = vio_bus_pb2.DescribeBusRequest(vm=vm)
    answers = ask_all(
        command, vm, backends, vio_bus_pb2_grpc.VioBusServiceStub, lambda bus, timeout: bus.DescribeBus(request, timeout=timeout)
    )
    found = [(backend, device) for backend, answer in answers for device in answer.devices]
    return sorted(found, key=lambda each: int(each[1].unit_address))


def ask_one(backend: BusBackend, stub: Callable[[Any], Any], ask: Ask) -> Any:
    """Return what a back end answers; a text when it cannot; None when it does not serve this at all."""
    import grpc

    from splitvisor.net.addresses import AddressError
    from splitvisor.net.channels import explain, open_channel

    try:
        with open_channel(backend.address) as channel:
            return ask(stub(channel), OTHERS_SECONDS)
    except grpc.RpcError as error:
        return None if error.code() is grpc.StatusCode.UNIMPLEMENTED else explain(error, backend.address)
    except AddressError as error:
        return str(error)
