# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm cd-insert` and `vm cd-eject`: the medium of a CD drive, while the guest runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from splitvisor.cli.control import USAGE, fail, service_stub
from splitvisor.cli.vio_backends import BusBackend, bus_devices, vio_backends
from splitvisor.cli.vm_devices import Vio, Vm, unit_address

CHANGE_S = 60.0
"""How long to wait: transfers from the old medium have to end."""

Drive = Annotated[str, typer.Option("--drive", metavar="NAME", help="The drive, such as cdrom1 \\[the only one]")]
Adapter = Annotated[str, typer.Option("--adapter", metavar="N", help="Unit address of the drive's adapter \\[the only one]")]
Force = Annotated[bool, typer.Option("--force", help="Also when the guest has locked the drive, as for a mounted CD")]


def add_commands(vm: typer.Typer) -> None:
    """Add the commands to `splitvisor vm`."""
    vm.command("cd-insert")(cd_insert)
    vm.command("cd-eject")(cd_eject)


def cd_insert(
    vm: Vm,
    image: Annotated[str, typer.Argument(metavar="FILE", help="An image and its options, as --cdrom takes it")],
    *,
    drive: Drive = "",
    adapter: Adapter = "0",
    force: Force = False,
    vio: Vio = None,
) -> None:
    """Put an image into a CD drive of a running guest, in place of what is there.

    The image is read on the host of the back end that has the drive.

    Exit status: 0 done, 1 the guest has locked the drive, or the image cannot be used, 2 bad usage.
    """
    from splitvisor.block.options import DiskOptionError, parse_cdrom  # slow to load

    try:
        medium = parse_cdrom(image).absolute(Path()).text()
    except DiskOptionError as error:
        fail("vm cd-insert", f"{image}: {error.problem}", USAGE)
    _change("vm cd-insert", vm, vio, drive, adapter, medium, force=force)


def cd_eject(vm: Vm, *, drive: Drive = "", adapter: Adapter = "0", force: Force = False, vio: Vio = None) -> None:
    """Take the medium out of a CD drive of a running guest.

    Exit status: 0 done, 1 the guest has locked the drive, 2 bad usage.
    """
    from splitvisor.block.options import EMPTY  # slow to load

    _change("vm cd-eject", vm, vio, drive, adapter, EMPTY, force=force)


def _change(command: str, vm: str, vio: str | None, drive: str, adapter: str, medium: str, *, force: bool) -> None:
    from splitvisor.rpc import vio_bus_pb2, vio_bus_pb2_grpc  # slow to load

    backend, address, name = _drive(command, vm, vio, drive, unit_address(command, adapter))
    request = vio_bus_pb2.ChangeMediumRequest(vm=vm, unit_address=address, drive=name, medium=medium, force=force)
    with service_stub(command, vm, "vio", backend.address, vio_bus_pb2_grpc.VioBusServiceStub) as bus:
        answer = bus.ChangeMedium(request, timeout=CHANGE_S)
    place = next((disk.place for disk in answer.device.disks if disk.name == name), "")
    typer.echo(f"{name} at {address:#x} {f'has {place}' if place else 'is empty'}")


def _drive(command: str, vm: str, vio: str | None, wanted: str, adapter: int) -> tuple[BusBackend, int, str]:
    """Return the back end, the adapter and the name of the drive that is meant; one that is not clear ends the program."""
    devices = bus_devices(command, vm, vio_backends(command, vm, vio))
    drives = [(backend, device, disk) for backend, device in devices for disk in device.disks if disk.HasField("drive")]
    found = [each for each in drives if wanted in ("", each[2].name) and adapter in (0, each[1].unit_address)]
    known = ", ".join(_named(device, disk) for _, device, disk in drives)
    if not drives:
        fail(command, f"{vm} has no CD drive; start it with --cdrom FILE, or --cdrom empty", USAGE)
    if not found:
        fail(command, f"{vm} has no such drive; it has: {known}", USAGE)
    if len(found) > 1:
        fail(command, f"{vm} has {len(found)} such drives: {known}; give --drive, and --adapter if needed", USAGE)
    [(backend, device, disk)] = found
    return backend, int(device.unit_address), str(disk.name)


def _named(device: Any, disk: Any) -> str:
    return f"{disk.name} at {device.unit_address:#x}"
