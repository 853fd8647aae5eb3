# SPDX-License-Identifier: GPL-2.0-or-later
"""SPLITVISOR_H_BLOCK (splitvisor/papr/block_access.py): reads and writes for the firmware, which has no driver and no queue."""

from __future__ import annotations

import errno

from splitvisor.backend import Call, Hypercall, Result
from splitvisor.backend.vio import VioSession, by_address
from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockError
from splitvisor.block.disk import Disk as Image
from splitvisor.papr import block_access
from splitvisor.papr.block_access import BlockOperation, BlockRequest, BlockUnit
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.scsi.cd_unit import CdUnit
from splitvisor.trap.memory import StreamMemory
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.vscsi.device import VScsi
from vio_service.devices.vscsi.luns import lun_of, number_of

STREAM_TRANSFER = 256 << 10
"""Bytes that one call moves when guest RAM is reached by the stream: larger messages are slower."""
_CD_BLOCK = 2048


async def block(session: VioSession[VmConsoles], call: Call) -> Result | int:
    """Do what the arguments ask: unit address, operation, LUN, offset, address, length."""
    request = BlockRequest.parse(call.arguments, session.vm.memory.size)
    device = None if request is None else session.bus.find(request.unit_address, VScsi)
    if request is None or device is None:
        return H.PARAMETER
    if request.operation is BlockOperation.LIST:
        luns = b"".join(lun_of(number).to_bytes(block_access.LUN_BYTES, "big") for number in sorted(device.target.units))
        room = request.length - request.length % block_access.LUN_BYTES
        await session.vm.memory.write(request.address, luns[:room])
        return Result(outputs=(len(device.target.units),))
    number = number_of(request.lun)
    unit, image = device.target.units.get(number), device.units.images.get(number)
    if unit is None:
        return H.PARAMETER
    if image is None or (isinstance(unit, CdUnit) and unit.tray_open):
        return H.NOT_FOUND
    size = _CD_BLOCK if isinstance(unit, CdUnit) else max(512, image.block_bytes)
    largest = STREAM_TRANSFER if isinstance(session.vm.memory, StreamMemory) else block_access.MAX_TRANSFER
    described = BlockUnit(size, image.size // size, unit.device_type, largest, image.read_only)
    if request.operation is BlockOperation.DESCRIBE:
        return Result(outputs=described.outputs())
    return await _move(session, request, image, described)


async def _move(session: VioSession[VmConsoles], request: BlockRequest, image: Image, unit: BlockUnit) -> Result | int:
    if request.offset % unit.block_bytes or request.length % unit.block_bytes or request.offset > unit.size:
        return H.PARAMETER
    length = min(request.length, unit.size - request.offset)
    try:
        if request.operation is BlockOperation.READ:
            data = bytearray(length)
            await image.read(request.offset, Buffers.of(data))
            await session.vm.memory.write(request.address, bytes(data))
        else:
            written = await session.vm.memory.read(request.address, length)
            await image.write(request.offset, Buffers.of(written))
    except BlockError as error:
        return H.PERMISSION if error.errno == errno.EROFS else H.HARDWARE
    return Result(outputs=(length,))


CALLS = (
    Hypercall(
        Hcall.SPLITVISOR_H_BLOCK,
        block,
        arguments=block_access.ARGUMENTS,
        section="private to Splitvisor",
        key=by_address(VScsi),
    ),
)
"""The call of an adapter for the firmware."""
