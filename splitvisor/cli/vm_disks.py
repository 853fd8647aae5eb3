# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm disks` and `vm nets`: the disks, drives and networks of a running guest, and what they do."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from splitvisor.cli.columns import columns
from splitvisor.cli.vio_backends import bus_devices, vio_backends
from splitvisor.cli.vm_devices import Vio, Vm

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]


def add_commands(vm: typer.Typer) -> None:
    """Add the commands to `splitvisor vm`."""
    for command in (disks, nets):
        vm.command(command.__name__)(command)


def disks(vm: Vm, *, as_json: AsJson = False, vio: Vio = None) -> None:
    """List a VM's disks and CD drives: their images and what they have done since they were opened."""
    found = [
        (device, disk) for _, device in bus_devices("vm disks", vm, vio_backends("vm disks", vm, vio)) for disk in device.disks
    ]
    if as_json:
        typer.echo(json.dumps([_disk_fields(device, disk) for device, disk in found]))
        return
    head = ("DISK", "ADAPTER", "TARGET", "SIZE", "READS", "READ", "MS", "WRITES", "WRITTEN", "MS", "ERRORS", "DEPTH", "IMAGE")
    rows = [head, *(_disk_row(device, disk) for device, disk in found)]
    typer.echo("\n".join(columns(rows, numbers=range(2, 12))) if found else f"{vm} has no disks")


def nets(vm: Vm, *, as_json: AsJson = False, vio: Vio = None) -> None:
    """List a VM's network devices: what they are connected to, and what went over them."""
    devices = bus_devices("vm nets", vm, vio_backends("vm nets", vm, vio))
    found = [device for _, device in devices if device.HasField("network")]
    if as_json:
        typer.echo(json.dumps([_net_fields(device) for device in found]))
        return
    head = ("DEVICE", "MAC", "GUEST", "SENT", "BYTES", "DROPPED", "RECEIVED", "BYTES", "DROPPED", "NETWORK")
    rows = [head, *(_net_row(device) for device in found)]
    typer.echo("\n".join(columns(rows, numbers=range(3, 9))) if found else f"{vm} has no network devices")


def _disk_fields(device: Any, disk: Any) -> dict[str, Any]:
    counters = disk.counters
    fields: dict[str, Any] = {
        "disk": disk.name, "unit_address": device.unit_address, "target": disk.target, "image": disk.place or None,
        "serial": disk.serial, "bytes": disk.size, "read_only": disk.read_only, "errors": counters.errors,
        "depth": counters.depth, "deepest": counters.deepest,
    }  # fmt: skip
    for name in ("reads", "writes", "flushes", "discards"):
        operations = getattr(counters, name)
        fields[name] = {"count": operations.count, "bytes": operations.bytes, "seconds": round(_seconds(operations.time), 6)}
    if disk.HasField("drive"):
        fields["drive"] = {"tray_open": disk.drive.tray_open, "locked": disk.drive.locked}
    return fields


def _disk_row(device: Any, disk: Any) -> tuple[str, ...]:
    counters = disk.counters
    return (
        disk.name, f"{device.unit_address:#x}", str(disk.target), _amount(disk.size),
        str(counters.reads.count), _amount(counters.reads.bytes), _mean(counters.reads),
        str(counters.writes.count), _amount(counters.writes.bytes), _mean(counters.writes),
        str(counters.errors), str(counters.depth), disk.place + _drive_text(disk),
    )  # fmt: skip


def _drive_text(disk: Any) -> str:
    """What there is to say of a drive behind its image."""
    if not disk.HasField("drive"):
        return ""
    states = ["" if disk.place else "empty", "tray open" if disk.drive.tray_open else "", "locked" if disk.drive.locked else ""]
    text = ", ".join(filter(None, states))
    return f" ({text})" if text and disk.place else text


def _net_fields(device: Any) -> dict[str, Any]:
    network = device.network
    fields: dict[str, Any] = {
        "unit_address": device.unit_address, "mac": network.mac.hex(":"), "open": network.is_open, "network": network.place,
    }  # fmt: skip
    for name in ("sent", "received"):
        counters = getattr(network, name)
        fields[name] = {"frames": counters.frames, "bytes": counters.bytes, "dropped": counters.dropped}
    return fields


def _net_row(device: Any) -> tuple[str, ...]:
    network = device.network
    counts = (
        cell
        for counters in (network.sent, network.received)
        for cell in (str(counters.frames), _amount(counters.bytes), str(counters.dropped))
    )
    state = "open" if network.is_open else "closed"
    return (f"{device.unit_address:#x}", network.mac.hex(":"), state, *counts, network.place)


def _seconds(span: Any) -> float:
    return float(span.ToNanoseconds() / 1e9)


def _mean(operations: Any) -> str:
    return f"{1000 * _seconds(operations.time) / operations.count:.2f}" if operations.count else "-"


def _amount(number: int) -> str:
    """Return bytes as people read them: 1.5M."""
    amount = float(number)
    for unit in ("", "K", "M", "G"):
        if amount < 1024:
            return f"{amount:.0f}" if not unit else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}T"
