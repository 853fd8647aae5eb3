# SPDX-License-Identifier: GPL-2.0-or-later
"""SPLITVISOR_H_FRAME (splitvisor/papr/frame_access.py): frames for the firmware, which has no driver and no queue."""

from __future__ import annotations

from typing import Any

from splitvisor.backend import Call, Hypercall, Result
from splitvisor.backend.vio import by_address
from splitvisor.papr import frame_access
from splitvisor.papr.codes import H
from splitvisor.papr.frame_access import FrameOperation, FrameRequest
from splitvisor.papr.hcall import Hcall
from vio_service.devices.llan.device import LogicalLan


async def frame(session: Any, call: Call) -> Result | int:
    """Do what the arguments ask: unit address, operation, frame and length, buffer and size, milliseconds."""
    memory = session.vm.memory
    request = FrameRequest.parse(call.arguments, memory.size)
    device: LogicalLan | None = None if request is None else session.bus.find(request.unit_address, LogicalLan)
    if request is None or device is None:
        return H.PARAMETER
    if request.operation is FrameOperation.CLOSE:
        device.close_firmware_port()
        return H.SUCCESS
    port = await device.firmware_port()
    if port is None:
        return H.RESOURCE
    if request.length:
        device.send_for_firmware(await memory.read(request.address, request.length))
    received = await port.take(request.room, request.wait_ms / 1000) if request.room else b""
    if received:
        await memory.write(request.buffer, received)
    return H.RESOURCE if port.is_closed else Result(outputs=(len(received),))


CALLS = (
    Hypercall(
        Hcall.SPLITVISOR_H_FRAME,
        frame,
        arguments=frame_access.ARGUMENTS,
        section="private to Splitvisor",
        key=by_address(LogicalLan),
    ),
)
"""The call of a network device for the firmware."""
