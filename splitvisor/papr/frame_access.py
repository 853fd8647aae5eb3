# SPDX-License-Identifier: GPL-2.0-or-later
"""SPLITVISOR_H_FRAME: how a firmware outside the guest sends and receives frames, without a driver and without a queue.

The back end that has a network device owns the call for the device's unit address, and moves the bytes itself between the wire
and guest memory. It keeps frames for the firmware from the first EXCHANGE on, a bounded number, until CLOSE, a reset, or the
guest's own driver, which opens the device by H_REGISTER_LOGICAL_LAN and finds nothing of it. Nothing keeps a guest from making
the call, too: it reaches its own wire only.

Arguments: unit address, operation, address and length of a frame to send, address and size of a buffer, milliseconds. Results:

    EXCHANGE   sends the frame, unless its length is 0; then, unless the buffer's size is 0, waits at most so many milliseconds
               for a frame. r4: its bytes, which are in the buffer; 0: none has arrived
    CLOSE      keeps no frames any more, and forgets those that have arrived

A frame is from its destination address on, without its frame check sequence. One that does not fit into the buffer is lost.

Errors: H_PARAMETER (there is no such device or operation; a frame that is too short or too long, memory that is not RAM),
H_RESOURCE (the guest's driver has the device).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

ARGUMENTS = 7
MIN_FRAME, MAX_FRAME = 14, 1518
"""Bytes of a frame: its header, at least; IEEE 802.3's largest, a tag included."""
MAX_WAIT_MS = 100
"""How long a call waits at most, whatever it asks for."""

_ADDRESS_MASK = 0xFFFF_FFFF


class FrameOperation(IntEnum):
    """What a call does."""

    EXCHANGE = 0
    CLOSE = 1


@dataclass(frozen=True)
class FrameRequest:
    """The arguments of a call."""

    unit_address: int
    operation: FrameOperation
    address: int = 0
    """In guest memory: the frame to send."""
    length: int = 0
    """Its bytes; 0: none is sent."""
    buffer: int = 0
    """In guest memory: where a frame goes that has arrived."""
    room: int = 0
    """Bytes of the buffer; 0: none is received."""
    wait_ms: int = 0

    def arguments(self) -> tuple[int, ...]:
        """Return them as the hypercall takes them."""
        return (self.unit_address, self.operation, self.address, self.length, self.buffer, self.room, self.wait_ms)

    @classmethod
    def parse(cls, arguments: Sequence[int], ram_bytes: int) -> FrameRequest | None:
        """Check the arguments of a hypercall: r4 and up. None: the answer is H_PARAMETER."""
        if len(arguments) < ARGUMENTS:
            return None
        unit_address, operation, address, length, buffer, room, wait_ms = arguments[:ARGUMENTS]
        if operation not in FrameOperation._value2member_map_:
            return None
        request = cls(
            unit_address & _ADDRESS_MASK, FrameOperation(operation), address, length, buffer, room, min(wait_ms, MAX_WAIT_MS)
        )
        if request.operation is FrameOperation.CLOSE:
            return request
        if length and (not MIN_FRAME <= length <= MAX_FRAME or address + length > ram_bytes):
            return None
        return None if room and buffer + room > ram_bytes else request
