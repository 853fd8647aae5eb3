# SPDX-License-Identifier: GPL-2.0-or-later
"""Dynamic reconfiguration connectors (LoPAPR chapter 13): the bus's slots, through which a running guest takes and gives devices.

A guest takes a device in three steps: it allocates the connector, unisolates it (both set-indicator), and fetches the device's
node with ibm,configure-connector. It gives a device back by isolating and de-allocating. Guests do so when a hotplug event
asks them to, or on their own.

    UNUSABLE --allocate--> ALLOCATED --unisolate--> UNISOLATED --configure--> CONFIGURED
    UNUSABLE <------------ ALLOCATED <---------------isolate-----------------
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import IntEnum

from google.protobuf.message import DecodeError

from splitvisor.backend import Call, Result, RtasCall, Support, Vm
from splitvisor.papr.codes import RtasStatus
from splitvisor.rpc import state_pb2, trap_pb2, vio_bus_pb2
from vio_service.bus.device import AUTOMATIC_ADDRESSES, BusSession, VioDevice, cells_property, text_property

SLOTS = 64
"""As many as a machine's configuration may ask for devices; unit addresses from 0x71000000."""
INDEX_BASE = 0x3000_0000
"""Type 3 in the top four bits says VIO, as in QEMU; the slot's number is in the others."""
SLOT_TYPE = "SLOT"
LIVE_INSERTION_DOMAIN = 0xFFFF_FFFF

ISOLATION_STATE, DR_INDICATOR, ALLOCATION_STATE = 9001, 9002, 9003
"""Indicators of set-indicator."""
ENTITY_SENSE = 9003
"""The sensor of get-sensor-state."""
SENSE_PRESENT, SENSE_UNUSABLE = 1, 2
LAST_DR_INDICATOR = 3
"""Inactive, active, identify, action."""

WORK_AREA_BYTES = 4096
WORK_AREA_DATA = 64
"""Names and values start here; what is before it is a header that the guest hands back unchanged."""
CONFIGURE_DONE, CONFIGURE_NEXT_CHILD, CONFIGURE_NEXT_PROPERTY, CONFIGURE_MORE_MEMORY = 0, 2, 3, 5
CONFIGURE_CANNOT = -9003
"""ibm,configure-connector: the connector is not unisolated."""
_HEADER = struct.Struct(">5I")


class State(IntEnum):
    """How far the guest has taken a connector's device; the numbers of the contract."""

    UNUSABLE = vio_bus_pb2.CONNECTOR_STATE_UNUSABLE
    ALLOCATED = vio_bus_pb2.CONNECTOR_STATE_ALLOCATED
    UNISOLATED = vio_bus_pb2.CONNECTOR_STATE_UNISOLATED
    CONFIGURED = vio_bus_pb2.CONNECTOR_STATE_CONFIGURED


class Connector:
    """One slot of the bus.

    Args:
        number: counts from 0; its unit address, index and name follow from it.
        changed: told after every change of state.
    """

    def __init__(self, number: int, changed: Callable[[Connector, State], None]) -> None:
        self.unit_address = AUTOMATIC_ADDRESSES + number
        self.index = INDEX_BASE + number
        self.name = f"V1-C{number}"
        self.device: VioDevice | None = None
        self.node: trap_pb2.TreeNode | None = None
        """What ibm,configure-connector gives."""
        self.removal_asked = False
        self.indicator = 0
        self._state = State.UNUSABLE
        self._changed = changed
        self._moved = asyncio.Event()

    @property
    def state(self) -> State:
        """How far the guest has taken the device."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if state is not self._state:
            before, self._state = self._state, state
            self._changed(self, before)
            self._wake()

    def plug(self, device: VioDevice, node: trap_pb2.TreeNode) -> None:
        """Put a device into the empty slot, for the guest to take."""
        self.device, self.node = device, node

    def unplug(self) -> None:
        """Empty the slot; the guest does not have the device."""
        self.device, self.node, self.removal_asked = None, None, False
        self._wake()

    def reset(self) -> None:
        """A guest starts: it has what is plugged in, from its seed tree, and was asked for nothing."""
        self._state = State.UNUSABLE if self.device is None else State.CONFIGURED
        self.removal_asked = False
        self.indicator = 0
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def wait(self, reached: Callable[[Connector], bool], seconds: float) -> bool:
        """Wait until the guest has brought the connector there; False when it has not in time."""
        try:
            async with asyncio.timeout(seconds):
                while not reached(self):
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def isolate(self) -> RtasStatus:
        """The guest lets the device go; it may take it again."""
        if self.state in (State.UNISOLATED, State.CONFIGURED):
            self.state = State.ALLOCATED
        return RtasStatus.SUCCESS

    def unisolate(self) -> RtasStatus:
        """The guest connects an allocated device."""
        if self.state is State.UNUSABLE:
            return RtasStatus.PARAMETER_ERROR
        if self.state is State.ALLOCATED:
            self.state = State.UNISOLATED
        return RtasStatus.SUCCESS

    def allocate(self) -> RtasStatus:
        """The guest takes a device that is there and is to stay."""
        if self.state is State.UNUSABLE:
            if self.device is None or self.removal_asked:
                return RtasStatus.PARAMETER_ERROR
            self.state = State.ALLOCATED
        return RtasStatus.SUCCESS

    def free(self) -> RtasStatus:
        """The guest gives an isolated device back."""
        if self.state in (State.UNISOLATED, State.CONFIGURED):
            return RtasStatus.PARAMETER_ERROR
        self.state = State.UNUSABLE
        return RtasStatus.SUCCESS

    def save(self) -> state_pb2.VioConnectorState:
        """Return its state; its device is not part of it."""
        state = state_pb2.VioConnectorState(
            index=self.index, state=self.state, removal_asked=self.removal_asked, indicator=self.indicator
        )
        if self.node is not None:
            state.node.CopyFrom(self.node)
        return state

    def restore(self, state: state_pb2.VioConnectorState, device: VioDevice | None) -> None:
        """Take over a state of the slot with this device, telling nobody. Raises ValueError when the two do not fit."""
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
        """What the next life of this process must know of it: nothing when the guest has its device, with the usual node."""
        if self.state is State.CONFIGURED and not self.removal_asked and self.node == usual_node:
            return b""
        return self.save().SerializeToString(deterministic=True)

    def remember(self, data: bytes) -> None:
        """Take over what remembered() has returned for the device that is plugged in. Raises ValueError for anything else."""
        try:
            state = state_pb2.VioConnectorState.FromString(data)
        except DecodeError:
            raise ValueError("it is not the state of a slot") from None
        self.restore(state, self.device)

    def describe(self) -> vio_bus_pb2.Connector:
        """Describe it for VioBusService."""
        return vio_bus_pb2.Connector(
            index=self.index,
            name=self.name,
            state=vio_bus_pb2.ConnectorState.Name(self.state),
            removal_asked=self.removal_asked,
        )


_SWITCHES: dict[tuple[int, int], Callable[[Connector], RtasStatus]] = {
    (ISOLATION_STATE, 0): Connector.isolate,
    (ISOLATION_STATE, 1): Connector.unisolate,
    (ALLOCATION_STATE, 0): Connector.free,
    (ALLOCATION_STATE, 1): Connector.allocate,
}


class Connectors:
    """All slots of one bus.

    Args:
        changed: told of a connector whose state has changed, with the state before.
    """

    def __init__(self, changed: Callable[[Connector, State], None]) -> None:
        self._by_index = {INDEX_BASE + number: Connector(number, changed) for number in range(SLOTS)}

    def __iter__(self) -> Iterator[Connector]:
        return iter(self._by_index.values())

    def find(self, index: int) -> Connector | None:
        """Return the connector of an index that a guest gave."""
        return self._by_index.get(index)

    def at(self, unit_address: int) -> Connector | None:
        """Return the slot with a unit address."""
        return self._by_index.get(unit_address - AUTOMATIC_ADDRESSES + INDEX_BASE)

    def properties(self) -> Sequence[trap_pb2.TreeProperty]:
        """Properties of /vdevice that describe the slots (LoPAPR 13.5.2): each a count, then an entry for each slot."""
        names = [connector.name for connector in self]
        return (
            cells_property("ibm,drc-indexes", SLOTS, *self._by_index),
            cells_property("ibm,drc-power-domains", SLOTS, *[LIVE_INSERTION_DOMAIN] * SLOTS),
            _texts_property("ibm,drc-names", names),
            _texts_property("ibm,drc-types", [SLOT_TYPE] * SLOTS),
        )


def _texts_property(name: str, texts: Sequence[str]) -> trap_pb2.TreeProperty:
    value = len(texts).to_bytes(4) + b"".join(text.encode() + b"\0" for text in texts)
    return trap_pb2.TreeProperty(name=name, value=value)


class ConnectorSession(BusSession):
    """A bus with slots; the handlers here get it."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.connectors = Connectors(self.connector_changed)

    def connector_changed(self, connector: Connector, before: State) -> None:
        """The guest has changed a connector's state; for the bus to override."""

    async def keep_change(self) -> None:
        """Make lasting what connector_changed() was told, before the guest has its answer; for the bus to override."""


def set_indicator(session: ConnectorSession, call: Call) -> int | Awaitable[int]:
    """set-indicator(type, index, state): isolation, allocation, and a lamp that nobody sees."""
    kind, index, value = call.arguments
    connector = session.connectors.find(index)
    if connector is None:
        return RtasStatus.PARAMETER_ERROR
    if kind == DR_INDICATOR and value <= LAST_DR_INDICATOR:
        connector.indicator = value
        return RtasStatus.SUCCESS
    switch = _SWITCHES.get((kind, value))
    if switch is None:
        return RtasStatus.PARAMETER_ERROR
    before = connector.state
    status = switch(connector)
    return status if connector.state is before else _kept(session, status)


async def _kept(session: ConnectorSession, status: RtasStatus) -> int:
    await session.keep_change()
    return status


def get_sensor_state(session: ConnectorSession, call: Call) -> Result:
    """get-sensor-state(type, index) -> status, state: whether a connector has a device that the guest may use."""
    kind, index = call.arguments
    connector = session.connectors.find(index)
    if kind != ENTITY_SENSE or connector is None:
        return Result(returns=(RtasStatus.PARAMETER_ERROR, 0))
    sense = SENSE_UNUSABLE if connector.state is State.UNUSABLE else SENSE_PRESENT
    return Result(returns=(RtasStatus.SUCCESS, sense))


async def configure_connector(session: ConnectorSession, call: Call) -> int:
    """ibm,configure-connector(work area, more memory): give the node of a connector's device, one item a call.

    The guest writes the index and a zero into the area's first two words and then repeats the call until it returns 0. Items are
    the node's name (2) and each of its properties (3). The second word counts the items given so far: there is nothing to
    remember here, and a guest that starts anew, or hands in rubbish, is served all the same.
    """
    area = call.arguments[0]
    memory = session.vm.memory
    memory.check(area, WORK_AREA_BYTES)
    index, given = await memory.read_words(area, 2)
    connector = session.connectors.find(index)
    if connector is None:
        return RtasStatus.PARAMETER_ERROR
    if connector.node is None or connector.state not in (State.UNISOLATED, State.CONFIGURED):
        return CONFIGURE_CANNOT
    name = connector.node.path.rpartition("/")[2]
    # A node's name is a property too in Open Firmware (IEEE 1275 3.2.2.1.1), though a flattened tree leaves it out.
    properties = [text_property("name", name.partition("@")[0]), *connector.node.properties]
    if given > len(properties):
        connector.state = State.CONFIGURED
        await session.keep_change()
        return CONFIGURE_DONE
    text, value = (name, b"") if given == 0 else (properties[given - 1].name, properties[given - 1].value)
    encoded = text.encode() + b"\0"
    value_offset = WORK_AREA_DATA + len(encoded)
    if value_offset + len(value) > WORK_AREA_BYTES:
        return CONFIGURE_MORE_MEMORY
    header = _HEADER.pack(index, given + 1, WORK_AREA_DATA, len(value), value_offset if given else 0)
    await memory.write(area, header.ljust(WORK_AREA_DATA, b"\0") + encoded + value)
    return CONFIGURE_NEXT_PROPERTY if given else CONFIGURE_NEXT_CHILD


_SECTION = "LoPAPR 13.5.3"

CALLS = (
    RtasCall(
        "set-indicator",
        set_indicator,
        _SECTION,
        arguments=3,
        returns=1,
        support=Support.PARTIAL,
        note="connectors: isolation, allocation and DR indicator",
    ),
    RtasCall(
        "get-sensor-state",
        get_sensor_state,
        _SECTION,
        arguments=2,
        returns=2,
        support=Support.PARTIAL,
        note="connectors: entity sense",
    ),
    RtasCall(
        "ibm,configure-connector",
        configure_connector,
        _SECTION,
        arguments=2,
        returns=1,
        note="a node that fits the work area needs no more memory",
    ),
)
