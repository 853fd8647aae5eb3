# SPDX-License-Identifier: GPL-2.0-or-later
"""A session with a VIO bus: the bus, its client of hcall_service, and the host side of its devices."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from splitvisor.backend.vio import connector_calls, crq
from splitvisor.backend.vio import state as bus_state
from splitvisor.backend.vio.bus import VioBus
from splitvisor.backend.vio.connector import Connector, State
from splitvisor.backend.vio.device import BusError, DeviceKind, VioDevice
from splitvisor.backend.vio.hcall_client import HcallServiceClient
from splitvisor.declarations.calls import Call, Hypercall, RtasCall
from splitvisor.declarations.session import Session, Vm
from splitvisor.declarations.state import StateError
from splitvisor.papr.codes import RtasStatus
from splitvisor.rpc import trap_pb2

DRAIN_S = 5.0
"""How long devices may take to finish what they do before they are saved."""


class HostSide:
    """The host side of one VM's devices: consoles, disks, networks. A back end without one uses this class itself."""

    @property
    def uncommitted(self) -> bool:
        """See Session.uncommitted."""
        return False

    def commit(self) -> None:
        """See Session.commit()."""

    def close(self) -> None:
        """Called when the VM has ended, or another session has it."""


Host = TypeVar("Host", bound=HostSide)


class VioSession(Session, Generic[Host]):
    """One VM's VIO bus at one back end.

    Args:
        vm: the VM.
        kinds: the devices that the back end knows, by what a machine's configuration calls them.
        host: what devices are plugged into.
        owner: the back end's name, for messages.
        hcall_service: has the VM's stored tree, which follows the bus; None: devices do not come and go.
        more: calls beside those of the bus and of the kinds.

    Raises BusError if the devices of the VM's configuration conflict, or the host side has no place for one.
    """

    def __init__(
        self,
        vm: Vm,
        kinds: Mapping[str, DeviceKind],
        host: Host,
        owner: str,
        hcall_service: HcallServiceClient | None = None,
        more: Sequence[Hypercall | RtasCall] = (),
    ) -> None:
        super().__init__(vm)
        self.host, self.hcall_service = host, hcall_service
        self.pauses = any(kind.device.pauses for kind in kinds.values())
        self.calls = (*(call for kind in kinds.values() for call in kind.calls), *BUS_CALLS, *more)
        self._ending: set[asyncio.Task[None]] = set()
        """Of devices that have left the bus."""
        plugged: list[VioDevice] = []
        try:
            self.bus = VioBus(vm, kinds, owner, self._connector_changed)
            for device in self.bus.devices.values():
                device.plugged(host)
                plugged.append(device)
        except BusError:
            # What they hold, a file of the host for instance, is free for the next attempt.
            for device in plugged:
                device.close()
            host.close()
            raise

    @property
    def uncommitted(self) -> bool:
        """See Session."""
        return self.host.uncommitted

    def commit(self) -> None:
        """See Session."""
        self.host.commit()

    def nodes(self) -> Sequence[trap_pb2.TreeNode]:
        """See Session."""
        return self.bus.nodes()

    def inventory(self) -> Sequence[trap_pb2.DeviceSpec]:
        """See Session."""
        return self.bus.inventory()

    def plug(self, connector: Connector, device: VioDevice, node: trap_pb2.TreeNode) -> None:
        """Put a device into an empty slot; node is returned to the guest by ibm,configure-connector.

        Raises BusError if the host has no place for it.
        """
        device.plugged(self.host)
        self.bus.plug(connector, device, node)
        self.vm.inventory_changed()

    def unplug(self, connector: Connector) -> None:
        """Remove a device from its slot, after the guest has released it or before it has used it."""
        device = self.bus.unplug(connector)
        device.unplugged()
        self._end_later(device)
        self.vm.inventory_changed()

    def _end_later(self, device: VioDevice) -> None:
        """Let a device that has left the bus end what it does."""
        ending = _end(device)
        try:
            task = asyncio.get_running_loop().create_task(ending)
        except RuntimeError:  # Without an event loop nothing was begun either.
            ending.close()
        else:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def begin(self) -> None:
        """See Session."""
        await asyncio.gather(*(device.begin() for device in self.bus.devices.values()))

    def _connector_changed(self, connector: Connector, before: State) -> None:
        """Update the stored tree; remove a device once the guest has released it on request."""
        if State.CONFIGURED in (before, connector.state) and self.hcall_service is not None and connector.node is not None:
            if connector.state is State.CONFIGURED:
                self.hcall_service.add_node(self.vm.name, connector.node)
            else:
                self.hcall_service.remove_node(self.vm.name, connector.node.path)
        if connector.state is State.UNUSABLE and connector.removal_asked:
            self.unplug(connector)

    async def keep_change(self) -> None:
        """Make a connector's change durable before the guest gets its answer: the stored tree first.

        Should this process end before the rest, the guest's call is made again to a slot as it was before, and changes nothing in
        a tree that has followed already.
        """
        if self.hcall_service is not None:
            await self.hcall_service.written()
        self.vm.inventory_changed()

    async def reset(self) -> None:
        """See Session."""
        await self.bus.reset_devices()
        before = self.inventory()
        for connector in self.bus.connectors:
            connector.reset()
        if self.inventory() != before:
            self.vm.inventory_changed()

    def transports(self) -> Sequence[trap_pb2.Transport]:
        """See Session."""
        return [device.transport() for device in self.bus.devices.values()]

    async def attaching(self) -> None:
        """See Session."""
        for device in self.bus.devices.values():
            await device.attaching()

    async def attached(self) -> None:
        """See Session."""
        for device in self.bus.devices.values():
            device.attached()

    def continued(self) -> None:
        """See Session."""
        for device in self.bus.devices.values():
            device.continued()

    async def drain(self) -> None:
        """See Session."""
        try:
            async with asyncio.timeout(DRAIN_S):
                await asyncio.gather(*(device.drain() for device in self.bus.devices.values()))
        except TimeoutError:
            raise StateError(
                f"{self.bus.owner}: its devices did not finish what they do within {DRAIN_S:.0f} s", "try again later"
            ) from None

    async def save(self) -> bytes:
        """See Session. Before that, every change of the bus is in the stored tree, which is saved later."""
        if self.hcall_service is not None:
            await self.hcall_service.written()
        return bus_state.save(self.bus)

    async def resumed(self) -> None:
        """See Session."""
        for device in self.bus.devices.values():
            device.resumed()

    async def restore(self, state: bytes) -> None:
        """See Session."""
        configured = list(self.bus.devices.values())
        bus_state.restore(self.bus, state)
        restored = list(self.bus.devices.values())
        for device in configured:
            if device not in restored:
                device.unplugged()
                self._end_later(device)
        try:
            for device in restored:
                if device not in configured:
                    device.plugged(self.host)
            await self.begin()
        except BusError as error:
            raise StateError(f"{self.bus.owner}: {error}") from error

    async def replaced(self) -> None:
        """See Session."""
        for device in self.bus.devices.values():
            device.replaced()
        await self._end_all()

    async def close(self) -> None:
        """See Session."""
        for device in self.bus.devices.values():
            device.close()
        await self._end_all()

    async def _end_all(self) -> None:
        await asyncio.gather(*self._ending, *map(_end, self.bus.devices.values()), return_exceptions=True)
        self.host.close()


async def _end(device: VioDevice) -> None:
    """End what a device does in guest memory and on the host."""
    try:
        await device.stop()
    finally:
        await device.finish()


async def quiesce(session: VioSession[Any], call: Call) -> int:
    """Stop all I/O before the guest takes over from its firmware. cpu_service has emptied DMA windows and turned signals off."""
    await session.bus.reset_devices()
    return RtasStatus.SUCCESS


BUS_CALLS: tuple[Hypercall | RtasCall, ...] = (
    *crq.CALLS,
    *connector_calls.CALLS,
    # SLOF makes this call without room for a status.
    RtasCall(
        "quiesce",
        quiesce,
        section="private to QEMU and SLOF",
        arguments=0,
        returns=None,
        everybody=True,
        note="every back end with devices of the bus",
    ),
)
"""The calls of the bus itself, for all devices."""
