# SPDX-License-Identifier: GPL-2.0-or-later
"""Management datagrams (MADs): what a guest asks of the adapter beside SCSI, answered in place with a status.

The layouts are those of Linux's drivers for this adapter (include/scsi/viosrp.h), in our own words.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

_HEAD = struct.Struct(">IHH8sQ")
STATUS_AT = 4
"""Where the answer has its status, in 2 bytes."""


class Kind(IntEnum):
    """What a datagram asks."""

    ADAPTER_INFORMATION = 3
    CAPABILITIES = 5


class MadStatus(IntEnum):
    """How a datagram ended."""

    DONE = 0x00
    NOT_SUPPORTED = 0xF1
    FAILED = 0xF7


@dataclass(frozen=True)
class Datagram:
    """A datagram with a buffer."""

    kind: int
    length: int
    """Bytes of the buffer."""
    tag: bytes
    buffer: int
    """Its I/O bus address."""


def parse_datagram(data: bytes) -> Datagram | None:
    """Return a datagram; None if it ends too early for one."""
    if len(data) < _HEAD.size:
        return None
    kind, _, length, tag, buffer = _HEAD.unpack_from(data)
    return Datagram(kind, length, tag, buffer)


_LINUX = 2
"""The operating system of the server, as clients know it: with it they begin at once with a login."""
_INFORMATION = struct.Struct(">8s96sIIII7I")


def adapter_information(partition: str, max_transfer: int) -> bytes:
    """Return the adapter's description of itself.

    Args:
        partition: name of the server, as guests show it.
        max_transfer: bytes of a command.
    """
    name = partition.encode("ascii", "replace")[:95]
    return _INFORMATION.pack(b"16.a", name, 0, 1, _LINUX, max_transfer, 0, 0, 0, 0, 0, 0, 0)


_CAPABILITIES = struct.Struct(">I32s32s")
_CAPABILITY = struct.Struct(">IHHI")
CAPABILITIES_BYTES = _CAPABILITIES.size + 2 * _CAPABILITY.size
_LIST_SUPPORTED, _LIST_HAS_DATA = 0x4, 0x8


def capabilities(asked: bytes) -> bytes:
    """Return the answer to a list of capabilities that a client asks for: none of them is there."""
    flags, *names = _CAPABILITIES.unpack_from(asked)
    return _CAPABILITIES.pack(flags & ~(_LIST_SUPPORTED | _LIST_HAS_DATA), *names) + bytes(len(asked) - _CAPABILITIES.size)
