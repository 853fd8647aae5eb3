# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk says about itself: READ CAPACITY (SBC-3 5.15 and 5.16) and its pages of vital product data (SBC-3 6.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from splitvisor.scsi.block_unit import SCRATCH_BYTES
from splitvisor.scsi.command import Exchange
from splitvisor.scsi.disk_unit import DiskUnit
from splitvisor.scsi.operations import Access, Operation
from splitvisor.scsi.provisioning import MAX_SAME_BYTES, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS
from splitvisor.scsi.read_modify_write import max_compare_blocks

_NOT_ROTATING = 0x0001
_UNMAPS_AND_ZEROES = 0xE4
"""UNMAP, and WRITE SAME of both lengths unmap; what is unmapped reads as zeroes."""
_THIN = 0x02
_PHYSICAL_BYTES = 4096
"""What hosts transfer at least: a write of less is a read and a write to them."""


def _read_capacity_10(disk: DiskUnit, exchange: Exchange) -> None:
    last = min(disk.blocks - 1, 0xFFFFFFFF) if disk.blocks else 0
    exchange.reply(last.to_bytes(4, "big") + disk.block_bytes.to_bytes(4, "big"), 8)


def _read_capacity_16(disk: DiskUnit, exchange: Exchange) -> None:
    last = max(disk.blocks - 1, 0)
    exponent = (_PHYSICAL_BYTES // disk.block_bytes).bit_length() - 1
    provisioning = 0xC000 if disk.device.can_discard else 0
    data = last.to_bytes(8, "big") + disk.block_bytes.to_bytes(4, "big") + bytes((0, exponent)) + provisioning.to_bytes(2, "big")
    exchange.reply(data.ljust(32, b"\0"), exchange.number(10, 4))


def _block_limits(disk: DiskUnit) -> bytes:
    thin = disk.device.can_discard
    granularity = _PHYSICAL_BYTES // disk.block_bytes
    numbers = (
        (0x01, 1),  # WSNZ: WRITE SAME of no blocks is refused.
        (max_compare_blocks(disk), 1),
        (granularity, 2),
        (disk.max_blocks, 4),
        (SCRATCH_BYTES // disk.block_bytes, 4),  # A transfer of this length is as fast as there is any.
        (0, 4),
        (MAX_UNMAP_BLOCKS if thin else 0, 4),
        (MAX_UNMAP_DESCRIPTORS if thin else 0, 4),
        (granularity if thin else 0, 4),
        (0x80000000 if thin else 0, 4),  # The alignment is valid, and 0.
        (MAX_SAME_BYTES // disk.block_bytes, 8),
    )
    return b"".join(value.to_bytes(length, "big") for value, length in numbers).ljust(60, b"\0")


def _characteristics(disk: DiskUnit) -> bytes:
    return _NOT_ROTATING.to_bytes(2, "big").ljust(60, b"\0")


def _provisioning(disk: DiskUnit) -> bytes:
    return bytes((0, _UNMAPS_AND_ZEROES, _THIN, 0)) if disk.device.can_discard else bytes(4)


PAGES: Mapping[int, Callable[[Any], bytes]] = {0xB0: _block_limits, 0xB1: _characteristics, 0xB2: _provisioning}

COMMANDS: tuple[Operation[Any], ...] = (
    Operation(0x25, "READ CAPACITY(10)", _read_capacity_10, "00 00 00 00 00 00 00 00 00", access=Access.QUERY, medium=True),
    Operation(
        0x9E,
        "READ CAPACITY(16)",
        _read_capacity_16,
        "00 00 00 00 00 00 00 00 00 ff ff ff ff 00 00",
        service_action=0x10,
        access=Access.QUERY,
        medium=True,
    ),
)
