# SPDX-License-Identifier: GPL-2.0-or-later
"""An opened network device: read takes a frame, write sends one, as a boot loader with a network of its own uses it."""

from __future__ import annotations

import structlog

from of_client_service.device_tree import Package
from of_client_service.instances import Instance
from of_client_service.network.exchange import NetworkError
from of_client_service.network.port import FramePort, close_arguments
from splitvisor.backend import Call, Vm
from splitvisor.papr.frame_access import MAX_FRAME, MIN_FRAME
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import state_pb2 as pb

NOTHING_TO_READ = -2
"""What read answers when no frame has arrived (IEEE 1275, network devices)."""
READ_WAIT_S = 0.01
"""How long read waits for a frame: its callers ask again at once, and the guest's processor has nothing else to do."""

log = structlog.get_logger()


class NetworkInstance(Instance):
    """A network device.

    Args:
        package: its package.
        path: see Instance.
        unit: its unit address.
    """

    def __init__(self, package: Package, path: str, unit: int) -> None:
        super().__init__(package, path)
        self.unit = unit

    async def read(self, vm: Vm, buffer: int, length: int) -> int | None:
        """Take a frame, -2 when none arrives; one that is longer than length is lost."""
        if not length:
            return 0
        room = min(length, MAX_FRAME)
        vm.memory.check(buffer, room)
        try:
            return await FramePort(vm, self.unit).transfer((0, 0), (buffer, room), READ_WAIT_S) or NOTHING_TO_READ
        except NetworkError as error:
            log.debug("a client could not read from a network device", device=self.path, reason=str(error))
            return None

    async def write(self, vm: Vm, call: Call, buffer: int, length: int) -> int | None:
        """Send a frame."""
        if not MIN_FRAME <= length <= MAX_FRAME:
            return None
        vm.memory.check(buffer, length)
        try:
            await FramePort(vm, self.unit).transfer((buffer, length), (0, 0))
        except NetworkError as error:
            log.debug("a client could not write to a network device", device=self.path, reason=str(error))
            return None
        return length

    def closed(self, call: Call) -> None:
        """See Instance: the device keeps no more frames."""
        call.post(Hcall.SPLITVISOR_H_FRAME, *close_arguments(self.unit))

    def save(self, state: pb.InstanceState) -> None:
        """See Instance."""
        state.network = self.unit
