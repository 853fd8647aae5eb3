# SPDX-License-Identifier: GPL-2.0-or-later
"""VioBusService: tells what is on the VIO buses."""

from __future__ import annotations

from typing import Any

import grpc

from splitvisor.rpc import vio_bus_pb2 as pb
from splitvisor.rpc import vio_bus_pb2_grpc
from splitvisor.trap_server import TrapServicer
from vio_service.bus import VioSession


class VioBusServicer(vio_bus_pb2_grpc.VioBusServiceServicer):
    """Serves VioBusService for the VMs of a trap servicer.

    Args:
        traps: knows the VMs; its sessions are VioSessions.
    """

    def __init__(self, traps: TrapServicer) -> None:
        self._traps = traps

    async def ListBuses(self, request: pb.ListBusesRequest, context: Any) -> pb.ListBusesResponse:
        """See the contract."""
        return pb.ListBusesResponse(vms=sorted(self._traps.sessions()))

    async def DescribeBus(self, request: pb.DescribeBusRequest, context: Any) -> pb.DescribeBusResponse:
        """See the contract."""
        session = self._traps.session(request.vm)
        if not isinstance(session, VioSession):
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details(f"no VM {request.vm!r} is attached to this vio_service")
            return pb.DescribeBusResponse()
        return pb.DescribeBusResponse(devices=[device.describe() for device in session.devices.values()])
