# SPDX-License-Identifier: GPL-2.0-or-later
"""The information units (IUs) of SRP (T10 SRP 6), which the adapter and its guest exchange in guest memory; all big-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

from splitvisor.scsi.codes import Status

IU_BYTES = 256
"""The longest IU from the guest; Linux says this length of every one."""
TAG_BYTES = 8


class Opcode(IntEnum):
    """First byte of an IU."""

    LOGIN_REQUEST = 0x00
    TASK_MANAGEMENT = 0x01
    COMMAND = 0x02
    INITIATOR_LOGOUT = 0x03
    LOGIN_RESPONSE = 0xC0
    RESPONSE = 0xC1


class BufferFormat(IntFlag):
    """Formats of data descriptors, as a login names them."""

    DIRECT = 0x2
    INDIRECT = 0x4


_LOGIN_RESPONSE = struct.Struct(">B3xi8sIIH26x")
_RESPONSE = struct.Struct(">BB2xi8s2xBBIIII")
_RESPONSE_VALID, _SENSE_VALID = 0x01, 0x02
_OUT_RESIDUAL, _IN_RESIDUAL = 0x04, 0x10
"""DOOVER and DIOVER: guests take the residual of a short transfer from them, and do not look at the flags of an underrun."""


class CommandUnit(NamedTuple):
    """SRP_CMD (SRP 6.8)."""

    tag: bytes
    lun: int
    """All 64 bits."""
    attribute: int
    cdb: bytes
    out_format: int
    in_format: int
    """0: no data that way; 1: one direct descriptor; 2: an indirect table."""
    out_count: int
    in_count: int
    """How many descriptors of the table are here."""
    descriptors: bytes
    """Of data out, then of data in."""


_COMMAND = struct.Struct(">B4xBBB8s4xQxBxB16s")


def parse_command(iu: bytes) -> CommandUnit | None:
    """Return a command; None if the IU ends too early for one."""
    if len(iu) < _COMMAND.size:
        return None
    _, formats, out_count, in_count, tag, lun, attribute, additional, cdb = _COMMAND.unpack_from(iu)
    additional &= ~3  # Bytes; the low two bits are reserved.
    start = _COMMAND.size + additional
    return CommandUnit(
        tag, lun, attribute & 7, cdb + iu[_COMMAND.size : start], formats >> 4, formats & 0xF, out_count, in_count, iu[start:]
    )


@dataclass(frozen=True)
class TaskUnit:
    """SRP_TSK_MGMT (SRP 6.7)."""

    lun: int
    function: int
    task_tag: bytes


_TASK = struct.Struct(">B19xQ2xBx8s")


def parse_task(iu: bytes) -> TaskUnit | None:
    """Return a task management request; None if the IU ends too early for one."""
    if len(iu) < _TASK.size:
        return None
    _, lun, function, task_tag = _TASK.unpack_from(iu)
    return TaskUnit(lun, function, task_tag)


def login_response(tag: bytes, requests: int) -> bytes:
    """Return SRP_LOGIN_RSP (SRP 6.4). requests: how many the guest may have under way."""
    formats = BufferFormat.DIRECT | BufferFormat.INDIRECT
    return _LOGIN_RESPONSE.pack(Opcode.LOGIN_RESPONSE, requests, tag, IU_BYTES, IU_BYTES, formats)


def response(
    tag: bytes, status: Status, sense: bytes = b"", out_residual: int = 0, in_residual: int = 0, solicited: int = 0
) -> bytes:
    """Return SRP_RSP of a command (SRP 6.9), which gives the guest its request back.

    Args:
        tag: of the command.
        status: how it ended.
        sense: with CHECK CONDITION.
        out_residual: bytes of the buffers for data out that were not taken.
        in_residual: bytes of the buffers for data in that were not filled.
        solicited: the notification bits.
    """
    flags = (_SENSE_VALID if sense else 0) | (_OUT_RESIDUAL if out_residual else 0) | (_IN_RESIDUAL if in_residual else 0)
    head = _RESPONSE.pack(Opcode.RESPONSE, solicited, 1, tag, flags, status, out_residual, in_residual, len(sense), 0)
    return head + sense


def task_response(tag: bytes, code: int) -> bytes:
    """Return SRP_RSP of a task management request: code is a response code (SRP 6.9, table 23)."""
    head = _RESPONSE.pack(Opcode.RESPONSE, 0, 1, tag, _RESPONSE_VALID, Status.GOOD, 0, 0, 0, 4)
    return head + code.to_bytes(4, "big")
