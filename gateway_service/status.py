# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM does, as pages show it. Services are asked at most once a second, however many pages look."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc

from gateway_service.authorization import Action, Principal
from gateway_service.vms import Channels, Vm
from splitvisor.errors.status import NO_SUCH_MACHINE, problem_in
from splitvisor.net.addresses import AddressError
from splitvisor.net.channels import explain
from splitvisor.net.times import seconds
from splitvisor.rpc import console_pb2, console_pb2_grpc, machine_pb2, machine_pb2_grpc

INTERVAL_SECONDS = 1.0
"""How often a page gets a status."""
_FRESH_SECONDS = 0.9
"""How long one is good for others too; less than the interval, so that a page gets a new one each time."""
_ASK_SECONDS = 2.0
MAX_CONSOLES = 256
"""Consoles of a VM that are listed."""

Json = dict[str, Any]


@dataclass(frozen=True)
class _Asked:
    at: float
    task: asyncio.Task[Json]


class StatusBoard:
    """Asks services, and remembers for a moment."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._asked: dict[str, _Asked] = {}

    async def status(self, vm: Vm) -> Json:
        """Return all of a VM's status; services that do not answer show in it."""
        now = asyncio.get_running_loop().time()
        for key, old in list(self._asked.items()):
            if old.task.done() and now - old.at >= _FRESH_SECONDS:
                del self._asked[key]
        asked = self._asked.get(vm.id)
        if asked is None:
            asked = _Asked(now, asyncio.create_task(self._ask(vm)))
            self._asked[vm.id] = asked
        # Others wait for the same answer.
        return await asyncio.shield(asked.task)

    async def shown(self, vm: Vm, principal: Principal) -> Json:
        """Return as much of a VM's status as somebody may see."""
        status = await self.status(vm)
        return status if principal.may(Action.SEE_STATUS) else {key: status[key] for key in _FOR_EVERYBODY}

    async def _ask(self, vm: Vm) -> Json:
        machine, consoles = await asyncio.gather(self._machine(vm), self._consoles(vm))
        return {"vm": vm.id, "name": vm.name, "time": asyncio.get_running_loop().time(), **machine, "consoles": consoles}

    async def _machine(self, vm: Vm) -> Json:
        try:
            stub = machine_pb2_grpc.MachineServiceStub(self._channels.channel(vm, "cpu"))
            status = await stub.GetStatus(machine_pb2.GetStatusRequest(vm=vm.name), timeout=_ASK_SECONDS)
        except (grpc.aio.AioRpcError, AddressError) as error:
            absent = isinstance(error, grpc.aio.AioRpcError) and problem_in(error).reason == NO_SUCH_MACHINE
            return {**_NO_MACHINE, "state": "none" if absent else "unreachable", "detail": f"cpu_service: {_reason(error)}"}
        return {
            "state": machine_pb2.MachineState.Name(status.state).removeprefix("MACHINE_STATE_").lower().replace("_", "-"),
            "detail": status.detail,
            "uptime_seconds": seconds(status.uptime),
            "waiting_seconds": seconds(status.waiting),
            "resets": status.resets,
            "backends": [
                {"name": each.name, "address": each.address, "attached": each.attached, "reconnects": each.reconnects,
                 "ram_mapped": each.ram_mapped}
                for each in status.backends
            ],
            "calls": [
                {"name": each.name, "owner": each.owner, "count": each.count, "seconds": each.seconds} for each in status.calls
            ],
        }  # fmt: skip

    async def _consoles(self, vm: Vm) -> list[Json]:
        try:
            stub = console_pb2_grpc.ConsoleServiceStub(self._channels.channel(vm, "vio"))
            request = console_pb2.ListConsolesRequest(vm=vm.name, page_size=MAX_CONSOLES)
            answer = await stub.ListConsoles(request, timeout=_ASK_SECONDS)
        except (grpc.aio.AioRpcError, AddressError):
            return []  # That vio_service is away shows among the back ends.
        return [
            {"unit": each.unit_address, "output_bytes": each.output_bytes, "input_bytes": each.input_bytes,
             "readers": each.readers, "writer": each.writer}
            for each in answer.consoles[:MAX_CONSOLES]
        ]  # fmt: skip


_FOR_EVERYBODY = ("vm", "name", "time", "consoles")
_NO_MACHINE: Json = {"uptime_seconds": 0.0, "waiting_seconds": 0.0, "resets": 0, "backends": [], "calls": []}


def _reason(error: grpc.aio.AioRpcError | AddressError) -> str:
    return str(error) if isinstance(error, AddressError) else explain(error)
