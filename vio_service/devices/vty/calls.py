# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of VTYs (LoPAPR 16.2). Output is posted: the guest goes on as soon as cpu_service has the bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from splitvisor.backend import Call, Hypercall, Key, Posted, Result, RtasCall
from splitvisor.backend.vio import ADDRESS_MASK, VioSession
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.vty.device import BLOCK_BYTES, Vty

OUTPUT_CREDIT = 64 << 10
"""Output under way between cpu_service and here."""

_BLOCK = struct.Struct(">QQ")

Bus = VioSession[VmConsoles]


def _find(session: Bus, unit_address: int) -> Vty | None:
    """Return the VTY that a guest means. Linux' early debug output says 0 where there may be no vty@0: the bus's lowest one."""
    vty = session.bus.find(unit_address & ADDRESS_MASK, Vty)
    return next(iter(session.bus.all(Vty)), None) if vty is None and unit_address == 0 else vty


def _addresses(session: Bus) -> Sequence[int]:
    addresses = [vty.unit_address for vty in session.bus.all(Vty)]
    return [0, *addresses] if session.bus.is_first and addresses and 0 not in addresses else addresses


def put_term_char(session: Bus, call: Call) -> int:
    """Write up to 16 characters: unit address, length, and the characters in two registers, the first one in the top byte."""
    unit_address, length, high, low = call.arguments
    vty = _find(session, unit_address)
    if vty is None or length > BLOCK_BYTES:
        return H.PARAMETER
    vty.print(call, _BLOCK.pack(high, low)[:length])
    return H.SUCCESS


def get_term_char(session: Bus, call: Call) -> Result:
    """Read up to 16 characters: unit address; the number goes to r4, the characters to r5 and r6."""
    vty = _find(session, call.arguments[0])
    if vty is None:
        return Result(H.PARAMETER)
    block = vty.read_block()
    return Result(outputs=(len(block), *_BLOCK.unpack(block.ljust(BLOCK_BYTES, b"\0"))))


def display_character(session: Bus, call: Call) -> int:
    """Write one character to the lowest VTY."""
    vtys = session.bus.all(Vty)
    if not call.arguments:
        return RtasStatus.PARAMETER_ERROR
    if not vtys:
        return RtasStatus.HARDWARE_ERROR
    vtys[0].print(call, bytes((call.arguments[0] & 0xFF,)))
    return RtasStatus.SUCCESS


_UNIT = Key(_addresses)

CALLS = (
    Hypercall(
        Hcall.H_PUT_TERM_CHAR,
        put_term_char,
        arguments=4,
        section="LoPAPR 16.2",
        posted=Posted(
            credit_bytes=OUTPUT_CREDIT,
            key_argument=0,
            size_argument=1,
            max_size=BLOCK_BYTES,
            key_values=_addresses,
        ),
        unavailable_result=H.BUSY,
        key=_UNIT,
    ),
    Hypercall(Hcall.H_GET_TERM_CHAR, get_term_char, arguments=1, section="LoPAPR 16.2", key=_UNIT),
)

MACHINE_CALLS = (
    # SLOF's early output does not count its arguments right; other platforms accept any number.
    RtasCall("display-character", display_character, section="LoPAPR 7.3.2", arguments=None, returns=None),
)
"""Those of the machine as a whole: they do not say which terminal they mean."""
