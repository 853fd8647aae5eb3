# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire of a network device, whose own process carries the frames. To be used only inside handlers."""

from __future__ import annotations

from of_client_service.disks.scratch import BOUNCE_AT
from of_client_service.network.exchange import NetworkError
from splitvisor.backend import Vm
from splitvisor.papr.codes import H
from splitvisor.papr.frame_access import MAX_FRAME, MAX_WAIT_MS, FrameOperation, FrameRequest
from splitvisor.papr.hcall import Hcall

_SENT_AT, _RECEIVED_AT = BOUNCE_AT, BOUNCE_AT + 0x800
"""Where frames are in guest memory; each has less than 2 KiB."""


class FramePort:
    """A network device.

    Args:
        vm: the machine.
        unit: the device's unit address.
    """

    def __init__(self, vm: Vm, unit: int) -> None:
        self._vm, self.unit = vm, unit

    async def exchange(self, frame: bytes = b"", seconds: float = 0.0) -> bytes:
        """Send a frame, if it has bytes, and return the next that has arrived or arrives in time; none: empty.

        Returns sooner than asked for when a call does not last as long. Raises NetworkError.
        """
        memory = self._vm.memory
        if frame:
            await memory.write(_SENT_AT, frame)
        length = await self.transfer((_SENT_AT, len(frame)), (_RECEIVED_AT, MAX_FRAME), seconds)
        return await memory.read(_RECEIVED_AT, length) if length else b""

    async def transfer(self, sent: tuple[int, int], buffer: tuple[int, int], seconds: float = 0.0) -> int:
        """Do the same with guest memory: address and length of a frame, address and size of a buffer, either perhaps 0 bytes.

        Returns the bytes of the frame that is in the buffer now. Raises NetworkError.
        """
        wait_ms = min(max(int(seconds * 1000), 0), MAX_WAIT_MS)
        request = FrameRequest(self.unit, FrameOperation.EXCHANGE, *sent, *buffer, wait_ms)
        result, outputs = await self._vm.invoke(Hcall.SPLITVISOR_H_FRAME, *request.arguments())
        if result == H.RESOURCE:
            raise NetworkError("is in use by the operating system's driver")
        if result != H.SUCCESS or not outputs or outputs[0] > buffer[1]:
            code = f"H_{H(result).name}" if result in H._value2member_map_ else str(result)
            raise NetworkError(f"cannot be used by the firmware (its back end answers {code})")
        return outputs[0]

    async def close(self) -> None:
        """Let frames go that arrive from now on."""
        await self._vm.invoke(Hcall.SPLITVISOR_H_FRAME, *close_arguments(self.unit))


def close_arguments(unit: int) -> tuple[int, ...]:
    """Return the arguments of the call with which the firmware leaves a device."""
    return FrameRequest(unit, FrameOperation.CLOSE).arguments()
