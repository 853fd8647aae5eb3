# SPDX-License-Identifier: GPL-2.0-or-later
"""START STOP UNIT of a disk, whose medium stays in (SBC-3 5.25)."""

from __future__ import annotations

from typing import Any

from splitvisor.scsi.command import Exchange
from splitvisor.scsi.disk_unit import DiskUnit
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.sense import INVALID_FIELD_IN_CDB, CheckError

START = 0x01
LOAD_EJECT = 0x02
_NO_FLUSH = 0x04


async def _start_stop(disk: DiskUnit, exchange: Exchange) -> None:
    """Start or stop the disk. To stop one writes its cache, unless NO_FLUSH asks for less."""
    flags = exchange.cdb[4]
    if flags & LOAD_EJECT:
        raise CheckError(INVALID_FIELD_IN_CDB.at(4, 1))
    if flags & START:
        disk.stopped = False
        return
    if not flags & _NO_FLUSH:
        await disk.device.flush()
    disk.stopped = True


DISK_START_STOP = Operation[Any](0x1B, "START STOP UNIT", _start_stop, "01 00 00 07 00", access=Access.WRITE, writes=True)
