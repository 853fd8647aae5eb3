# SPDX-License-Identifier: GPL-2.0-or-later
"""VTY: the virtual serial port of a pseries guest (LoPAPR 16.2 and 17.5), a thin layer over a Console.

Output is posted: the guest goes on as soon as cpu_service has the bytes. Input is signalled by an interrupt when the first byte
comes in; the guest then reads until H_GET_TERM_CHAR returns nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from splitvisor.backend import Call, Hypercall, Key, Posted, Result, RtasCall, Vm
from splitvisor.backend.state import parse_state
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import console_pb2, state_pb2
from vio_service.bus.device import BusSession, VioDevice
from vio_service.console.console import STATE_VERSION, Console
from vio_service.console.session import ConsoleSession

BLOCK_BYTES = 16
"""What one call carries: two registers."""
OUTPUT_CREDIT = 64 << 10
"""Output under way between cpu_service and here."""

_WORD_MASK = 0xFFFF_FFFF
_BLOCK = struct.Struct(">QQ")


class Vty(VioDevice):
    """A virtual terminal."""

    kind = "vty"
    node_name = "vty"
    device_type = "serial"
    compatible = "hvterm1"
    serial = True

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        super().__init__(vm, unit_address, options)
        self.console = Console(vm.name, unit_address, on_input=self._signal)

    def _signal(self) -> None:
        self.vm.interrupt(self.interrupt_source)

    def attached(self) -> None:
        """Pulse again for input that waits: the first pulse may have gone with the lost connection. A save is over with it."""
        self.console.thaw()
        if self.console.waiting_input:
            self._signal()

    def close(self) -> None:
        """Tell the terminals, after the last output."""
        self.console.end(console_pb2.CONSOLE_END_REASON_VM_ENDED, "the VM has ended")

    def replaced(self) -> None:
        """Tell the terminals to come again: the console goes on elsewhere."""
        self.console.end(console_pb2.CONSOLE_END_REASON_SHUTDOWN, "another cpu_service has the VM now")

    def save(self) -> bytes:
        """See VioDevice. No input is taken until resumed()."""
        self.console.is_frozen = True
        return self.console.save().SerializeToString()

    def resumed(self) -> None:
        """See VioDevice."""
        self.console.thaw()

    def restore(self, state: bytes) -> None:
        """See VioDevice. A terminal at the console of a VM that has moved goes on where it is; at an older one it starts anew.

        Input is taken once the VM runs: should it not, whoever has it then gets what was typed.
        """
        self.console.is_frozen = True
        self.console.restore_state(parse_state(state_pb2.VtyState, state, STATE_VERSION, self.name), same_instance=self.vm.moved)

    def read_block(self) -> bytes:
        """Take up to 16 bytes of input; a block ends before a NUL that follows a CR.

        PowerVM once put a NUL after each CR, and Linux still removes one that comes in the same block: so a real one must not.
        """
        block = bytearray()
        for byte in self.console.peek_input(BLOCK_BYTES):
            if not byte and block.endswith(b"\r"):
                break
            block.append(byte)
        if block:
            self.console.drop_input(len(block))
        return bytes(block)


def _find(session: BusSession, unit_address: int) -> Vty | None:
    """Return the VTY that a guest means. Linux' early debug output says 0 where there may be no vty@0: the lowest one."""
    vty = session.find(unit_address & _WORD_MASK, Vty)
    return next(iter(session.all(Vty)), None) if vty is None and unit_address == 0 else vty


def _addresses(session: BusSession) -> Sequence[int]:
    addresses = [vty.unit_address for vty in session.all(Vty)]
    return [0, *addresses] if addresses and 0 not in addresses else addresses


def put_term_char(session: ConsoleSession, call: Call) -> int:
    """Write up to 16 characters: unit address, length, and the characters in two registers, the first one in the top byte."""
    unit_address, length, high, low = call.arguments
    vty = _find(session, unit_address)
    if vty is None or length > BLOCK_BYTES:
        return H.PARAMETER
    session.print(call, vty.console, _BLOCK.pack(high, low)[:length])
    return H.SUCCESS


def get_term_char(session: BusSession, call: Call) -> Result:
    """Read up to 16 characters: unit address; the number goes to r4, the characters to r5 and r6."""
    vty = _find(session, call.arguments[0])
    if vty is None:
        return Result(H.PARAMETER)
    block = vty.read_block()
    return Result(outputs=(len(block), *_BLOCK.unpack(block.ljust(BLOCK_BYTES, b"\0"))))


def display_character(session: ConsoleSession, call: Call) -> int:
    """Write one character to the lowest VTY."""
    vtys = session.all(Vty)
    if not call.arguments:
        return RtasStatus.PARAMETER_ERROR
    if not vtys:
        return RtasStatus.HARDWARE_ERROR
    session.print(call, vtys[0].console, bytes((call.arguments[0] & 0xFF,)))
    return RtasStatus.SUCCESS


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
        key=Key(_addresses),
    ),
    Hypercall(Hcall.H_GET_TERM_CHAR, get_term_char, arguments=1, section="LoPAPR 16.2", key=Key(_addresses)),
    # SLOF's early output does not count its arguments right; other platforms accept any number.
    RtasCall("display-character", display_character, section="LoPAPR 7.3.2", arguments=None, returns=None),
)
