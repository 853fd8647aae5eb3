# SPDX-License-Identifier: GPL-2.0-or-later
"""The logical units that are always there: that of REPORT LUNS, and the one that answers for all that are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from splitvisor.scsi import inquiry, primary
from splitvisor.scsi.codes import DeviceType
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.operations import Operation, OperationTable
from splitvisor.scsi.sense import NO_SUCH_UNIT, CheckError, Sense
from splitvisor.scsi.unit import Identity, LogicalUnit


class WellKnownUnit(LogicalUnit):
    """The well-known logical unit REPORT LUNS (SPC-4 8.2)."""

    device_type = DeviceType.WELL_KNOWN
    product = "REPORT LUNS"
    table = OperationTable(
        (primary.TEST_UNIT_READY, primary.REQUEST_SENSE, inquiry.INQUIRY, primary.REPORT_LUNS),
    )
    vpd_pages = inquiry.COMMON_PAGES

    def __init__(self) -> None:
        super().__init__(Identity("report-luns"), ())


class AbsentUnit(LogicalUnit):
    """Answers for a number that no logical unit has: INQUIRY says so with 7Fh, most commands with an error (SPC-4 5.11)."""

    device_type = DeviceType.NONE
    product = ""
    table: ClassVar[OperationTable[Any]] = OperationTable((primary.REQUEST_SENSE, inquiry.INQUIRY, primary.REPORT_LUNS))
    vpd_pages: ClassVar[Mapping[int, Callable[[Any], bytes]]] = {}

    def __init__(self) -> None:
        super().__init__(Identity("absent"), ())

    def requested_sense(self, initiator: str) -> Sense:
        """Return that there is no unit."""
        return NO_SUCH_UNIT

    def _admitted(self, exchange: Exchange) -> Operation[Any]:
        if not exchange.cdb or not self.table.with_opcode(exchange.cdb[0]):
            raise CheckError(NO_SUCH_UNIT)
        return self.table.find(exchange.cdb)
