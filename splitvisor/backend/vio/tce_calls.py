# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypercalls that fill DMA windows (LoPAPR 14.5.4.2) and the RTAS call that turns translation off.

A window's LIOBN is its device's unit address. An address beyond the window ends a call with H_PARAMETER; entries before it
stay set, as guests know it from QEMU and KVM.
"""

from __future__ import annotations

import struct

from splitvisor.backend.vio.bus import ADDRESS_MASK, OnBus
from splitvisor.backend.vio.device import VioDevice
from splitvisor.backend.vio.dma import PAGE_BYTES, WINDOW_PAGES, DmaWindow
from splitvisor.declarations.calls import Call, Hypercall, Key, Operand, Result, RtasCall
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall

MAX_INDIRECT = 512
"""TCEs in the one page that H_PUT_TCE_INDIRECT reads."""


def _window(session: OnBus, liobn: int) -> DmaWindow | None:
    device = session.bus.find(liobn & ADDRESS_MASK, VioDevice)
    return None if device is None else device.window


def put_tce(session: OnBus, call: Call) -> int:
    """Set one entry: LIOBN, I/O bus address, TCE."""
    liobn, ioba, tce = call.arguments
    window = _window(session, liobn)
    index = ioba // PAGE_BYTES
    if window is None or index >= WINDOW_PAGES:
        return H.PARAMETER
    window.table[index] = tce
    return H.SUCCESS


def get_tce(session: OnBus, call: Call) -> Result:
    """Read one entry: LIOBN, I/O bus address; r4 is the TCE."""
    liobn, ioba = call.arguments
    window = _window(session, liobn)
    index = ioba // PAGE_BYTES
    if window is None or index >= WINDOW_PAGES:
        return Result(H.PARAMETER)
    return Result(outputs=(window.table[index],))


def stuff_tce(session: OnBus, call: Call) -> int:
    """Set consecutive entries to one value: LIOBN, I/O bus address, TCE, number of entries."""
    liobn, ioba, tce, count = call.arguments
    window = _window(session, liobn)
    index = ioba // PAGE_BYTES
    if window is None or index >= WINDOW_PAGES or not 0 < count <= WINDOW_PAGES:
        return H.PARAMETER
    room = WINDOW_PAGES - index
    window.table.fill(index, min(count, room), tce)
    return H.SUCCESS if count <= room else H.PARAMETER


async def put_tce_indirect(session: OnBus, call: Call) -> int:
    """Set consecutive entries from a list in memory: LIOBN, I/O bus address, page-aligned list, number of entries."""
    liobn, ioba, address, count = call.arguments
    address &= LOGICAL_ADDRESS_MASK
    window = _window(session, liobn)
    index = ioba // PAGE_BYTES
    if window is None or index >= WINDOW_PAGES or not 0 < count <= MAX_INDIRECT or address % PAGE_BYTES:
        return H.PARAMETER
    entries = struct.unpack(f">{count}Q", await session.vm.memory.read(address, 8 * count))
    room = WINDOW_PAGES - index
    for offset, tce in enumerate(entries[:room]):
        window.table[index + offset] = tce
    return H.SUCCESS if count <= room else H.PARAMETER


def set_tce_bypass(session: OnBus, call: Call) -> int:
    """Turn a device's use of guest physical addresses on (1) or off (0): unit address, mode."""
    unit_address, enable = call.arguments
    window = _window(session, unit_address)
    if window is None:
        return RtasStatus.PARAMETER_ERROR
    window.bypass = enable != 0
    return RtasStatus.SUCCESS


def _windows(session: OnBus) -> list[int]:
    return [address for address, device in session.bus.devices.items() if device.window is not None]


_LIOBN = Key(_windows)

CALLS = (
    Hypercall(Hcall.H_PUT_TCE, put_tce, arguments=3, section="LoPAPR 14.5.4.2", key=_LIOBN),
    Hypercall(Hcall.H_GET_TCE, get_tce, arguments=2, section="LoPAPR 14.5.4.2", key=_LIOBN),
    Hypercall(Hcall.H_STUFF_TCE, stuff_tce, arguments=4, section="LoPAPR 14.5.4.2", key=_LIOBN),
    Hypercall(
        Hcall.H_PUT_TCE_INDIRECT,
        put_tce_indirect,
        arguments=4,
        section="LoPAPR 14.5.4.2",
        operands=(Operand(PAGE_BYTES, argument=2),),
        key=_LIOBN,
    ),
    # SLOF makes this call without room for a status.
    RtasCall("ibm,set-tce-bypass", set_tce_bypass, section="private to QEMU and SLOF", arguments=2, returns=None, key=_LIOBN),
)
