# SPDX-License-Identifier: GPL-2.0-or-later
"""VioBusService: describes the VIO buses, and changes them while guests run."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from splitvisor.backend.vio.connector import Connector, State
from splitvisor.backend.vio.device import BusError, MediumLockedError, VioDevice
from splitvisor.backend.vio.hcall_client import HcallServiceClient, HcallServiceError
from splitvisor.backend.vio.hotplug import AddressTakenError, FixedDeviceError, NoSlotError, add_device, remove_device
from splitvisor.backend.vio.session import VioSession
from splitvisor.errors.problem import Problem
from splitvisor.errors.status import refuse
from splitvisor.net.pages import PageError, page_of
from splitvisor.net.times import seconds
from splitvisor.rpc import vio_bus_pb2 as pb
from splitvisor.rpc import vio_bus_pb2_grpc
from splitvisor.trap.server import TrapServicer

MAX_WAIT_S = 60.0

_CODES: dict[type[Exception], grpc.StatusCode] = {
    AddressTakenError: grpc.StatusCode.ALREADY_EXISTS,
    NoSlotError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FixedDeviceError: grpc.StatusCode.FAILED_PRECONDITION,
    MediumLockedError: grpc.StatusCode.FAILED_PRECONDITION,
    BusError: grpc.StatusCode.INVALID_ARGUMENT,
    HcallServiceError: grpc.StatusCode.UNAVAILABLE,
}


class VioBusServicer(vio_bus_pb2_grpc.VioBusServiceServicer):
    """Serves VioBusService for the VMs of a trap servicer.

    Args:
        traps: knows the VMs; its sessions are VioSessions.
    """

    def __init__(self, traps: TrapServicer) -> None:
        self._traps = traps

    async def ListBuses(self, request: pb.ListBusesRequest, context: Any) -> pb.ListBusesResponse:
        """See the contract."""
        try:
            page, token = page_of(sorted(self._traps.sessions()), str, request)
        except PageError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        return pb.ListBusesResponse(buses=[pb.Bus(vm=vm) for vm in page], next_page_token=token)

    async def DescribeBus(self, request: pb.DescribeBusRequest, context: Any) -> pb.DescribeBusResponse:
        """See the contract."""
        session = await self._session(request.vm, context)
        return pb.DescribeBusResponse(devices=[_describe(session, device) for device in session.bus.devices.values()])

    async def AddDevice(self, request: pb.AddDeviceRequest, context: Any) -> pb.AddDeviceResponse:
        """See the contract."""
        session = await self._session(request.vm, context)
        hcall_service = await _hcall_service(session, context)
        try:
            connector, parent = await add_device(session, hcall_service, request.device)
        except (BusError, HcallServiceError) as error:
            await refuse(context, _CODES[type(error)], error)
        device = connector.device
        assert device is not None
        await connector.wait(lambda it: it.device is not device or it.state is State.CONFIGURED, _wait_seconds(request.wait))
        return pb.AddDeviceResponse(
            device=_describe(session, device), interrupt_parent=parent.phandle, interrupt_parent_source=parent.source
        )

    async def RemoveDevice(self, request: pb.RemoveDeviceRequest, context: Any) -> pb.RemoveDeviceResponse:
        """See the contract."""
        session = await self._session(request.vm, context)
        hcall_service = await _hcall_service(session, context)
        device = await _device(session, request.unit_address, context)
        try:
            connector = await remove_device(session, hcall_service, request.unit_address)
        except (BusError, HcallServiceError) as error:
            await refuse(context, _CODES[type(error)], error)

        def settled(it: Connector) -> bool:
            return it.device is not device or not it.removal_asked

        await connector.wait(settled, _wait_seconds(request.wait))
        return pb.RemoveDeviceResponse(removed=connector.device is not device, connector=connector.describe())

    async def ChangeMedium(self, request: pb.ChangeMediumRequest, context: Any) -> pb.ChangeMediumResponse:
        """See the contract."""
        session = await self._session(request.vm, context)
        device = await _device(session, request.unit_address, context)
        try:
            await device.change_medium(request.drive, request.medium, force=request.force)
        except BusError as error:
            await refuse(context, _CODES[type(error)], error)
        return pb.ChangeMediumResponse(device=_describe(session, device))

    async def _session(self, vm: str, context: Any) -> VioSession[Any]:
        session = self._traps.session(vm)
        if not isinstance(session, VioSession):
            await refuse(context, grpc.StatusCode.NOT_FOUND, f"no VM {vm!r} is attached to this back end", "NO_SUCH_VM")
        return session


async def _device(session: VioSession[Any], unit_address: int, context: Any) -> VioDevice:
    device = session.bus.devices.get(unit_address)
    if device is None:
        await refuse(
            context, grpc.StatusCode.NOT_FOUND, f"VM {session.vm.name!r} has no device at {unit_address:#x}", "NO_DEVICE"
        )
    return device


async def _hcall_service(session: VioSession[Any], context: Any) -> HcallServiceClient:
    if session.hcall_service is None:
        problem = Problem("this back end does not know an hcall_service", "start it with --device-tree ADDRESS", "NO_PLATFORM")
        await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, problem)
    return session.hcall_service


def _wait_seconds(wait: Duration) -> float:
    return min(max(seconds(wait), 0.0), MAX_WAIT_S)


def _describe(session: VioSession[Any], device: VioDevice) -> pb.VioDevice:
    description = device.describe()
    description.node.CopyFrom(session.bus.node(device))
    connector = session.bus.connectors.at(device.unit_address)
    if connector is not None and connector.device is device:
        description.connector.CopyFrom(connector.describe())
    return description
