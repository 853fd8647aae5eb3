# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls that connect vty-servers (LoPAPR 16.2.1.2). Characters pass through the terminal calls of VTYs."""

from __future__ import annotations

import struct

from splitvisor.backend import Call, Hypercall
from splitvisor.backend.vio import ADDRESS_MASK, VioSession, by_address
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.vty_server.device import VtyServer

PAGE_BYTES = 4096
LOCATION_BYTES = 80
"""Of a location code with its NUL; Linux keeps as many."""
NOBODY = (1 << 64) - 1
"""Number and unit address before the first partner, and after the last."""

Bus = VioSession[VmConsoles]


def _find(session: Bus, unit_address: int) -> VtyServer | None:
    return session.bus.find(unit_address & ADDRESS_MASK, VtyServer)


async def partner_info(session: Bus, call: Call) -> int:
    """H_VTERM_PARTNER_INFO(unit address, partition, its unit address, page): the partner that is next in order.

    The page gets the next partner's partition and unit address, 64 bits each, and its location code. The list begins after, and
    ends with, two doublewords of all ones.
    """
    unit_address, partition, partner_address, page = call.arguments
    server = _find(session, unit_address)
    if server is None or page % PAGE_BYTES:
        return H.PARAMETER
    session.vm.memory.check(page, PAGE_BYTES)
    before = (-1, -1) if (partition, partner_address) == (NOBODY, NOBODY) else (partition, partner_address)
    partner = next((each for each in server.partners() if each.key > before), None)
    key, location = (partner.key, partner.location) if partner is not None else ((NOBODY, NOBODY), "")
    text = location.encode()[: LOCATION_BYTES - 1]
    await session.vm.memory.write(page, struct.pack(">QQ", *key) + text.ljust(LOCATION_BYTES, b"\0"))
    return H.SUCCESS


def register_vterm(session: Bus, call: Call) -> int:
    """H_REGISTER_VTERM(unit address, partition, its unit address): connect. H_BUSY: somebody has that terminal already."""
    unit_address, partition, partner_address = call.arguments
    server = _find(session, unit_address)
    return H.PARAMETER if server is None else server.connect((partition, partner_address))


def free_vterm(session: Bus, call: Call) -> int:
    """H_FREE_VTERM(unit address): disconnect; without a connection nothing happens."""
    server = _find(session, call.arguments[0])
    if server is None:
        return H.PARAMETER
    server.disconnect()
    return H.SUCCESS


_SECTION = "LoPAPR 16.2.1.2"
_UNIT = by_address(VtyServer)

CALLS = (
    Hypercall(Hcall.H_VTERM_PARTNER_INFO, partner_info, arguments=4, section=_SECTION, key=_UNIT),
    Hypercall(Hcall.H_REGISTER_VTERM, register_vterm, arguments=3, section=_SECTION, key=_UNIT),
    Hypercall(Hcall.H_FREE_VTERM, free_vterm, arguments=1, section=_SECTION, key=_UNIT),
)
