# SPDX-License-Identifier: GPL-2.0-or-later
"""Error and event log entries, version 6 (LoPAPR 10.3): a fixed part, an extended header, and sections of two-letter names."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from enum import IntEnum

VERSION = 6
NO_ERROR_EXTENDED = 0x04
"""Severity 0 (no error), fully recovered, and an extended log follows."""
HOTPLUG_TYPE = 0xE5
"""The fixed part's type for a hotplug event."""

_VALID_NEW_LOG = (0x80, 0x80, 0x80 | 0x0E, 0x00)
"""A valid log; the first report of it; PowerPC format, platform event log of version 6."""
_COMPANY = b"IBM\0"
_HYPERVISOR = b"H"
_HOTPLUG_SUBSYSTEM = 0x01
_DRC_BY_INDEX = 2

_FIXED = struct.Struct(">4BI")
_EXTENDED = struct.Struct(">4B8x4s")
_SECTION = struct.Struct(">2sHBBH")
_PRIVATE = struct.Struct(">8s8xcxxB4x8xII")
_USER = struct.Struct(">BxBB4xBBH4x")
_HOTPLUG = struct.Struct(">BBBxI")


class Resource(IntEnum):
    """What a hotplug event is about."""

    SLOT = 3
    HOST_BRIDGE = 4


class Action(IntEnum):
    """What the guest is to do."""

    ADD = 1
    REMOVE = 2


def hotplug_entry(resource: Resource, action: Action, drc_index: int, number: int, time_ns: int) -> bytes:
    """Return the log entry of a hotplug event.

    Args:
        resource: what is plugged.
        action: what to do with it.
        drc_index: its connector.
        number: the entry's own, for people who read logs.
        time_ns: when, since 1970.
    """
    private = _PRIVATE.pack(_date(time_ns), _HYPERVISOR, 3, number & 0xFFFF_FFFF, number & 0xFFFF_FFFF)
    user = _USER.pack(_HOTPLUG_SUBSYSTEM, 0, 0, 0, 0, 0)
    hotplug = _HOTPLUG.pack(resource, action, _DRC_BY_INDEX, drc_index)
    sections = _section(b"PH", private) + _section(b"UH", user) + _section(b"HP", hotplug)
    extended = _EXTENDED.pack(*_VALID_NEW_LOG, _COMPANY) + sections
    return _FIXED.pack(VERSION, NO_ERROR_EXTENDED, 0, HOTPLUG_TYPE, len(extended)) + extended


def _section(name: bytes, data: bytes) -> bytes:
    return _SECTION.pack(name, _SECTION.size + len(data), 1, 0, 0) + data


def _date(time_ns: int) -> bytes:
    """Year (2 bytes), month, day, hour, minute, second and hundredth, as decimal digits."""
    seconds, rest = divmod(time_ns, 10**9)
    date = datetime.fromtimestamp(seconds, UTC)
    return bytes.fromhex(f"{date:%Y%m%d%H%M%S}{rest // 10**7:02d}")
