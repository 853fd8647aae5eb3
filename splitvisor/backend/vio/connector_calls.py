# SPDX-License-Identifier: GPL-2.0-or-later
"""The RTAS calls with which a guest adds and removes devices through connectors (LoPAPR 13.5.3)."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

from splitvisor.backend.vio.bus import OnBus
from splitvisor.backend.vio.connector import Connector, State
from splitvisor.backend.vio.device import text_property
from splitvisor.declarations.calls import Call, Key, Keys, Operand, Result, RtasCall, Support
from splitvisor.papr.codes import RtasStatus
from splitvisor.papr.vio import slot_index

ISOLATION_STATE, DR_INDICATOR, ALLOCATION_STATE = 9001, 9002, 9003
"""Indicators of set-indicator."""
ENTITY_SENSE = 9003
"""The sensor of get-sensor-state."""
SENSE_PRESENT, SENSE_UNUSABLE = 1, 2
LAST_DR_INDICATOR = 3
"""Inactive, active, identify, action."""

WORK_AREA_BYTES = 4096
WORK_AREA_DATA = 64
"""Start of names and values, after a header that the guest passes back unchanged."""
CONFIGURE_DONE, CONFIGURE_NEXT_CHILD, CONFIGURE_NEXT_PROPERTY, CONFIGURE_MORE_MEMORY = 0, 2, 3, 5
CONFIGURE_CANNOT = -9003
"""Status of ibm,configure-connector: the connector is not unisolated."""
_HEADER = struct.Struct(">5I")

_SWITCHES: dict[tuple[int, int], Callable[[Connector], RtasStatus]] = {
    (ISOLATION_STATE, 0): Connector.isolate,
    (ISOLATION_STATE, 1): Connector.unisolate,
    (ALLOCATION_STATE, 0): Connector.free,
    (ALLOCATION_STATE, 1): Connector.allocate,
}


def set_indicator(session: OnBus, call: Call) -> int | Awaitable[int]:
    """set-indicator(type, index, state): isolation, allocation, and an indicator lamp without effect."""
    kind, index, value = call.arguments
    connector = session.bus.connectors.find(index)
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


async def _kept(session: OnBus, status: RtasStatus) -> int:
    await session.keep_change()
    return status


def get_sensor_state(session: OnBus, call: Call) -> Result:
    """get-sensor-state(type, index) -> status, state: whether a connector has a device that the guest may use."""
    kind, index = call.arguments
    connector = session.bus.connectors.find(index)
    if kind != ENTITY_SENSE or connector is None:
        return Result(returns=(RtasStatus.PARAMETER_ERROR, 0))
    sense = SENSE_UNUSABLE if connector.state is State.UNUSABLE else SENSE_PRESENT
    return Result(returns=(RtasStatus.SUCCESS, sense))


async def configure_connector(session: OnBus, call: Call) -> int:
    """ibm,configure-connector(work area, more memory): return the node of a connector's device, one item per call.

    The guest writes the index and a zero into the area's first two words and then repeats the call until it returns 0. Items are
    the node's name (2) and each of its properties (3). The second word counts the items given so far: there is nothing to
    remember here, and a guest that starts anew, or hands in rubbish, is served all the same. So an item is written together with
    the reply: a call that is made again, because a process ended before its reply, must not skip one.
    """
    area = call.arguments[0]
    memory = session.vm.memory
    memory.check(area, WORK_AREA_BYTES)
    index, given = await memory.read_words(area, 2)
    connector = session.bus.connectors.find(index)
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
    call.write(area, header.ljust(WORK_AREA_DATA, b"\0") + encoded + value)
    return CONFIGURE_NEXT_PROPERTY if given else CONFIGURE_NEXT_CHILD


_SECTION = "LoPAPR 13.5.3"


def _indexes(session: OnBus) -> Keys:
    slots = session.bus.connectors.slots
    return [range(slot_index(slots.start), slot_index(slots.stop))]


CALLS = (
    RtasCall(
        "set-indicator",
        set_indicator,
        _SECTION,
        arguments=3,
        returns=1,
        support=Support.PARTIAL,
        note="connectors: isolation, allocation and DR indicator",
        key=Key(_indexes, argument=1),
    ),
    RtasCall(
        "get-sensor-state",
        get_sensor_state,
        _SECTION,
        arguments=2,
        returns=2,
        support=Support.PARTIAL,
        note="connectors: entity sense",
        key=Key(_indexes, argument=1),
    ),
    RtasCall(
        "ibm,configure-connector",
        configure_connector,
        _SECTION,
        arguments=2,
        returns=1,
        note="a node that fits the work area needs no more memory",
        operands=(Operand(8, argument=0),),
        key=Key(_indexes, word=(0, 0)),
    ),
)
