# SPDX-License-Identifier: GPL-2.0-or-later
"""Dynamic reconfiguration connectors (LoPAPR chapter 13): the bus's slots, for adding and removing devices of a running guest.

A guest adds a device in three steps: it allocates the connector, unisolates it (both set-indicator), and fetches the device's
node with ibm,configure-connector. It removes a device by isolating and freeing the connector. Guests do so when a hotplug event
asks them to, or on their own.

    UNUSABLE --allocate--> ALLOCATED --unisolate--> UNISOLATED --configure--> CONFIGURED
    UNUSABLE <------------ ALLOCATED <---------------isolate-----------------
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum

from splitvisor.backend.vio.device import VioDevice, cells_property
from splitvisor.papr.codes import RtasStatus
from splitvisor.papr.vio import FIRST_SLOT_ADDRESS, SLOTS, slot_address, slot_index, slot_name
from splitvisor.rpc import state_pb2, trap_pb2, vio_bus_pb2
from splitvisor.tree.cells import cells, strings

SLOT_TYPE = "SLOT"
LIVE_INSERTION_DOMAIN = 0xFFFF_FFFF


class State(IntEnum):
    """Progress of the guest in adding a connector's device; the contract's numbers."""

    UNUSABLE = vio_bus_pb2.CONNECTOR_STATE_UNUSABLE
    ALLOCATED = vio_bus_pb2.CONNECTOR_STATE_ALLOCATED
    UNISOLATED = vio_bus_pb2.CONNECTOR_STATE_UNISOLATED
    CONFIGURED = vio_bus_pb2.CONNECTOR_STATE_CONFIGURED


class Connector:
    """One slot of the bus.

    Args:
        number: counts from 0; determines unit address, index and name.
        changed: called after every change of state.
    """

    def __init__(self, number: int, changed: Callable[[Connector, State], None]) -> None:
        self.unit_address = slot_address(number)
        self.index = slot_index(number)
        self.name = slot_name(number)
        self.device: VioDevice | None = None
        self.node: trap_pb2.TreeNode | None = None
        """The answer of ibm,configure-connector."""
        self.removal_asked = False
        self.indicator = 0
        self._state = State.UNUSABLE
        self._changed = changed
        self._moved = asyncio.Event()

    @property
    def state(self) -> State:
        """The guest's progress in adding the device."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if state is not self._state:
            before, self._state = self._state, state
            self._changed(self, before)
            self._wake()

    def plug(self, device: VioDevice, node: trap_pb2.TreeNode) -> None:
        """Put a device into the empty slot, for the guest to add."""
        self.device, self.node = device, node

    def unplug(self) -> None:
        """Empty the slot; the guest does not use the device."""
        self.device, self.node, self.removal_asked = None, None, False
        self._wake()

    def reset(self) -> None:
        """Prepare for a guest's start: it has the plugged devices from its seed tree, and no removal is requested."""
        self._state = State.UNUSABLE if self.device is None else State.CONFIGURED
        self.removal_asked = False
        self.indicator = 0
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def wait(self, reached: Callable[[Connector], bool], seconds: float) -> bool:
        """Wait for a state of the connector; return False on timeout."""
        try:
            async with asyncio.timeout(seconds):
                while not reached(self):
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def isolate(self) -> RtasStatus:
        """Handle isolation: the guest stops using the device, and may use it again."""
        if self.state in (State.UNISOLATED, State.CONFIGURED):
            self.state = State.ALLOCATED
        return RtasStatus.SUCCESS

    def unisolate(self) -> RtasStatus:
        """Handle unisolation: the guest connects an allocated device."""
        if self.state is State.UNUSABLE:
            return RtasStatus.PARAMETER_ERROR
        if self.state is State.ALLOCATED:
            self.state = State.UNISOLATED
        return RtasStatus.SUCCESS

    def allocate(self) -> RtasStatus:
        """Handle allocation: the guest adds a plugged device that is not to be removed."""
        if self.state is State.UNUSABLE:
            if self.device is None or self.removal_asked:
                return RtasStatus.PARAMETER_ERROR
            self.state = State.ALLOCATED
        return RtasStatus.SUCCESS

    def free(self) -> RtasStatus:
        """Handle freeing: the guest releases an isolated device."""
        if self.state in (State.UNISOLATED, State.CONFIGURED):
            return RtasStatus.PARAMETER_ERROR
        self.state = State.UNUSABLE
        return RtasStatus.SUCCESS

    def save(self) -> state_pb2.VioConnectorState:
        """Return its state, without its device."""
        state = state_pb2.VioConnectorState(
            index=self.index, state=self.state, removal_asked=self.removal_asked, indicator=self.indicator
        )
        if self.node is not None:
            state.node.CopyFrom(self.node)
        return state

    def restore(self, state: state_pb2.VioConnectorState, device: VioDevice | None) -> None:
        """Take over a saved state with this device, without calling `changed`. Raises ValueError if they do not match."""
        if (device is not None) != state.HasField("node"):
            raise ValueError(f"slot {self.name} has a node and no device, or the other way round")
        self.device = device
        self.node = None
        if device is not None:
            self.node = trap_pb2.TreeNode()
            self.node.CopyFrom(state.node)
        self._state = State(state.state)
        self.removal_asked, self.indicator = state.removal_asked, state.indicator

    def remembered(self, usual_node: trap_pb2.TreeNode) -> bytes:
        """Return the state for a successor of this process; empty if the guest has the device with its usual node."""
        if self.state is State.CONFIGURED and not self.removal_asked and self.node == usual_node:
            return b""
        return self.save().SerializeToString(deterministic=True)

    def remember(self, state: state_pb2.VioConnectorState) -> None:
        """Take over a result of remembered() for the plugged device. Raises ValueError for anything else."""
        self.restore(state, self.device)

    def describe(self) -> vio_bus_pb2.Connector:
        """Describe it for VioBusService."""
        return vio_bus_pb2.Connector(
            index=self.index,
            name=self.name,
            state=vio_bus_pb2.ConnectorState.Name(self.state),
            removal_asked=self.removal_asked,
        )


class Connectors:
    """The slots of the bus that one back end may fill.

    Args:
        slots: their numbers.
        changed: called with a connector whose state has changed, and its state before.
    """

    def __init__(self, slots: range, changed: Callable[[Connector, State], None]) -> None:
        self.slots = slots
        self._by_index = {slot_index(number): Connector(number, changed) for number in slots}

    def __iter__(self) -> Iterator[Connector]:
        return iter(self._by_index.values())

    def find(self, index: int) -> Connector | None:
        """Return the connector with an index from a guest, or None."""
        return self._by_index.get(index)

    def at(self, unit_address: int) -> Connector | None:
        """Return the connector with a unit address, or None."""
        return self._by_index.get(slot_index(unit_address - FIRST_SLOT_ADDRESS))


def slot_properties() -> Sequence[trap_pb2.TreeProperty]:
    """Properties of /vdevice that describe every slot of the bus (LoPAPR 13.5.2): each a count, then an entry for each slot.

    Each back end describes all slots, including those it may not fill, so the node is identical at every back end.
    """
    return (
        cells_property("ibm,drc-indexes", SLOTS, *map(slot_index, range(SLOTS))),
        cells_property("ibm,drc-power-domains", SLOTS, *[LIVE_INSERTION_DOMAIN] * SLOTS),
        _texts_property("ibm,drc-names", [slot_name(number) for number in range(SLOTS)]),
        _texts_property("ibm,drc-types", [SLOT_TYPE] * SLOTS),
    )


def _texts_property(name: str, texts: Sequence[str]) -> trap_pb2.TreeProperty:
    return trap_pb2.TreeProperty(name=name, value=cells(len(texts)) + strings(*texts))
