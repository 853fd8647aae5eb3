# SPDX-License-Identifier: GPL-2.0-or-later
"""A drive for CD-ROM and DVD-ROM (MMC-6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from splitvisor.block.device import BlockDevice
from splitvisor.scsi import (
    cd_disc,
    cd_features,
    cd_tray,
    inquiry,
    mode_commands,
    opcode_reports,
    primary,
    reserve,
    transfers,
    verification,
)
from splitvisor.scsi.cd_unit import CdUnit
from splitvisor.scsi.codes import DeviceType
from splitvisor.scsi.mode_pages import ERROR_RECOVERY, ModePage, control_page
from splitvisor.scsi.operations import OperationTable
from splitvisor.scsi.unit import Identity


class CdRom(CdUnit):
    """A drive.

    Args:
        medium: what is in it; without, it is empty. It stays the caller's to close, after `change()` or `Target.remove()`.
        identity: the drive's serial number.
    """

    device_type = DeviceType.CDROM
    product = "CD-ROM"
    removable = True
    version_descriptors = (*CdUnit.version_descriptors, 0x04E0)
    table: ClassVar[OperationTable[Any]] = OperationTable(
        (
            primary.TEST_UNIT_READY,
            primary.REQUEST_SENSE,
            primary.REPORT_LUNS,
            primary.SEND_DIAGNOSTIC,
            inquiry.INQUIRY,
            opcode_reports.REPORT_OPERATIONS,
            opcode_reports.REPORT_TASK_FUNCTIONS,
            *mode_commands.MODE_COMMANDS,
            *reserve.RESERVE_COMMANDS,
            *cd_tray.COMMANDS,
            *cd_disc.COMMANDS,
            cd_features.GET_CONFIGURATION,
            transfers.READ_10,
            transfers.READ_12,
            verification.VERIFY_10,
        )
    )
    vpd_pages: ClassVar[Mapping[int, Callable[[Any], bytes]]] = inquiry.COMMON_PAGES

    def __init__(self, medium: BlockDevice | None, identity: Identity) -> None:
        pages = (
            ModePage.of(ERROR_RECOVERY, 10, {}),
            control_page(software_write_protect=False),
            cd_features.CAPABILITIES_PAGE,
        )
        super().__init__(medium, identity, pages)
