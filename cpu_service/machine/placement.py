# SPDX-License-Identifier: GPL-2.0-or-later
"""Which back end has which of a machine's devices, slots of the VIO bus, and nodes of the device tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from splitvisor.errors.problem import ProblemError
from splitvisor.papr.vio import SLOTS
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.service.names import VIO_SERVICE

FURTHER_SLOTS = 4
"""Of each further back end, unless the machine's configuration says how many, or all would take more than half."""
OWN_SERVICES = frozenset({"hcall_service", "of_client_service", VIO_SERVICE})


class PlacementError(ProblemError):
    """Devices, slots or nodes do not fit together; one line for whoever wrote the configuration."""


def placed_at(backend: str, devices: Iterable[pb.DeviceSpec]) -> Sequence[pb.DeviceSpec]:
    """Return the devices that a back end has."""
    return [device for device in devices if (device.backend or VIO_SERVICE) == backend]


def check_devices(config: mpb.MachineConfig) -> None:
    """Raise PlacementError when a device is placed at a back end that the machine does not have."""
    names = {backend.name for backend in config.backends}
    for number, device in enumerate(config.devices):
        if device.backend and device.backend not in names:
            known = ", ".join(sorted(names))
            raise PlacementError(f"devices[{number}].backend: there is no back end {device.backend!r}", f"give one of: {known}")


def vio_slots(backends: Sequence[mpb.BackendAddress]) -> Mapping[str, pb.SlotRange]:
    """Return the slots of each back end: those of further back ends from the top down, the rest vio_service's.

    Raises PlacementError when there are not enough.
    """
    slots: dict[str, pb.SlotRange] = {}
    end = SLOTS
    further = sum(1 for backend in backends if backend.name not in OWN_SERVICES)
    for backend in backends:
        if backend.name in OWN_SERVICES:
            slots[backend.name] = pb.SlotRange()
            continue
        count = backend.vio_slots or min(FURTHER_SLOTS, SLOTS // 2 // further)
        if count > end - 1:
            raise PlacementError(
                f"backends: {backend.name}: {count} VIO slots are too many; {end - 1} of {SLOTS} are left beside one "
                f"of {VIO_SERVICE}"
            )
        end -= count
        slots[backend.name] = pb.SlotRange(first=end, count=count)
    if VIO_SERVICE in slots:
        slots[VIO_SERVICE] = pb.SlotRange(first=0, count=end)
    return slots


def described_nodes(described: Iterable[tuple[str, Sequence[pb.TreeNode]]]) -> Sequence[pb.TreeNode]:
    """Put together the nodes that back ends, by name, describe. A node that two describe alike, such as their bus, is there once.

    Raises PlacementError when they describe it differently.
    """
    found: dict[str, tuple[str, pb.TreeNode]] = {}
    for backend, nodes in described:
        for node in nodes:
            other, known = found.setdefault(node.path, (backend, node))
            if known != node:
                raise PlacementError(
                    f"back ends {other} and {backend} describe {node.path} differently; give a device another unit address"
                )
    return [node for _, node in found.values()]
