# SPDX-License-Identifier: GPL-2.0-or-later
"""SCSI's numbers: statuses, sense keys, device types, task attributes and task management (SAM-5, SPC-4)."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """How a command ended (SAM-5 5.3.1)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28


class SenseKey(IntEnum):
    """What kind of thing a sense reports (SPC-4 4.5.6)."""

    NO_SENSE = 0x0
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    ABORTED_COMMAND = 0xB
    MISCOMPARE = 0xE


class DeviceType(IntEnum):
    """The peripheral device type (SPC-4 table 143)."""

    DISK = 0x00
    CDROM = 0x05
    WELL_KNOWN = 0x1E
    NONE = 0x1F


class TaskAttribute(IntEnum):
    """How a command is ordered among others of its logical unit (SAM-5 8.9); the values are SRP's."""

    SIMPLE = 0
    HEAD_OF_QUEUE = 1
    ORDERED = 2


class TaskFunction(IntEnum):
    """A task management function (SAM-5 7); the values are SRP's, where SRP has it."""

    ABORT_TASK = 0x01
    ABORT_TASK_SET = 0x02
    CLEAR_TASK_SET = 0x04
    LOGICAL_UNIT_RESET = 0x08
    TARGET_RESET = 0x10
    NEXUS_RESET = 0x20


class TaskResponse(IntEnum):
    """The answer to a task management function; the values are SRP's response codes."""

    COMPLETE = 0x00
    NO_SUCH_TASK = 0x01
    """Nothing was left to abort. Not a code of SRP: there it is COMPLETE (SAM-5 7.2)."""
    INCORRECT_LUN = 0x02
    FAILED = 0x05


REPORT_LUNS_WELL_KNOWN_LUN = 0xC101
"""The logical unit that every target has for REPORT LUNS (SPC-4 8.2)."""
