# SPDX-License-Identifier: GPL-2.0-or-later
"""A logical unit: how a command runs on it, and what it remembers of initiators."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import structlog

from splitvisor.block.device import BlockError
from splitvisor.errors.problem import ProblemError
from splitvisor.scsi.codes import DeviceType, Status
from splitvisor.scsi.command import Command, Completion, Exchange
from splitvisor.scsi.mode_pages import ModePage, ModePages
from splitvisor.scsi.operations import Operation, OperationTable
from splitvisor.scsi.reservations import Reservations
from splitvisor.scsi.sense import (
    INTERNAL_FAILURE,
    MODE_CHANGED,
    NO_SENSE,
    OVERLAPPED_COMMANDS,
    POWER_ON,
    CheckError,
    ConflictError,
    Sense,
    sense_of,
)
from splitvisor.scsi.task_set import TaskSet, wait_for_all

VENDOR = "SPLITVSR"
"""The T10 vendor identification, 8 characters."""
REVISION = "0001"
MAX_SERIAL = 64

log = structlog.get_logger()


class SerialError(ProblemError):
    """A serial number that a guest cannot be shown."""


@dataclass(frozen=True)
class Identity:
    """What a logical unit is called. Raises SerialError."""

    serial: str
    """Printable ASCII, 1 to 64 characters. It makes the unit's world-wide name, so two units need two."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.serial) <= MAX_SERIAL or not all(" " < each <= "~" for each in self.serial):
            remedy = f"use 1 to {MAX_SERIAL} printable ASCII characters, no blanks"
            raise SerialError(f"serial={self.serial!r}: not a serial number", remedy)

    def name(self) -> bytes:
        """Return the world-wide name: an NAA identifier of the locally assigned kind, 8 bytes (SPC-4 7.8.6.6.4)."""
        digest = hashlib.sha256(b"splitvisor " + self.serial.encode()).digest()[:8]
        return bytes((0x30 | digest[0] & 0x0F,)) + digest[1:]


class LogicalUnit:
    """A logical unit of a target. Its kinds are the subclasses, which have the tables.

    Attributes:
        reservations: what initiators have reserved.
        tasks: the commands that have not ended.
        modes: the mode pages.
        attentions: the unit attentions of each initiator that has sent a command, by its name.
        listing: returns the parameter data of REPORT LUNS for a select report, the LUN that was addressed, and the initiator; the
            target sets it.
    """

    device_type: ClassVar[DeviceType]
    product: ClassVar[str]
    removable: ClassVar[bool] = False
    version_descriptors: ClassVar[tuple[int, ...]] = (0x00A0, 0x0460)
    """The standards that it follows: SAM-5 and SPC-4, for all (SPC-4 table 142)."""
    table: ClassVar[OperationTable[Any]]
    vpd_pages: ClassVar[Mapping[int, Callable[[Any], bytes]]]
    """The pages of vital product data by their code, each without its header."""

    def __init__(self, identity: Identity, pages: tuple[ModePage, ...]) -> None:
        self.identity = identity
        self.tasks = TaskSet()
        self.reservations = Reservations()
        self.modes = ModePages(pages)
        self.listing: Callable[[int, int, str], bytes] = lambda select, lun, initiator: bytes(8)
        self.attentions: dict[str, dict[Sense, None]] = {}
        self._reported: set[int] = set()

    async def execute(self, command: Command) -> Completion | None:
        """Run a command to its end.

        Returns:
            None, if the command was aborted: it must not be answered.
        """
        try:
            task = self.tasks.enter(command)
        except KeyError:
            return Completion(Status.CHECK_CONDITION, OVERLAPPED_COMMANDS.encoded(self.modes.descriptor_sense))
        if task is None:
            return Completion(Status.TASK_SET_FULL)
        exchange = Exchange(command, command.cdb)
        operation: Operation[Any] | None = None
        try:
            if task.blocked_by:
                await wait_for_all(task.blocked_by)
                task.blocked_by = []
            operation = self._admitted(exchange)
            waiting = operation.handler(self, exchange)
            if waiting is not None:
                await waiting
            end = exchange.completion()
        except CheckError as error:
            end = self._check(exchange, error.sense)
        except ConflictError:
            end = exchange.completion(Status.RESERVATION_CONFLICT)
        except BlockError as error:
            end = self._not_moved(exchange, error, writing=operation is not None and operation.writes)
        except asyncio.CancelledError:
            if task.aborted and task.owner.uncancel() == 0:
                return None
            raise
        except Exception:
            self._report(command)
            end = self._check(exchange, INTERNAL_FAILURE)
        finally:
            self.tasks.leave(task)
        return None if task.aborted else end

    def attention(self, sense: Sense, but: str | None = None, only: str | None = None) -> None:
        """Have a unit attention for each initiator once, with the exception of one, or for a single one."""
        for name, pending in self.attentions.items():
            if name != but and only in (None, name):
                pending[sense] = None

    def pending(self, initiator: str) -> Sense | None:
        """Take the first unit attention of an initiator."""
        pending = self._met(initiator)
        if not pending:
            return None
        first = next(iter(pending))
        del pending[first]
        return first

    def requested_sense(self, initiator: str) -> Sense:
        """Return what REQUEST SENSE reports: a unit attention, which is taken with it, or that there is nothing."""
        return self.pending(initiator) or NO_SENSE

    def reset(self, sense: Sense) -> None:
        """Be as after power-on, with the exception of persistent reservations; the commands have been aborted (SAM-5 6.3.3)."""
        self.reservations.reserved_by = None
        self.modes.reset()
        for pending in self.attentions.values():
            pending.clear()
            pending[sense] = None

    def nexus_lost(self, initiator: str) -> None:
        """Forget what an initiator has only as long as it is connected; its commands have been aborted (SAM-5 6.3.4)."""
        if self.reservations.reserved_by == initiator:
            self.reservations.reserved_by = None
        self.attentions.pop(initiator, None)

    def modes_changed(self, initiator: str) -> None:
        """Note that an initiator has changed mode pages."""
        self.attention(MODE_CHANGED, but=initiator)

    def mode_flags(self) -> int:
        """Return the device-specific parameter of the mode parameter header."""
        return 0

    def block_descriptor(self, long: bool) -> bytes:
        """Return the block descriptor of the mode parameters, or nothing if the kind has none."""
        return b""

    def check_medium(self) -> None:
        """Raise CheckError, unless there is a medium that is ready."""

    def _report(self, command: Command) -> None:
        """Log an error of ours, once for each operation code: the guest decides how often it comes."""
        if command.cdb[0] not in self._reported:
            self._reported.add(command.cdb[0])
            log.exception("a SCSI command failed for a reason of our own", cdb=command.cdb[:16].hex(), lun=command.lun)

    def _admitted(self, exchange: Exchange) -> Operation[Any]:
        """The operation of a command that may run."""
        operation = self.table.find(exchange.cdb)
        if not operation.through_attention and self._met(exchange.initiator):
            attention = self.pending(exchange.initiator)
            if attention is not None:
                raise CheckError(attention)
        reservations = self.reservations
        if not reservations.idle and reservations.conflict(exchange.initiator, operation.access):
            raise ConflictError
        if operation.medium:
            self.check_medium()
        return operation

    def _met(self, initiator: str) -> dict[Sense, None]:
        """The unit attentions of an initiator; at the first command that is the one for power-on."""
        pending = self.attentions.get(initiator)
        if pending is None:
            pending = self.attentions[initiator] = {POWER_ON: None}
        return pending

    def _not_moved(self, exchange: Exchange, error: BlockError, *, writing: bool) -> Completion:
        if error.errno == errno.EBUSY:  # The device is on its way to another host: the initiator tries again.
            return exchange.completion(Status.BUSY)
        return self._check(exchange, sense_of(error, writing=writing))

    def _check(self, exchange: Exchange, sense: Sense) -> Completion:
        return exchange.completion(Status.CHECK_CONDITION, sense.encoded(self.modes.descriptor_sense))
