# SPDX-License-Identifier: GPL-2.0-or-later
"""Sense data: what went wrong with a command, or what happened to its logical unit (SPC-4 4.5)."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace

from splitvisor.block.device import BlockError
from splitvisor.scsi.codes import SenseKey


@dataclass(frozen=True, slots=True)
class Sense:
    """A sense key with an additional sense code and its qualifier, as SPC-4 annex F lists them."""

    key: SenseKey
    asc: int
    ascq: int = 0
    information: int | None = None
    """A block, or an offset in bytes after MISCOMPARE."""
    field: tuple[int, int | None, bool] | None = None
    """For ILLEGAL REQUEST: the byte, its bit if it is one, and whether it is of the CDB or else of the parameter list."""

    def at(self, byte: int, bit: int | None = None, *, in_cdb: bool = True) -> Sense:
        """Return the same sense with a pointer to the field that is wrong."""
        return replace(self, field=(byte, bit, in_cdb))

    def about(self, information: int) -> Sense:
        """Return the same sense with information: a block or an offset."""
        return replace(self, information=information)

    def fixed(self) -> bytes:
        """Return 18 bytes of fixed format (SPC-4 4.5.3)."""
        fits = self.information is not None and self.information < 1 << 32
        head = bytes((0xF0 if fits else 0x70, 0, self.key))
        information = (self.information or 0) if fits else 0
        return head + information.to_bytes(4, "big") + bytes((10, 0, 0, 0, 0, self.asc, self.ascq, 0)) + self._key_specific()

    def descriptors(self) -> bytes:
        """Return the sense in descriptor format (SPC-4 4.5.2): 8 bytes and a descriptor for each thing that is known."""
        parts = b""
        if self.information is not None:
            parts += bytes((0x00, 0x0A, 0x80, 0)) + self.information.to_bytes(8, "big")
        if self.field is not None:
            parts += bytes((0x02, 0x06, 0, 0)) + self._key_specific() + b"\0"
        return bytes((0x72, self.key, self.asc, self.ascq, 0, 0, 0, len(parts))) + parts

    def encoded(self, descriptors: bool) -> bytes:
        """Return the sense in one of the two formats."""
        return self.descriptors() if descriptors else self.fixed()

    def _key_specific(self) -> bytes:
        if self.field is None:
            return bytes(3)
        byte, bit, in_cdb = self.field
        flags = 0x80 | (0x40 if in_cdb else 0) | (0 if bit is None else 0x08 | bit)
        return bytes((flags,)) + min(byte, 0xFFFF).to_bytes(2, "big")


_ILLEGAL = SenseKey.ILLEGAL_REQUEST
_ATTENTION = SenseKey.UNIT_ATTENTION

NO_SENSE = Sense(SenseKey.NO_SENSE, 0x00)

NO_MEDIUM = Sense(SenseKey.NOT_READY, 0x3A)
NO_MEDIUM_TRAY_OPEN = Sense(SenseKey.NOT_READY, 0x3A, 0x02)
STOPPED = Sense(SenseKey.NOT_READY, 0x04, 0x02)

READ_ERROR = Sense(SenseKey.MEDIUM_ERROR, 0x11)
WRITE_ERROR = Sense(SenseKey.MEDIUM_ERROR, 0x0C)
INTERNAL_FAILURE = Sense(SenseKey.HARDWARE_ERROR, 0x44)

PARAMETER_LIST_LENGTH = Sense(_ILLEGAL, 0x1A)
INVALID_OPCODE = Sense(_ILLEGAL, 0x20)
BLOCK_OUT_OF_RANGE = Sense(_ILLEGAL, 0x21)
INVALID_FIELD_IN_CDB = Sense(_ILLEGAL, 0x24)
NO_SUCH_UNIT = Sense(_ILLEGAL, 0x25)
INVALID_FIELD_IN_PARAMETERS = Sense(_ILLEGAL, 0x26)
INVALID_RELEASE = Sense(_ILLEGAL, 0x26, 0x04)
SAVING_NOT_SUPPORTED = Sense(_ILLEGAL, 0x39)
REMOVAL_PREVENTED = Sense(_ILLEGAL, 0x53, 0x02)
OUT_OF_REGISTRATIONS = Sense(_ILLEGAL, 0x55, 0x04)

WRITE_PROTECTED = Sense(SenseKey.DATA_PROTECT, 0x27)
NO_SPACE = Sense(SenseKey.DATA_PROTECT, 0x27, 0x07)

OVERLAPPED_COMMANDS = Sense(SenseKey.ABORTED_COMMAND, 0x4E)
MISCOMPARE = Sense(SenseKey.MISCOMPARE, 0x1D)

MEDIUM_CHANGED = Sense(_ATTENTION, 0x28)
POWER_ON = Sense(_ATTENTION, 0x29, 0x00)
TARGET_WAS_RESET = Sense(_ATTENTION, 0x29, 0x02)
UNIT_WAS_RESET = Sense(_ATTENTION, 0x29, 0x03)
MODE_CHANGED = Sense(_ATTENTION, 0x2A, 0x01)
RESERVATIONS_PREEMPTED = Sense(_ATTENTION, 0x2A, 0x03)
RESERVATIONS_RELEASED = Sense(_ATTENTION, 0x2A, 0x04)
REGISTRATIONS_PREEMPTED = Sense(_ATTENTION, 0x2A, 0x05)
CAPACITY_CHANGED = Sense(_ATTENTION, 0x2A, 0x09)
COMMANDS_CLEARED = Sense(_ATTENTION, 0x2F)
UNITS_CHANGED = Sense(_ATTENTION, 0x3F, 0x0E)


class CheckError(Exception):
    """Ends a command with CHECK CONDITION.

    Attributes:
        sense: says why.
    """

    def __init__(self, sense: Sense) -> None:
        super().__init__(sense)
        self.sense = sense


class ConflictError(Exception):
    """Ends a command with RESERVATION CONFLICT."""


def sense_of(error: BlockError, *, writing: bool) -> Sense:
    """Return the sense for a transfer that the host could not make."""
    by_number = {errno.ENOSPC: NO_SPACE, errno.EDQUOT: NO_SPACE, errno.EROFS: WRITE_PROTECTED, errno.EPERM: WRITE_PROTECTED}
    return by_number.get(error.errno or 0, WRITE_ERROR if writing else READ_ERROR)
