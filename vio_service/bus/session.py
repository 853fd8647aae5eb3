# SPDX-License-Identifier: GPL-2.0-or-later
"""The VIO bus of one VM: its devices, their addresses, and every call that vio_service owns.

A new device is a module with a VioDevice and a table of calls, and one line in each of DEVICE_KINDS and VioSession.calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from splitvisor.backend import Call, Hypercall, RtasCall, Vm
from splitvisor.backend.state import StateError
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import trap_pb2
from vio_service.bus import state as bus_state
from vio_service.bus import tce
from vio_service.bus.device import AUTOMATIC_ADDRESSES, BusError, BusSession, VioDevice, cells_property, text_property
from vio_service.console.console import Console
from vio_service.console.session import DEFAULT_SETTINGS, ConsoleSession, ConsoleSettings
from vio_service.devices import nvram, vty
from vio_service.hotplug import connectors
from vio_service.hotplug.connectors import Connector, State
from vio_service.hotplug.platform import Platform

DEVICE_KINDS: dict[str, type[VioDevice]] = {device.kind: device for device in (vty.Vty, nvram.Nvram)}
"""Every kind of device that a machine's configuration may ask for here."""
MAX_DEVICES = 256
"""The bus has that many interrupt sources."""

_WORD_MASK = 0xFFFF_FFFF


def assign_addresses(specs: Sequence[trap_pb2.DeviceSpec]) -> list[tuple[int, trap_pb2.DeviceSpec]]:
    """Give every device of this bus its unit address; devices of unknown kinds are another back end's and left out.

    Addresses that the configuration states are taken first; then serial devices, then the others, get the first free ones from
    0x71000000.

    Raises BusError when two devices state the same address.
    """
    known = [spec for spec in specs if spec.kind in DEVICE_KINDS]
    if len(known) > MAX_DEVICES:
        raise BusError(f"{len(known)} VIO devices, but a bus has room for {MAX_DEVICES}; take some away")
    stated: dict[int, trap_pb2.DeviceSpec] = {}
    for spec in known:
        if spec.unit_address:
            other = stated.setdefault(spec.unit_address, spec)
            if other is not spec:
                raise BusError(
                    f"{other.kind} and {spec.kind} both have unit address {spec.unit_address:#x}; "
                    "give one another address, or none to have it chosen"
                )
    assigned = list(stated.items())
    free = (address for address in range(AUTOMATIC_ADDRESSES, 1 << 32) if address not in stated)
    automatic = [spec for spec in known if not spec.unit_address]
    automatic.sort(key=lambda spec: not DEVICE_KINDS[spec.kind].serial)
    assigned.extend(zip(free, automatic, strict=False))
    return sorted(assigned, key=lambda pair: pair[0])


def vio_signal(session: BusSession, call: Call) -> int:
    """Turn a device's interrupt on (1) or off (0): unit address, mode."""
    unit_address, mode = call.arguments
    device = session.find(unit_address & _WORD_MASK, VioDevice)
    if device is None or mode & ~device.signal_mask:
        return H.PARAMETER
    device.signal_state = mode
    return H.SUCCESS


def quiesce(session: VioSession, call: Call) -> int:
    """Stop all I/O before the guest takes over from its firmware: DMA windows are emptied, signals turned off."""
    session.reset_devices()
    return RtasStatus.SUCCESS


class VioSession(ConsoleSession):
    """One VM's VIO bus.

    Args:
        vm: the VM.
        platform: has its stored tree, which follows the bus; None: devices do not come and go.
        consoles: what holds for its consoles.

    Raises BusError when the devices that the VM asks for do not fit together, or its transcripts cannot be kept.
    """

    calls = (
        *vty.CALLS,
        *nvram.CALLS,
        *tce.CALLS,
        *connectors.CALLS,
        Hypercall(Hcall.H_VIO_SIGNAL, vio_signal, arguments=2, section="LoPAPR 17.2.1"),
        # SLOF makes this call without room for a status.
        RtasCall("quiesce", quiesce, section="private to QEMU and SLOF", arguments=0, returns=None),
    )

    def __init__(self, vm: Vm, platform: Platform | None = None, consoles: ConsoleSettings = DEFAULT_SETTINGS) -> None:
        super().__init__(vm, consoles)
        self.platform = platform
        sources: dict[int, VioDevice] = {}
        for address, spec in assign_addresses(vm.devices):
            device = DEVICE_KINDS[spec.kind](vm, address, spec.options)
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
                    self._remember(connector, spec.remembered)
        self.open_consoles(self.consoles())

    def nodes(self) -> Sequence[trap_pb2.TreeNode]:
        """/vdevice, then every device in order of its address."""
        bus = trap_pb2.TreeNode(
            path="/vdevice",
            properties=[
                text_property("device_type", "vdevice"),
                text_property("compatible", "IBM,vdevice"),
                cells_property("#address-cells", 1),
                cells_property("#size-cells", 0),
                cells_property("#interrupt-cells", 2),
                trap_pb2.TreeProperty(name="interrupt-controller"),
                *self.connectors.properties(),
            ],
        )
        return (bus, *(self.node(device) for device in self.devices.values()))

    def node(self, device: VioDevice) -> trap_pb2.TreeNode:
        """Describe a device for the device tree, with its connector."""
        node = device.node()
        connector = self.connectors.at(device.unit_address)
        if connector is not None:
            node.properties.append(cells_property("ibm,my-drc-index", connector.index))
        return node

    def inventory(self) -> Sequence[trap_pb2.DeviceSpec]:
        """See Session: every device, and how far the guest has those in slots."""
        return [
            trap_pb2.DeviceSpec(
                kind=device.kind, unit_address=address, options=device.options, remembered=self._remembered(device)
            )
            for address, device in self.devices.items()
        ]

    def _remembered(self, device: VioDevice) -> bytes:
        connector = self.connectors.at(device.unit_address)
        return b"" if connector is None or connector.device is not device else connector.remembered(self.node(device))

    def _remember(self, connector: Connector, remembered: bytes) -> None:
        try:
            connector.remember(remembered)
        except ValueError as error:
            raise BusError(f"what is remembered of slot {connector.name} is unusable: {error}") from error

    def plug(self, connector: Connector, device: VioDevice, node: trap_pb2.TreeNode) -> None:
        """Put a device into an empty slot; node is what the guest gets when it asks. Raises BusError: it has no transcript."""
        if isinstance(device, vty.Vty):
            self.open_console(device.console)
        self.devices = dict(sorted([*self.devices.items(), (device.unit_address, device)]))
        connector.plug(device, node)
        self.vm.inventory_changed()

    def unplug(self, connector: Connector) -> None:
        """Take a device out of its slot; the guest has given it back or never had it."""
        device = self.devices.pop(connector.unit_address)
        connector.unplug()
        device.close()
        if isinstance(device, vty.Vty):
            self.close_console(device.console)
        self.vm.inventory_changed()

    def connector_changed(self, connector: Connector, before: State) -> None:
        """The stored tree follows what the guest has; a device goes when the guest gives it back as it was asked to."""
        if State.CONFIGURED in (before, connector.state) and self.platform is not None and connector.node is not None:
            if connector.state is State.CONFIGURED:
                self.platform.add_node(self.vm.name, connector.node)
            else:
                self.platform.remove_node(self.vm.name, connector.node.path)
        if connector.state is State.UNUSABLE and connector.removal_asked:
            self.unplug(connector)

    async def keep_change(self) -> None:
        """See ConnectorSession: the stored tree first. Should this process end before the rest, the guest's call comes again to a
        slot as it was before, and changes nothing in a tree that has followed already.
        """
        if self.platform is not None:
            await self.platform.written()
        self.vm.inventory_changed()

    def consoles(self) -> list[Console]:
        """The consoles of the VM's VTYs, lowest unit address first."""
        return [device.console for device in self.all(vty.Vty)]

    def reset_devices(self) -> None:
        """Bring every device to its power-on state. Typed input stays: it is the terminal's, and may be for the next boot."""
        for device in self.devices.values():
            device.reset()

    async def reset(self) -> None:
        """See Session."""
        self.reset_devices()
        before = self.inventory()
        for connector in self.connectors:
            connector.reset()
        if self.inventory() != before:
            self.vm.inventory_changed()

    async def attached(self) -> None:
        """See Session."""
        for device in self.devices.values():
            device.attached()

    async def save(self) -> bytes:
        """See Session. The stored tree has every change of the bus before: it is saved after this."""
        if self.platform is not None:
            await self.platform.written()
        return bus_state.save(self)

    async def resumed(self) -> None:
        """See Session."""
        for device in self.devices.values():
            device.resumed()

    async def restore(self, state: bytes) -> None:
        """See Session."""
        configured = self.consoles()
        bus_state.restore(self, state, DEVICE_KINDS)
        restored = self.consoles()
        for console in configured:
            if console not in restored:
                self.close_console(console)
        try:
            for console in restored:
                if console not in configured:
                    self.open_console(console)
        except BusError as error:
            raise StateError(f"vio_service: {error}") from error

    async def replaced(self) -> None:
        """See Session."""
        for device in self.devices.values():
            device.replaced()
        self.close_journal()

    async def close(self) -> None:
        """See Session."""
        for device in self.devices.values():
            device.close()
        self.close_journal()
