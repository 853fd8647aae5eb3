# SPDX-License-Identifier: GPL-2.0-or-later
"""A v-scsi adapter without SRP: it serves raw files to a firmware by SPLITVISOR_H_BLOCK. Run: python -m tests.block_back_end.

Options of the device: `units`, paths of files with the LUN's target number, ';' between them: "1:/tmp/disk;2:/tmp/cd.iso". A file
that ends in .iso is a CD-ROM drive's; one that is not there is a drive without a medium. A block size may follow: "1:disk:4096".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitvisor.backend import Call, Hypercall, Result, Vm
from splitvisor.backend.vio import DeviceKind, VioBackend, VioDevice, by_address, cells_property, kinds
from splitvisor.papr import block_access
from splitvisor.papr.block_access import BlockOperation, BlockRequest, BlockUnit
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall

BROKEN = "broken"
"""In a file's name: its blocks cannot be read."""


@dataclass(frozen=True)
class FileUnit:
    """A logical unit in a file."""

    path: Path
    unit: BlockUnit


def lun_of(target: int) -> int:
    """The 64-bit LUN of a target, as Linux and SLOF write it."""
    return (0x8000 | target << 8) << 48


class RawAdapter(VioDevice):
    """The adapter."""

    kind, node_name, device_type, compatible = "v-scsi", "v-scsi", "vscsi", "IBM,v-scsi"
    option_names = frozenset({"units"})

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        super().__init__(vm, unit_address, options)
        self.units: dict[int, FileUnit] = {}
        for text in filter(None, options.get("units", "").split(";")):
            target, path, *size = text.split(":")
            is_cd = path.endswith(".iso")
            block_bytes = int(size[0]) if size else 2048 if is_cd else 512
            length = os.path.getsize(path) if os.path.exists(path) else 0
            kind = block_access.CD_ROM if is_cd else block_access.DISK
            unit = BlockUnit(block_bytes, length // block_bytes, kind, read_only=is_cd)
            self.units[lun_of(int(target))] = FileUnit(Path(path), unit)

    def properties(self) -> list[Any]:
        return [cells_property("#address-cells", 2), cells_property("#size-cells", 0)]


async def access(session: Any, call: Call) -> Result | int:
    """SPLITVISOR_H_BLOCK."""
    request = BlockRequest.parse(call.arguments, session.vm.memory.size)
    adapter = None if request is None else session.bus.find(request.unit_address, RawAdapter)
    if request is None or adapter is None:
        return H.PARAMETER
    if request.operation is BlockOperation.LIST:
        data = b"".join(lun.to_bytes(8, "big") for lun in sorted(adapter.units))
        await session.vm.memory.write(request.address, data[: request.length])
        return Result(outputs=(len(adapter.units),))
    file: FileUnit | None = adapter.units.get(request.lun)
    if file is None or not file.path.exists():
        return H.PARAMETER if file is None else H.NOT_FOUND
    if request.operation is BlockOperation.DESCRIBE:
        return Result(outputs=file.unit.outputs())
    return await move(session.vm, file, request)


async def move(vm: Vm, file: FileUnit, request: BlockRequest) -> Result | int:
    """Read or write."""
    if request.offset % file.unit.block_bytes or request.length % file.unit.block_bytes or request.offset > file.unit.size:
        return H.PARAMETER
    if BROKEN in file.path.name:
        return H.HARDWARE
    length = min(request.length, file.unit.size - request.offset)
    if request.operation is BlockOperation.WRITE:
        if file.unit.read_only:
            return H.PERMISSION
        written = await vm.memory.read(request.address, length)
        with file.path.open("r+b") as opened:
            opened.seek(request.offset)
            opened.write(written)
    else:
        with file.path.open("rb") as opened:
            await vm.memory.write(request.address, os.pread(opened.fileno(), length, request.offset))
    return Result(outputs=(length,))


CALLS = (
    Hypercall(
        Hcall.SPLITVISOR_H_BLOCK,
        access,
        arguments=block_access.ARGUMENTS,
        section="private",
        key=by_address(RawAdapter),
    ),
)
KINDS = kinds(DeviceKind(RawAdapter, CALLS))

if __name__ == "__main__":
    VioBackend("disks", KINDS).serve()
