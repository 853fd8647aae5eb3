# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of the VIO bus.

A device class states its device-tree name, type and compatible; VioDevice makes the node from them. A DeviceKind puts the
table of its hypercalls and RTAS calls beside it: functions of (session, call), which find the device with session.bus.find().
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from splitvisor.declarations.calls import Hypercall, RtasCall
from splitvisor.declarations.dma import WINDOW_BYTES
from splitvisor.declarations.session import Vm
from splitvisor.declarations.state import StateError
from splitvisor.errors.problem import ProblemError
from splitvisor.papr.vio import interrupt_source
from splitvisor.rpc import trap_pb2, vio_bus_pb2
from splitvisor.tree.cells import cells, strings


class BusError(ProblemError, ValueError):
    """A machine's devices do not fit on one bus; the text is for the author of the configuration."""


class MediumLockedError(BusError):
    """The guest keeps the medium of a drive in."""


def text_property(name: str, text: str) -> trap_pb2.TreeProperty:
    """A device-tree property that holds a string with its NUL."""
    return trap_pb2.TreeProperty(name=name, value=strings(text))


def cells_property(name: str, *words: int) -> trap_pb2.TreeProperty:
    """A device-tree property that holds 32-bit big-endian cells."""
    return trap_pb2.TreeProperty(name=name, value=cells(*words))


class VioDevice:
    """A device of the VIO bus (LoPAPR 17.2).

    Args:
        vm: the VM that it belongs to.
        unit_address: its `reg`, unique on the bus; also its LIOBN when it has a DMA window.
        options: settings from the machine's configuration, by name.

    Raises BusError for an option that the device does not know.
    """

    kind: ClassVar[str]
    """The name in a machine's configuration."""
    node_name: ClassVar[str]
    device_type: ClassVar[str]
    compatible: ClassVar[str]
    option_names: ClassVar[frozenset[str]] = frozenset()
    serial: ClassVar[bool] = False
    """Serial devices get their addresses first, so that the console is always at 0x71000000."""
    signal_mask: ClassVar[int] = 0
    """Modes that H_VIO_SIGNAL may set; 0 if the interrupt cannot be turned off. With any, it is off at first."""
    pauses: ClassVar[bool] = False
    """Whether it may pause the machine, as when its host has no space left; see continued()."""
    has_dma: ClassVar[bool] = False
    """Whether it accesses guest RAM through a DMA window, whose LIOBN is its unit address."""

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        unknown = sorted(options.keys() - self.option_names)
        if unknown:
            known = ", ".join(sorted(self.option_names)) or "none"
            raise BusError(f"{self.kind} at {unit_address:#x} has no option {unknown[0]!r}", f"it has: {known}")
        self.vm = vm
        self.unit_address = unit_address
        self.options = dict(options)
        self.interrupt_source = interrupt_source(unit_address)
        self.window = vm.dma_window(unit_address) if self.has_dma else None

    def properties(self) -> Sequence[trap_pb2.TreeProperty]:
        """Return further properties, beyond those of every VIO device."""
        return ()

    def reset(self) -> None:
        """Return to the power-on state. stop() came before."""

    async def stop(self) -> None:
        """Stop all work on guest memory: nothing is read or written there after this returns."""

    async def drain(self) -> None:
        """Finish all work that the guest has asked for, before the state is saved; see Session.drain()."""

    def plugged(self, host: Any) -> None:
        """Handle that the device is on the bus. host: the host side of the session.

        Raises BusError to refuse, if the host side has no place for it.
        """

    async def begin(self) -> None:
        """Open what the device needs on the host, and takes time to open: before the guest knows of the device.

        Raises BusError to refuse; finish() is called then.
        """

    async def finish(self) -> None:
        """Let go of what begin() opened; the last that is called, after stop() and close()."""

    async def change_medium(self, drive: str, medium: str, *, force: bool) -> None:
        """Exchange what is in one of the device's drives, while the guest runs.

        The device's options say what is there from then on: Vm.inventory_changed() makes them known.

        Args:
            drive: the option that the drive is from.
            medium: what that option says from now on; its form is the device's own.
            force: also when the guest keeps the medium in.

        Raises MediumLockedError, and BusError for a drive or medium that is not there.
        """
        raise BusError(f"{self.name} has no drive {drive!r}")

    def unplugged(self) -> None:
        """Handle that the device has left the bus of a running VM."""
        self.close()

    async def attaching(self) -> None:
        """Handle that cpu_service attaches, for the first time or again; Vm.open_queues is known."""

    def attached(self) -> None:
        """Handle that cpu_service has attached, for the first time or again."""

    def close(self) -> None:
        """The VM has ended."""

    def replaced(self) -> None:
        """Handle that another session has the device now; this object ends."""
        self.close()

    def save(self) -> bytes:
        """Return the state for restore(), beyond that of every VIO device: a message of state.proto with its version."""
        return b""

    def remembered(self) -> bytes:
        """Return what the device must know in its next life, should this process be killed; b"": nothing.

        cpu_service keeps it. A device says by Vm.inventory_changed() that it has changed: what an answer to the guest, sent after
        that, says to be so is then remembered.
        """
        return b""

    def remember(self, data: bytes) -> None:
        """Take over a result of remembered() of this device in another process. Raises StateError."""
        if data:
            raise StateError(f"{self.name}: it remembers nothing, but something was kept for it")

    def continued(self) -> None:
        """Handle that the machine goes on after a pause, also one that this device has not asked for."""

    def resumed(self) -> None:
        """Handle that the VM continues after save()."""

    def restore(self, state: bytes) -> None:
        """Take over a result of save(). Raises StateError."""
        if state:
            raise StateError(f"{self.name}: it keeps no state, but the snapshot has some for it")

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

    def transport(self) -> trap_pb2.Transport:
        """Describe what cpu_service keeps for the device: its DMA window and its signal."""
        return trap_pb2.Transport(
            unit_address=self.unit_address,
            interrupt_source=self.interrupt_source,
            signal_mask=self.signal_mask,
            window_bytes=WINDOW_BYTES if self.has_dma else 0,
        )

    def describe(self) -> vio_bus_pb2.VioDevice:
        """Describe the device and its state for VioBusService."""
        return vio_bus_pb2.VioDevice(
            kind=self.kind,
            unit_address=self.unit_address,
            interrupt_source=self.interrupt_source,
            liobn=self.unit_address if self.has_dma else 0,
            node=self.node(),
        )


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device of a back end."""

    device: type[VioDevice]
    calls: tuple[Hypercall | RtasCall, ...] = ()
    """The calls of these devices. A call that selects a device has a Key, since other back ends can have such devices, too."""


def kinds(*known: DeviceKind) -> dict[str, DeviceKind]:
    """Return kinds by their names in a machine's configuration."""
    return {kind.device.kind: kind for kind in known}
