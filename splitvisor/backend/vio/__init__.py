# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a VIO device outside vio_service: a device class, a table of its calls, and a bus that does the rest.

The bus gives a device its unit address, node, interrupt source, connector and DMA window, and carries out the calls of the bus
itself: filling windows (by LIOBN), turning signals on and off (by unit address), adding and removing devices (by DRC index):

    class Lamp(VioDevice):
        kind, node_name, device_type, compatible = "lamp", "lamp", "lamp", "example,lamp"
        is_lit = False

    def switch(session, call):
        # H_LAMP(unit address, state)
        lamp = session.bus.find(call.arguments[0], Lamp)
        if lamp is None:
            return H.PARAMETER
        lamp.is_lit = call.arguments[1] != 0
        return H.SUCCESS

    CALLS = (Hypercall(0xF110, switch, arguments=2, section="an example", name="H_LAMP", key=by_address(Lamp)),)

    if __name__ == "__main__":
        VioBackend("lamps", kinds(DeviceKind(Lamp, CALLS))).serve()

A machine's configuration places devices: `[[device]]` with `kind = "lamp"` and `backend = "lamps"`.
"""

from splitvisor.backend.vio.bus import ADDRESS_MASK, VioBus, by_address
from splitvisor.backend.vio.connector import Connector, State
from splitvisor.backend.vio.crq import COMMAND, INITIALIZE, INITIALIZED, CrqDevice
from splitvisor.backend.vio.device import (
    BusError,
    DeviceKind,
    MediumLockedError,
    VioDevice,
    cells_property,
    kinds,
    text_property,
)
from splitvisor.backend.vio.serve import VioBackend
from splitvisor.backend.vio.session import BUS_CALLS, HostSide, VioSession
from splitvisor.declarations.dma import PAGE_BYTES, WINDOW_BYTES, DmaError, DmaWindow, Piece, Scatter

__all__ = [
    "ADDRESS_MASK",
    "BUS_CALLS",
    "COMMAND",
    "INITIALIZE",
    "INITIALIZED",
    "PAGE_BYTES",
    "WINDOW_BYTES",
    "BusError",
    "Connector",
    "CrqDevice",
    "DeviceKind",
    "DmaError",
    "DmaWindow",
    "HostSide",
    "MediumLockedError",
    "Piece",
    "Scatter",
    "State",
    "VioBackend",
    "VioBus",
    "VioDevice",
    "VioSession",
    "by_address",
    "cells_property",
    "kinds",
    "text_property",
]
