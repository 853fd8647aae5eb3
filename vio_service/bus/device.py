# SPDX-License-Identifier: GPL-2.0-or-later
"""What a device of the VIO bus is, and the map from unit addresses to devices that hypercall handlers look things up in.

A device class states its device-tree name, type and compatible; VioDevice makes the node from them. Its hypercalls stand in a
table `CALLS` in its own module, as functions of (session, call).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

from splitvisor.backend import Session, Vm
from splitvisor.backend.state import StateError
from splitvisor.rpc import trap_pb2, vio_bus_pb2
from vio_service.bus.tce_table import WINDOW_BYTES, DmaWindow

VIO_INTERRUPTS = 0x1100
"""First of the 256 interrupt sources that belong to the VIO bus."""
AUTOMATIC_ADDRESSES = 0x7100_0000
"""Where unit addresses start that the bus chooses itself."""


class BusError(ValueError):
    """A machine's devices do not fit on one bus; the text is for whoever wrote the configuration."""


def interrupt_source(unit_address: int) -> int:
    """Return the interrupt source of a unit address.

    PAPR leaves the rule to the platform. This is QEMU's: it gives distinct sources both to addresses that the bus chooses and to
    those that libvirt hands out in steps of 0x1000.
    """
    if unit_address >= AUTOMATIC_ADDRESSES:
        line = unit_address & 0xFF
    elif unit_address >= 0x3000_0000:
        line = 0xF0 | (unit_address >> 12 & 0xF)
    else:
        line = unit_address >> 12 & 0xFF
    return VIO_INTERRUPTS | line


def text_property(name: str, text: str) -> trap_pb2.TreeProperty:
    """A device-tree property that holds a string with its NUL."""
    return trap_pb2.TreeProperty(name=name, value=text.encode() + b"\0")


def cells_property(name: str, *cells: int) -> trap_pb2.TreeProperty:
    """A device-tree property that holds 32-bit big-endian cells."""
    return trap_pb2.TreeProperty(name=name, value=struct.pack(f">{len(cells)}I", *cells))


class VioDevice:
    """A device of the VIO bus (LoPAPR 17.2).

    Args:
        vm: the VM that it belongs to.
        unit_address: its `reg`, unique on the bus; also its LIOBN when it has a DMA window.
        options: settings from the machine's configuration, by name.

    Raises BusError for an option that the device does not know.
    """

    kind: ClassVar[str]
    """What a machine's configuration calls it."""
    node_name: ClassVar[str]
    device_type: ClassVar[str]
    compatible: ClassVar[str]
    option_names: ClassVar[frozenset[str]] = frozenset()
    serial: ClassVar[bool] = False
    """Serial devices get their addresses first, so that the console is always at 0x71000000."""
    signal_mask: ClassVar[int] = 0
    """Modes that H_VIO_SIGNAL may set; 0 for devices whose interrupt cannot be turned off."""
    has_dma: ClassVar[bool] = False

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        unknown = sorted(options.keys() - self.option_names)
        if unknown:
            known = ", ".join(sorted(self.option_names)) or "none"
            raise BusError(f"{self.kind} at {unit_address:#x} does not know the option {unknown[0]!r}; it knows: {known}")
        self.vm = vm
        self.unit_address = unit_address
        self.options = dict(options)
        self.interrupt_source = interrupt_source(unit_address)
        self.signal_state = 0
        self.window = DmaWindow(vm.memory) if self.has_dma else None

    def properties(self) -> Sequence[trap_pb2.TreeProperty]:
        """Properties that this kind of device has beyond those that every VIO device has."""
        return ()

    def reset(self) -> None:
        """Return to the power-on state; a device with more state extends this."""
        self.signal_state = 0
        if self.window is not None:
            self.window.reset()

    def attached(self) -> None:
        """cpu_service is there, for the first time or again."""

    def close(self) -> None:
        """The VM has ended."""

    def replaced(self) -> None:
        """Another session has the device now; this object ends."""
        self.close()

    def save(self) -> bytes:
        """What restore() needs beyond what every VIO device has: a message of state.proto with its version."""
        return b""

    def resumed(self) -> None:
        """The VM goes on after save()."""

    def restore(self, state: bytes) -> None:
        """Take over what save() has returned. Raises StateError."""
        if state:
            raise StateError(f"{self.name}: it keeps no state, but the snapshot has one for it")

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.kind} at {self.unit_address:#x}"

    def node(self) -> trap_pb2.TreeNode:
        """Describe the device for the device tree (LoPAPR B.6.2)."""
        node = trap_pb2.TreeNode(
            path=f"/vdevice/{self.node_name}@{self.unit_address:x}",
            properties=[
                cells_property("reg", self.unit_address),
                text_property("device_type", self.device_type),
                text_property("compatible", self.compatible),
                cells_property("interrupts", self.interrupt_source, 0),
            ],
        )
        if self.has_dma:
            node.properties.extend(
                (
                    cells_property("ibm,my-dma-window", self.unit_address, 0, 0, 0, WINDOW_BYTES),
                    cells_property("ibm,#dma-address-cells", 2),
                    cells_property("ibm,#dma-size-cells", 2),
                )
            )
        node.properties.extend(self.properties())
        return node

    def describe(self) -> vio_bus_pb2.VioDevice:
        """Describe the device and its state for VioBusService."""
        return vio_bus_pb2.VioDevice(
            kind=self.kind,
            unit_address=self.unit_address,
            interrupt_source=self.interrupt_source,
            signal_state=self.signal_state,
            liobn=self.unit_address if self.has_dma else 0,
            node=self.node(),
        )


_Device = TypeVar("_Device", bound=VioDevice)


class BusSession(Session):
    """A session that knows one VM's devices by unit address; the handlers of every device's table get it."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.devices: dict[int, VioDevice] = {}
        """By unit address, in ascending order."""

    def find(self, unit_address: int, kind: type[_Device]) -> _Device | None:
        """Return the device at an address that a guest gave; None when there is none or it is of another kind."""
        device = self.devices.get(unit_address)
        return device if isinstance(device, kind) else None

    def all(self, kind: type[_Device]) -> list[_Device]:
        """Return every device of a kind, lowest address first."""
        return [device for device in self.devices.values() if isinstance(device, kind)]
