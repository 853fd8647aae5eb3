# SPDX-License-Identifier: GPL-2.0-or-later
"""A command of an initiator, its completion, and what it has moved while it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from splitvisor.block.buffers import Buffers
from splitvisor.scsi.codes import Status, TaskAttribute
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, PARAMETER_LIST_LENGTH, CheckError

NOTHING = Buffers(())
"""The buffers of a direction in which nothing moves."""


@dataclass(frozen=True, eq=False, slots=True)
class Initiator:
    """Who sends commands: reservations and unit attentions belong to one. Two with the same name are the same."""

    name: str
    transport_id: bytes = b""
    """Its TransportID (SPC-4 7.6.4), whole words; empty: one of SRP's format is made from the name."""

    def identifier(self) -> bytes:
        """Return the TransportID, for PERSISTENT RESERVE IN."""
        return self.transport_id or bytes((4, 0, 0, 0, 0, 0, 0, 0)) + hashlib.sha256(self.name.encode()).digest()[:16]


class Command(NamedTuple):
    """A command as its transport delivers it."""

    lun: int
    """The number of the logical unit, as the target knows it."""
    cdb: bytes
    """At least as long as its operation code says; what lies behind is not looked at."""
    initiator: Initiator
    tag: Hashable
    """Names the command among those of its initiator that have not ended."""
    data_out: Buffers = NOTHING
    """What the initiator sends."""
    data_in: Buffers = NOTHING
    """Where the initiator wants data: writable, often guest RAM itself."""
    attribute: TaskAttribute = TaskAttribute.SIMPLE


class Completion(NamedTuple):
    """The end of a command.

    A transport's residual is `data_in.length - moved_in` (underrun), or `wanted_in - data_in.length` if that is positive
    (overrun); likewise for the other direction.
    """

    status: Status
    sense: bytes = b""
    """With CHECK CONDITION: in the format that the control mode page says."""
    wanted_in: int = 0
    """Bytes that the CDB asked for and the logical unit has; data_in may have had room for fewer."""
    moved_in: int = 0
    """Bytes stored in data_in, from its start."""
    wanted_out: int = 0
    """Bytes that the CDB said it would send; data_out may have had fewer."""
    moved_out: int = 0
    """Bytes of data_out, from its start, that the logical unit has taken."""


@dataclass(eq=False, slots=True)
class Exchange:
    """A command that runs, and the data that it has moved."""

    command: Command
    cdb: bytes
    wanted_in: int = 0
    moved_in: int = 0
    wanted_out: int = 0
    moved_out: int = 0
    initiator: str = field(init=False)

    def __post_init__(self) -> None:
        self.initiator = self.command.initiator.name

    def number(self, offset: int, length: int) -> int:
        """Return a number of the CDB."""
        return int.from_bytes(self.cdb[offset : offset + length], "big")

    def reply(self, data: bytes, allocation: int) -> None:
        """Store data, as far as the CDB's allocation length and the buffers allow."""
        self.wanted_in = min(len(data), allocation)
        self.moved_in = self.command.data_in.store(data[: self.wanted_in])

    def parameters(self, length: int, at_most: int, field_at: int) -> bytes:
        """Return the parameter list.

        Args:
            length: that the CDB gives, in bytes.
            at_most: what a list of this command can need; more is refused.
            field_at: the byte of the CDB that has the length.

        Raises:
            CheckError: it is too long, or the initiator has sent less.
        """
        if length > at_most:
            raise CheckError(INVALID_FIELD_IN_CDB.at(field_at))
        self.wanted_out = length
        data = self.command.data_out.load(0, length)
        if len(data) < length:
            raise CheckError(PARAMETER_LIST_LENGTH)
        self.moved_out = length
        return data

    def completion(self, status: Status = Status.GOOD, sense: bytes = b"") -> Completion:
        """Return the end of the command with what has moved."""
        return Completion(status, sense, self.wanted_in, self.moved_in, self.wanted_out, self.moved_out)
