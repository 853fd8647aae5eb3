# SPDX-License-Identifier: GPL-2.0-or-later
"""A back end of VIO devices as a program: traps from cpu_service, and VioBusService for adding and removing devices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from splitvisor.backend.serve import Backend
from splitvisor.backend.vio.device import DeviceKind
from splitvisor.backend.vio.hcall_client import HcallServiceClient
from splitvisor.backend.vio.session import HostSide, VioSession
from splitvisor.declarations.session import Session, Vm

if TYPE_CHECKING:
    import grpc.aio


@dataclass(frozen=True)
class VioOptions:
    """Settings on the command line of a back end of VIO devices."""

    device_tree: str = field(
        default="",
        metadata={
            "metavar": "ADDRESS",
            "help": "the hcall_service whose trees follow the bus; without it no device can be added to a running guest",
        },
    )


class VioBackend(Backend):
    """A back end of VIO devices.

    Args:
        name: as for Backend.
        kinds: the devices that it knows.
        host: makes what a VM's devices are plugged into; a HostSide that does nothing, unless given.

    Raises ValueError for an invalid name.
    """

    SERVICES = (*Backend.SERVICES, "splitvisor.control.v1.VioBusService")
    Options = VioOptions

    def __init__(
        self, name: str, kinds: Mapping[str, DeviceKind], host: Callable[[Vm], HostSide] = lambda _vm: HostSide()
    ) -> None:
        self._kinds, self._host = kinds, host
        super().__init__(name, self._session)

    def _session(self, vm: Vm, hcall_service: HcallServiceClient | None = None) -> Session:
        return VioSession(vm, self._kinds, self._host(vm), self.name, hcall_service)

    async def start(self, server: grpc.aio.Server, options: Any) -> Callable[[], Awaitable[None]]:
        """Add the servicers. Returns a function that ends the sessions."""
        from splitvisor.backend.vio.server import VioBusServicer
        from splitvisor.rpc import trap_pb2_grpc, vio_bus_pb2_grpc
        from splitvisor.trap.server import TrapServicer

        hcall_service = HcallServiceClient(options.device_tree) if options.device_tree else None
        traps = TrapServicer(self.name, lambda vm: self._session(vm, hcall_service))
        trap_pb2_grpc.add_TrapServiceServicer_to_server(traps, server)
        vio_bus_pb2_grpc.add_VioBusServiceServicer_to_server(VioBusServicer(traps), server)

        async def stop() -> None:
            await traps.close()
            if hcall_service is not None:
                await hcall_service.close()

        return stop
