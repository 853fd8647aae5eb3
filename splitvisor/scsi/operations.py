# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of operations: which commands a kind of logical unit has, what their CDBs may contain, and who does them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from splitvisor.scsi.command import Exchange
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, INVALID_OPCODE, CheckError

CDB_BYTES = (6, 10, 10, 0, 16, 12, 0, 0)
"""The length of a CDB by the upper three bits of its operation code (SPC-4 4.2.5.1); 0: none that a table has."""
SERVICE_ACTION = 0x1F
"""The bits of byte 1 that are the service action, where an operation has one."""

UnitT = TypeVar("UnitT")


class Access(Enum):
    """What an operation does, to a reservation of another initiator (SPC-4 table 48, SBC-3 table 13, SPC-2 table 9)."""

    FREE = "runs whatever is reserved"
    QUERY = "conflicts with RESERVE, never with a persistent reservation"
    READ = "conflicts with exclusive access"
    WRITE = "conflicts with every reservation"


@dataclass(frozen=True, eq=False)
class Operation(Generic[UnitT]):
    """A row of a table.

    Attributes:
        opcode: byte 0 of the CDB.
        name: as the standards have it.
        handler: does it, with the logical unit and the exchange; ends it otherwise than with GOOD by raising CheckError.
        usage: in hexadecimal, bytes 1 and following of the CDB: a bit that is set is looked at. One that is not must be 0, with
            the exception of the control byte's vendor bits. The service action is not part of it.
        service_action: of an operation code that has several.
        access: what it is to a reservation.
        medium: whether it needs a medium; without one it ends with NOT READY.
        writes: whether it changes the medium, so that a host's error is one of writing.
        through_attention: whether a unit attention waits for the next command (SAM-5 5.14): it is INQUIRY or one like it.
    """

    opcode: int
    name: str
    handler: Callable[[UnitT, Exchange], Awaitable[None] | None]
    usage: str
    service_action: int | None = None
    access: Access = Access.READ
    medium: bool = False
    writes: bool = False
    through_attention: bool = False

    def mask(self) -> bytes:
        """Return the CDB usage data of REPORT SUPPORTED OPERATION CODES (SPC-4 6.35.3)."""
        rest = bytearray(bytes.fromhex(self.usage))
        if self.service_action is not None:
            rest[0] |= self.service_action
        return bytes((self.opcode,)) + rest


class _Row(Generic[UnitT]):
    """An operation, prepared: what its CDB must not have."""

    __slots__ = ("forbidden", "length", "operation")

    def __init__(self, operation: Operation[UnitT]) -> None:
        self.operation = operation
        usage = bytearray(bytes.fromhex(operation.usage))
        self.length = len(usage) + 1
        if self.length != CDB_BYTES[operation.opcode >> 5]:
            raise ValueError(f"{operation.name}: {self.length} bytes of CDB usage")
        if operation.service_action is not None:
            usage[0] |= SERVICE_ACTION
        if self.length == 6:
            usage[0] |= 0xE0  # SCSI-2 has the logical unit's number there, and some initiators still do.
        usage[-1] |= 0xC0
        self.forbidden = int.from_bytes(bytes(byte ^ 0xFF for byte in usage), "big")

    def check(self, cdb: bytes) -> None:
        """Raise CheckError if a bit is set that the operation does not know."""
        wrong = int.from_bytes(cdb[1 : self.length], "big") & self.forbidden
        if wrong:
            from_end, bit = divmod(wrong.bit_length() - 1, 8)
            raise CheckError(INVALID_FIELD_IN_CDB.at(self.length - 1 - from_end, bit))


class OperationTable(Generic[UnitT]):
    """Finds operations by their CDB."""

    def __init__(self, operations: Iterable[Operation[UnitT]]) -> None:
        self._rows: dict[int, _Row[UnitT]] = {}
        self._services: dict[int, dict[int, _Row[UnitT]]] = {}
        for each in operations:
            row = _Row(each)
            if each.service_action is None:
                self._rows[each.opcode] = row
            else:
                self._services.setdefault(each.opcode, {})[each.service_action] = row

    def __iter__(self) -> Iterator[Operation[UnitT]]:
        rows = [*self._rows.values(), *(row for services in self._services.values() for row in services.values())]
        return iter(sorted((row.operation for row in rows), key=lambda each: (each.opcode, each.service_action or 0)))

    def find(self, cdb: bytes) -> Operation[UnitT]:
        """Return the operation of a CDB, after a look at every bit that it does not use.

        Raises:
            CheckError: there is none, the CDB is shorter than it must be, or it has a field that is not supported.
        """
        row = self._rows.get(cdb[0]) if cdb else None
        if row is None:
            services = self._services.get(cdb[0]) if cdb else None
            if services is None:
                raise CheckError(INVALID_OPCODE.at(0))
            row = services.get(cdb[1] & SERVICE_ACTION) if len(cdb) > 1 else None
            if row is None:
                raise CheckError(INVALID_FIELD_IN_CDB.at(1, 4))
        if len(cdb) < row.length:
            raise CheckError(INVALID_FIELD_IN_CDB.at(len(cdb)))
        row.check(cdb)
        return row.operation

    def with_opcode(self, opcode: int) -> list[Operation[UnitT]]:
        """Return the operations of an operation code."""
        if opcode in self._rows:
            return [self._rows[opcode].operation]
        return [row.operation for row in self._services.get(opcode, {}).values()]
