# SPDX-License-Identifier: GPL-2.0-or-later
"""Adding devices to and removing them from the bus of a running guest, which does its part through connectors."""

from __future__ import annotations

from typing import Any

from splitvisor.backend.vio.connector import Connector, State
from splitvisor.backend.vio.device import BusError, VioDevice, cells_property
from splitvisor.backend.vio.hcall_client import HcallServiceClient, HcallServiceError
from splitvisor.backend.vio.session import VioSession
from splitvisor.papr.vio import interrupt_source, slot_address
from splitvisor.rpc import device_tree_pb2, trap_pb2
from splitvisor.rpc.platform_event_pb2 import HOTPLUG_ACTION_ADD, HOTPLUG_ACTION_REMOVE


class AddressTakenError(BusError):
    """A device has this address, or the interrupt source that belongs to it."""


class NoSlotError(BusError):
    """Every slot has a device."""


class FixedDeviceError(BusError):
    """The device is not in a slot, so it cannot be removed."""


def choose_slot(session: VioSession[Any], unit_address: int) -> Connector:
    """Return the slot at an address, or for 0 the first free slot. Raises BusError and its subclasses above."""
    sources = {device.interrupt_source: device for device in session.bus.devices.values()}
    if not unit_address:
        for connector in session.bus.connectors:
            if connector.device is None and interrupt_source(connector.unit_address) not in sources:
                return connector
        taken = len(session.vm.slots)
        raise NoSlotError(f"all {taken} slots of {session.bus.owner} are taken", "remove a device first")
    chosen = session.bus.connectors.at(unit_address)
    if chosen is None:
        slots = session.vm.slots
        where = f"{slot_address(slots[0]):#x} to {slot_address(slots[-1]):#x}" if slots else "none"
        raise BusError(f"{unit_address:#x} is not a slot of {session.bus.owner}", f"its slots: {where}")
    other = chosen.device or sources.get(interrupt_source(unit_address))
    if other is not None:
        raise AddressTakenError(f"{other.kind} at {other.unit_address:#x} has that address or its interrupt source")
    return chosen


async def add_device(
    session: VioSession[Any], hcall_service: HcallServiceClient, spec: trap_pb2.DeviceSpec
) -> tuple[Connector, device_tree_pb2.GetInterruptParentResponse]:
    """Plug a device in and notify the guest. Returns its slot and the source of its interrupt parent.

    Raises BusError and its kin above for what cannot be plugged in, HcallServiceError when the guest cannot be told; nothing is
    plugged in then.
    """
    if spec.kind not in session.bus.kinds:
        known = ", ".join(sorted(session.bus.kinds))
        raise BusError(f"{session.bus.owner} has no kind of device {spec.kind!r}", f"it has: {known}")
    choose_slot(session, spec.unit_address)
    parent = await hcall_service.interrupt_parent(session.vm.name)
    device, connector = await _begun(session, spec)
    node = session.bus.node(device)
    node.properties.append(cells_property("interrupt-parent", parent.phandle))
    try:
        session.plug(connector, device, node)
    except BusError:
        await device.finish()
        raise
    try:
        await hcall_service.raise_hotplug(session.vm.name, HOTPLUG_ACTION_ADD, connector.index)
    except HcallServiceError:
        if connector.device is device and connector.state is State.UNUSABLE:
            session.unplug(connector)
        raise
    return connector, parent


async def _begun(session: VioSession[Any], spec: trap_pb2.DeviceSpec) -> tuple[VioDevice, Connector]:
    """Return a device that is ready for a slot, and the slot, which is free as long as nothing is awaited. Raises BusError."""
    kind = session.bus.kinds[spec.kind].device
    address = choose_slot(session, spec.unit_address).unit_address
    device = kind(session.vm, address, spec.options)
    try:
        await device.begin()
        return device, choose_slot(session, address)
    except BaseException:  # It cannot begin, or another has taken the slot meanwhile.
        await device.finish()
        raise


async def remove_device(session: VioSession[Any], hcall_service: HcallServiceClient, unit_address: int) -> Connector:
    """Ask the guest to release a device. Returns its slot, which is already empty if the guest never used the device.

    Raises KeyError if there is no such device, FixedDeviceError, HcallServiceError.
    """
    device = session.bus.devices[unit_address]
    connector = session.bus.connectors.at(unit_address)
    if connector is None or connector.device is not device:
        raise FixedDeviceError(f"{device.kind} at {unit_address:#x} is not in a slot and stays")
    if connector.state is State.UNUSABLE:
        session.unplug(connector)
        return connector
    asked_before, connector.removal_asked = connector.removal_asked, True
    try:
        await hcall_service.raise_hotplug(session.vm.name, HOTPLUG_ACTION_REMOVE, connector.index)
    except HcallServiceError:
        connector.removal_asked = asked_before and connector.device is device
        raise
    session.vm.inventory_changed()
    return connector
