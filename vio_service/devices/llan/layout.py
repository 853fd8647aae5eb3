# SPDX-License-Identifier: GPL-2.0-or-later
"""What guest and logical LAN device leave each other in memory (LoPAPR 16.4): descriptors, pages, entries of the receive queue.

All is big-endian.

descriptor      8 bytes: flags, 24 bits of length, 32 bits of I/O bus address
buffer list     a page of the device: the receive queue's descriptor, the filter list's, descriptors of free buffers, and in its
                last 8 bytes how many frames the guest had no buffer for
filter list     a page of the device: further descriptors of free buffers
receive queue   entries of 16 bytes: control (1), flags and offset (3), length (4), correlator (8)
buffer          the guest's correlator (8), then room for a frame; before a large one, its segments' size (8)
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from splitvisor.backend.vio import PAGE_BYTES

DESCRIPTOR_BYTES = 8
DESCRIPTOR = struct.Struct(">Q")
DESCRIPTOR_VALID = 1 << 63
LARGE_SEND, NO_CHECKSUM = 1 << 58, 1 << 57
"""Of a frame: cut it into segments of TCP; its TCP checksum is not there."""
_LENGTH_SHIFT, _LENGTH_MASK, _ADDRESS_MASK = 32, 0xFF_FFFF, 0xFFFF_FFFF

FREE_BUFFERS = 16
"""Where descriptors of free buffers begin in the buffer list."""
DROPPED = PAGE_BYTES - 8
"""Where the buffer list counts lost frames."""
LIST_SLOTS = (DROPPED - FREE_BUFFERS) // DESCRIPTOR_BYTES
FILTER_BYTES = PAGE_BYTES
FILTER_SLOTS = FILTER_BYTES // DESCRIPTOR_BYTES
SLOTS = LIST_SLOTS + FILTER_SLOTS
"""Free buffers whose descriptors have a place in guest memory."""

ENTRY_BYTES = 16
ENTRY_HEAD = struct.Struct(">II")
ENTRY_TOGGLE, ENTRY_VALID, ENTRY_LARGE, ENTRY_CHECKSUM_GOOD = 1 << 31, 1 << 30, 1 << 26, 1 << 24
FRAME_OFFSET = 8
"""Where a frame begins in its buffer, behind the correlator."""
LARGE_OFFSET = 16
"""Where one begins that is several segments of TCP, whose size stands before it."""
SEGMENT_SIZE = struct.Struct(">Q")
CORRELATOR_BYTES = 8


class Descriptor(NamedTuple):
    """A range of I/O bus addresses with flags."""

    flags: int
    length: int
    ioba: int

    @classmethod
    def of(cls, word: int) -> Descriptor:
        """Decode a register."""
        return cls(
            word & ~(_LENGTH_MASK << _LENGTH_SHIFT | _ADDRESS_MASK), word >> _LENGTH_SHIFT & _LENGTH_MASK, word & _ADDRESS_MASK
        )

    @property
    def is_valid(self) -> bool:
        """Whether the guest says that there is something."""
        return bool(self.flags & DESCRIPTOR_VALID)

    def encode(self) -> bytes:
        """Return it as memory has it."""
        return DESCRIPTOR.pack(self.flags | self.length << _LENGTH_SHIFT | self.ioba)


def slot_ioba(slot: int, buffer_list: int, filter_list: int) -> int:
    """Return where the descriptor of a free buffer is: slot 0 to SLOTS - 1, first in one page, then in the other."""
    if slot < LIST_SLOTS:
        return buffer_list + FREE_BUFFERS + slot * DESCRIPTOR_BYTES
    return filter_list + (slot - LIST_SLOTS) * DESCRIPTOR_BYTES
