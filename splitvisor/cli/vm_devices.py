# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm devices`, `device-add` and `device-remove`: the VIO bus of a running guest."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from splitvisor.cli.control import DEADLINE_S, USAGE, fail, service_stub
from splitvisor.cli.seconds import seconds
from splitvisor.cli.vio_backends import BusBackend, bus_devices, vio_backends
from splitvisor.machine.devices import options_from_here
from splitvisor.machine.disks import DiskListError
from splitvisor.service.names import VIO_SERVICE

vm = typer.Typer(help="Start, stop and change VMs.", no_args_is_help=True)

Vm = Annotated[str, typer.Argument(metavar="VM", help="The VM's name")]
Vio = Annotated[
    str | None, typer.Option("--vio", metavar="ADDRESS", help="Use only this back end \\[all back ends of the run with the VM]")
]
Wait = Annotated[float, typer.Option("--wait", metavar="S", parser=seconds(0, 60), help="How long to wait for the guest")]


@vm.command("devices")
def devices(vm: Vm, *, vio: Vio = None) -> None:
    """List the devices on a VM's VIO bus, and which back end has each."""
    for backend, device in bus_devices("vm devices", vm, vio_backends("vm devices", vm, vio)):
        typer.echo(_line(device, backend.name))


@vm.command("device-add")
def device_add(
    vm: Vm,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="v-scsi, l-lan, vty, vty-server, nvram, or a kind of the back end")],
    *,
    address: Annotated[str, typer.Option(metavar="N", help="Unit address, 0x71000000 to 0x7100003f \\[the first free]")] = "0",
    backend: Annotated[str, typer.Option(metavar="NAME", help="The back end that provides the device")] = VIO_SERVICE,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting, such as disk0=FILE or net=user; may be repeated")
    ] = None,
    wait: Wait = 5.0,
    vio: Vio = None,
) -> None:
    """Add a device to a running guest and wait until the guest uses it.

    Exit status: 0 the guest uses it, 1 it is plugged in but not used yet, or it could not be added.
    """
    from splitvisor.net.times import duration
    from splitvisor.rpc import trap_pb2, vio_bus_pb2, vio_bus_pb2_grpc  # slow to load
    from splitvisor.rpc.device_tree_pb2 import INTERRUPT_PARENT_SOURCE_STORED_TREE

    command = "vm device-add"
    options = _options(command, option or [])
    if backend == VIO_SERVICE:
        try:
            options = options_from_here(kind, options)
        except DiskListError as error:
            fail(command, f"--option: {error.key}: {error.problem}", USAGE)
    spec = trap_pb2.DeviceSpec(kind=kind, unit_address=unit_address(command, address), options=options)
    request = vio_bus_pb2.AddDeviceRequest(vm=vm, device=spec, wait=duration(wait))
    place = _named(command, vm, vio, backend)
    with service_stub(command, vm, "vio", place.address, vio_bus_pb2_grpc.VioBusServiceStub) as bus:
        answer = bus.AddDevice(request, timeout=wait + DEADLINE_S)
    stored = answer.interrupt_parent_source == INTERRUPT_PARENT_SOURCE_STORED_TREE
    origin = "from the stored tree" if stored else "the fixed fallback"
    typer.echo(f"{_line(answer.device, place.name)}; interrupt parent {answer.interrupt_parent:#x}, {origin}")
    if answer.device.connector.state != vio_bus_pb2.CONNECTOR_STATE_CONFIGURED:
        late = f"plugged in, but the guest did not use it within {wait:g} s"
        fail(command, f"{late}; in Linux, drmgr -c slot -s {answer.device.connector.name} -a adds it")


@vm.command("device-remove")
def device_remove(
    vm: Vm,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="The device's unit address")],
    *,
    wait: Wait = 5.0,
    vio: Vio = None,
) -> None:
    """Ask a running guest to release a device and wait until it does.

    Exit status: 0 the device is removed, 1 the guest still uses it, or could not be asked.
    """
    from splitvisor.net.times import duration
    from splitvisor.rpc import vio_bus_pb2, vio_bus_pb2_grpc  # slow to load

    command = "vm device-remove"
    request = vio_bus_pb2.RemoveDeviceRequest(vm=vm, unit_address=unit_address(command, address), wait=duration(wait))
    owner = _owner(command, vm, vio, request.unit_address)
    with service_stub(command, vm, "vio", owner.address, vio_bus_pb2_grpc.VioBusServiceStub) as bus:
        answer = bus.RemoveDevice(request, timeout=wait + DEADLINE_S)
    if not answer.removed:
        late = f"the guest was asked but did not release {request.unit_address:#x} within {wait:g} s"
        fail(command, f"{late}; in Linux, drmgr -c slot -s SLOT -r releases it (`vm devices` shows SLOT)")
    typer.echo(f"{request.unit_address:#x} is removed")


def _named(command: str, vm: str, vio: str | None, name: str) -> BusBackend:
    backends = vio_backends(command, vm, vio)
    found = next((backend for backend in backends if backend.name in ("", name)), None)
    if found is None:
        known = ", ".join(backend.name for backend in backends)
        fail(command, f"--backend: VM {vm!r} has no back end {name!r}; known: {known}", USAGE)
    return found


def _owner(command: str, vm: str, vio: str | None, unit_address: int) -> BusBackend:
    """Return the back end that has a device; vio_service, which then says so, when none has."""
    backends = vio_backends(command, vm, vio)
    if len(backends) == 1:
        return backends[0]
    owners = (backend for backend, device in bus_devices(command, vm, backends) if device.unit_address == unit_address)
    return next(owners, backends[0])


def _line(device: Any, backend: str) -> str:
    from splitvisor.rpc import vio_bus_pb2  # slow to load

    at = f"  {backend}" if backend else ""
    line = f"{device.unit_address:#x}  {device.kind}{at}  interrupt {device.interrupt_source:#x}"
    if not device.HasField("connector"):
        return f"{line}  fixed"
    state = vio_bus_pb2.ConnectorState.Name(device.connector.state).removeprefix("CONNECTOR_STATE_").lower()
    asked = ", asked to go" if device.connector.removal_asked else ""
    return f"{line}  slot {device.connector.name} ({device.connector.index:#x}) {state}{asked}"


def unit_address(command: str, text: str) -> int:
    """Return the unit address that somebody gave; one that is not ends the program."""
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if not 0 <= address < 1 << 32:
        fail(command, f"{text!r} is not a unit address; give a number such as 0x71000001", USAGE)
    return address


def _options(command: str, texts: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            fail(command, f"--option: {text!r} is not NAME=VALUE; give one such as disk0=FILE or net=user", USAGE)
        if name in options:
            fail(command, f"--option: {name} is given twice; give it once", USAGE)
        options[name] = value
    return options
