# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of terminals (LoPAPR 16.2). Output of VTYs is posted: the guest goes on as soon as cpu_service has the bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from splitvisor.backend import Call, Hypercall, Key, Posted, Result, RtasCall
from splitvisor.backend.vio import ADDRESS_MASK, VioDevice, VioSession
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.vty.device import Vty
from vio_service.devices.vty.terminal import BLOCK_BYTES, Terminal

OUTPUT_CREDIT = 64 << 10
"""Output under way between cpu_service and here."""

_BLOCK = struct.Struct(">QQ")

Bus = VioSession[VmConsoles]


def _find(session: Bus, unit_address: int) -> Terminal | None:
    """Return the terminal that a guest means. Linux' early debug output says 0 where there may be no vty@0: the lowest VTY."""
    device = session.bus.find(unit_address & ADDRESS_MASK, VioDevice)
    if isinstance(device, Terminal):
        return device
    return next(iter(session.bus.all(Vty)), None) if unit_address == 0 else None


def _addresses(session: Bus) -> Sequence[int]:
    return _with_lowest(session, [device.unit_address for device in session.bus.all(VioDevice) if isinstance(device, Terminal)])


def _vty_addresses(session: Bus) -> Sequence[int]:
    """Those whose output is posted: what a vty-server writes may have to wait for its partner."""
    return _with_lowest(session, [vty.unit_address for vty in session.bus.all(Vty)])


def _with_lowest(session: Bus, addresses: Sequence[int]) -> Sequence[int]:
    return [0, *addresses] if session.bus.is_first and session.bus.all(Vty) and 0 not in addresses else addresses


def put_term_char(session: Bus, call: Call) -> int:
    """Write up to 16 characters: unit address, length, and the characters in two registers, the first one in the top byte."""
    unit_address, length, high, low = call.arguments
    terminal = _find(session, unit_address)
    if terminal is None or length > BLOCK_BYTES:
        return H.PARAMETER
    return terminal.put_block(call, _BLOCK.pack(high, low)[:length])


def get_term_char(session: Bus, call: Call) -> Result:
    """Read up to 16 characters: unit address; the number goes to r4, the characters to r5 and r6."""
    terminal = _find(session, call.arguments[0])
    if terminal is None:
        return Result(H.PARAMETER)
    result, block = terminal.get_block()
    if result != H.SUCCESS:
        return Result(result)
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
            key_values=_vty_addresses,
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
