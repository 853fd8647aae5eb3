# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk: a logical unit whose blocks can be written (SBC-3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from splitvisor.block.device import BlockDevice
from splitvisor.errors.problem import ProblemError
from splitvisor.scsi import (
    disk_description,
    inquiry,
    mode_commands,
    opcode_reports,
    persistent_in,
    persistent_out,
    primary,
    provisioning,
    read_modify_write,
    reserve,
    start_stop,
    transfers,
    verification,
)
from splitvisor.scsi.codes import DeviceType
from splitvisor.scsi.disk_unit import DiskUnit
from splitvisor.scsi.mode_pages import (
    CACHING,
    ERROR_RECOVERY,
    INFORMATIONAL_EXCEPTIONS,
    ModePage,
    control_page,
)
from splitvisor.scsi.operations import Operation, OperationTable
from splitvisor.scsi.unit import Identity

BLOCK_SIZES = (512, 4096)

_OPERATIONS: tuple[Operation[Any], ...] = (
    primary.TEST_UNIT_READY,
    primary.REQUEST_SENSE,
    primary.REPORT_LUNS,
    primary.SEND_DIAGNOSTIC,
    primary.LOG_SENSE,
    inquiry.INQUIRY,
    opcode_reports.REPORT_OPERATIONS,
    opcode_reports.REPORT_TASK_FUNCTIONS,
    *mode_commands.MODE_COMMANDS,
    *reserve.RESERVE_COMMANDS,
    *persistent_in.COMMANDS,
    *persistent_out.COMMANDS,
    start_stop.DISK_START_STOP,
    *disk_description.COMMANDS,
    *transfers.READS,
    *transfers.WRITES,
    *transfers.CACHE_COMMANDS,
    *verification.COMMANDS,
    *read_modify_write.COMMANDS,
    *provisioning.WRITE_SAMES,
)


class Disk(DiskUnit):
    """A disk.

    Args:
        device: has the blocks; it stays the caller's to close, after `Target.remove()`.
        identity: its serial number.
        block_bytes: the size of a logical block, 512 or 4096.

    Raises:
        BlockSizeError: another size, or one smaller than the device's own blocks.
    """

    device_type = DeviceType.DISK
    product = "DISK"
    version_descriptors = (*DiskUnit.version_descriptors, 0x04C0)
    table: ClassVar[OperationTable[Any]] = OperationTable(_OPERATIONS)
    thin_table: ClassVar[OperationTable[Any]] = OperationTable((*_OPERATIONS, *provisioning.THIN_COMMANDS))
    """Of a device that gives room back."""
    vpd_pages: ClassVar[Mapping[int, Callable[[Any], bytes]]] = {**inquiry.COMMON_PAGES, **disk_description.PAGES}

    def __init__(self, device: BlockDevice, identity: Identity, block_bytes: int = 512) -> None:
        if block_bytes not in BLOCK_SIZES or block_bytes % device.block_bytes:
            raise BlockSizeError(
                f"{device.name}: blocks of {block_bytes} bytes on a device with blocks of {device.block_bytes}",
                f"use one of {', '.join(map(str, BLOCK_SIZES))} that is at least as large",
            )
        cache = 0x04 if device.has_write_cache else 0
        pages = (
            # Automatic reallocation of both kinds: the host does what there is of it.
            ModePage.of(ERROR_RECOVERY, 10, {2: 0xC0}),
            ModePage.of(CACHING, 18, {2: cache}, {2: cache}),
            control_page(software_write_protect=True),
            ModePage.of(INFORMATIONAL_EXCEPTIONS, 10, {}),
        )
        super().__init__(device, identity, block_bytes, pages)
        if device.can_discard:
            self.table = self.thin_table  # type: ignore[misc]  # each disk has one of two


class BlockSizeError(ProblemError):
    """A block size that a disk cannot have."""
