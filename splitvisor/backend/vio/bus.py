# SPDX-License-Identifier: GPL-2.0-or-later
"""The VIO bus of one VM at one back end: devices at unit addresses, some of them in slots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import DecodeError

from splitvisor.backend.vio.connector import Connector, Connectors, State, slot_properties
from splitvisor.backend.vio.device import BusError, DeviceKind, VioDevice, cells_property, text_property
from splitvisor.declarations.calls import Key
from splitvisor.declarations.session import Vm
from splitvisor.declarations.state import StateError
from splitvisor.papr.vio import FIRST_SLOT_ADDRESS, MAX_DEVICES, SLOTS, slot_address
from splitvisor.rpc import state_pb2, trap_pb2

ADDRESS_MASK = 0xFFFF_FFFF
"""Unit addresses and LIOBNs are 32 bits wide; the upper half of their register is ignored, as hypervisors do."""

_ALL_SLOTS = range(FIRST_SLOT_ADDRESS, slot_address(SLOTS))

_Device = TypeVar("_Device", bound=VioDevice)


class VioBus:
    """The devices and slots of one VM at one back end.

    Args:
        vm: the VM.
        kinds: the back end's kinds of devices.
        owner: the back end's name, for messages.
        changed: called with a connector whose state has changed, and its state before.

    Raises BusError if the devices of the VM's configuration conflict.
    """

    def __init__(self, vm: Vm, kinds: Mapping[str, DeviceKind], owner: str, changed: Callable[[Connector, State], None]) -> None:
        self.vm, self.kinds, self.owner = vm, kinds, owner
        self.connectors = Connectors(vm.slots, changed)
        self.devices: dict[int, VioDevice] = {}
        """By unit address, in ascending order."""
        sources: dict[int, VioDevice] = {}
        for address, spec in assign_addresses(vm.devices, kinds, vm.slots, owner):
            device = kinds[spec.kind].device(vm, address, spec.options)
            other = sources.setdefault(device.interrupt_source, device)
            if other is not device:
                raise BusError(
                    f"{other.kind} at {other.unit_address:#x} and {device.kind} at {address:#x} would share "
                    f"interrupt source {device.interrupt_source:#x}; give one another unit address"
                )
            self.devices[address] = device
            connector = self.connectors.at(address)
            if connector is not None:
                connector.plug(device, self.node(device))
                connector.reset()
            if spec.remembered:
                _remember(device, connector, spec.remembered)

    @property
    def is_first(self) -> bool:
        """Whether this back end has the first slot: it answers calls that name no device."""
        return 0 in self.vm.slots

    def find(self, unit_address: int, kind: type[_Device]) -> _Device | None:
        """Return the device at an address from a guest, or None if there is none of this kind."""
        device = self.devices.get(unit_address)
        return device if isinstance(device, kind) else None

    def all(self, kind: type[_Device]) -> list[_Device]:
        """Return every device of a kind, lowest address first."""
        return [device for device in self.devices.values() if isinstance(device, kind)]

    def nodes(self) -> Sequence[trap_pb2.TreeNode]:
        """Describe /vdevice, then every device in order of its address."""
        return (_bus_node(), *(self.node(device) for device in self.devices.values()))

    def node(self, device: VioDevice) -> trap_pb2.TreeNode:
        """Describe a device for the device tree, with its connector."""
        node = device.node()
        connector = self.connectors.at(device.unit_address)
        if connector is not None:
            node.properties.append(cells_property("ibm,my-drc-index", connector.index))
        return node

    def inventory(self) -> Sequence[trap_pb2.DeviceSpec]:
        """Return every device, and the connector states of those in slots: the start of a bus that replaces this one."""
        return [
            trap_pb2.DeviceSpec(
                kind=device.kind, unit_address=address, options=device.options, remembered=self._remembered(device)
            )
            for address, device in self.devices.items()
        ]

    def _remembered(self, device: VioDevice) -> bytes:
        connector = self.connectors.at(device.unit_address)
        slot = b"" if connector is None or connector.device is not device else connector.remembered(self.node(device))
        own = device.remembered()
        # Fields of one message, one after the other, are the message.
        return slot + state_pb2.VioConnectorState(device=own).SerializeToString() if own else slot

    def plug(self, connector: Connector, device: VioDevice, node: trap_pb2.TreeNode) -> None:
        """Put a device into an empty slot; node is returned to the guest by ibm,configure-connector."""
        self.devices = dict(sorted([*self.devices.items(), (device.unit_address, device)]))
        connector.plug(device, node)

    def unplug(self, connector: Connector) -> VioDevice:
        """Remove a device from its slot, after the guest has released it or before it has used it."""
        device = self.devices.pop(connector.unit_address)
        connector.unplug()
        return device

    async def reset_devices(self) -> None:
        """Bring every device to its power-on state."""
        devices = list(self.devices.values())
        await asyncio.gather(*(device.stop() for device in devices))  # Together: each may need its time.
        for device in devices:
            device.reset()


def by_address(kind: type[VioDevice], argument: int = 0) -> Key:
    """Return the key of a call that selects a device of a kind by its unit address.

    Args:
        kind: the device's class.
        argument: index of the argument with the unit address: 0 is r4.
    """

    def addresses(session: Any) -> Sequence[int]:
        return [device.unit_address for device in session.bus.all(kind)]

    return Key(addresses, argument=argument)


def assign_addresses(
    specs: Sequence[trap_pb2.DeviceSpec], kinds: Mapping[str, DeviceKind], slots: range, owner: str
) -> list[tuple[int, trap_pb2.DeviceSpec]]:
    """Give every device its unit address.

    Addresses in the configuration are assigned first; then serial devices, then all others, get the addresses of the first
    free slots.

    Raises BusError for an unknown kind, for two devices with one address, for an address in a slot of another back
    end, and if there are not enough slots.
    """
    if len(specs) > MAX_DEVICES:
        raise BusError(f"{len(specs)} VIO devices, but a bus has room for {MAX_DEVICES}", "take some away")
    stated: dict[int, trap_pb2.DeviceSpec] = {}
    for spec in specs:
        if spec.kind not in kinds:
            known = ", ".join(sorted(kinds))
            raise BusError(
                f"{owner} has no kind of device {spec.kind!r} (it has: {known}); place it at a back end that has: backend = NAME"
            )
        if spec.unit_address:
            if spec.unit_address in _ALL_SLOTS and spec.unit_address - FIRST_SLOT_ADDRESS not in slots:
                own = f"{slot_address(slots.start):#x} to {slot_address(slots.stop - 1):#x}" if slots else "none"
                raise BusError(
                    f"{spec.kind} has unit address {spec.unit_address:#x}, a slot of another back end; "
                    f"{owner} has {own}: give it one of those, or none to have it chosen"
                )
            other = stated.setdefault(spec.unit_address, spec)
            if other is not spec:
                raise BusError(
                    f"{other.kind} and {spec.kind} both have unit address {spec.unit_address:#x}; "
                    "give one another address, or none to have it chosen"
                )
    assigned = list(stated.items())
    free = [address for address in map(slot_address, slots) if address not in stated]
    automatic = [spec for spec in specs if not spec.unit_address]
    if len(automatic) > len(free):
        raise BusError(
            f"{len(automatic)} devices need a slot and {owner} has {len(free)} free; give it more (slots = N), or unit addresses "
            f"below {FIRST_SLOT_ADDRESS:#x}"
        )
    automatic.sort(key=lambda spec: not kinds[spec.kind].device.serial)
    assigned.extend(zip(free, automatic, strict=False))
    return sorted(assigned, key=lambda pair: pair[0])


def _bus_node() -> trap_pb2.TreeNode:
    """Identical at every back end, so the tree has it once."""
    return trap_pb2.TreeNode(
        path="/vdevice",
        properties=[
            text_property("device_type", "vdevice"),
            text_property("compatible", "IBM,vdevice"),
            cells_property("#address-cells", 1),
            cells_property("#size-cells", 0),
            cells_property("#interrupt-cells", 2),
            trap_pb2.TreeProperty(name="interrupt-controller"),
            *slot_properties(),
        ],
    )


def _remember(device: VioDevice, connector: Connector | None, remembered: bytes) -> None:
    try:
        state = state_pb2.VioConnectorState.FromString(remembered)
        own = state.device
        state.ClearField("device")
        if own:
            device.remember(own)
        if connector is not None and state != state_pb2.VioConnectorState():
            connector.remember(state)
    except (DecodeError, ValueError, StateError) as error:
        where = device.name if connector is None else f"slot {connector.name}"
        raise BusError(f"what is remembered of {where} is unusable: {error}") from error


class OnBus(Protocol):
    """A session as seen by the bus's own calls."""

    vm: Vm
    bus: VioBus

    async def keep_change(self) -> None:
        """Make a connector's change durable before the guest gets its answer."""
