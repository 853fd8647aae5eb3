# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be asked of the gateway, and what it takes: ROUTES. docs/web.md describes the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gateway_service.authorization import Action
from gateway_service.console_socket import console_socket
from gateway_service.status_socket import status_socket
from gateway_service.trees import TooLargeError, diff_json, revision_json, tree_json
from gateway_service.web_app import Call, Route, error_response, json_response
from splitvisor.net.pages import every_aio
from splitvisor.process.logging import get_logger
from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc, machine_pb2, machine_pb2_grpc
from splitvisor.tree.fdt import FdtError

RPC_SECONDS = 10.0
_MAX_REVISION = 1 << 63
_LISTED = ("vm", "name", "state", "detail", "uptime_seconds", "consoles")

_log = get_logger(__name__)


async def list_vms(call: Call) -> web.Response:
    """The VMs that the token is for, each with its status, and what may be done with them."""
    vms = await call.gateway.vms(call.principal)
    statuses = await asyncio.gather(*(call.gateway.board.shown(vm, call.principal) for vm in vms))
    return json_response(
        {
            "you": {
                "name": call.principal.name,
                "role": call.principal.role,
                "may": [action.name.lower() for action in Action if call.principal.may(action)],
            },
            "vms": [{key: status[key] for key in _LISTED if key in status} for status in statuses],
        }
    )


def _control(rpc: str, request: Callable[..., Any]) -> Callable[[Call], Awaitable[web.Response]]:
    async def control(call: Call) -> web.Response:
        stub = machine_pb2_grpc.MachineServiceStub(call.gateway.channels.channel(call.the_vm, "cpu"))
        await getattr(stub, rpc)(request(vm=call.the_vm.name), timeout=RPC_SECONDS)
        _log.info("machine controlled", rpc=rpc, vm=call.the_vm.name, by=call.principal.name)
        return json_response({})

    return control


async def revisions(call: Call) -> web.Response:
    """The revisions of a VM's device tree, the newest first."""
    request = device_tree_pb2.ListRevisionsRequest(vm=call.the_vm.name)
    found = await every_aio(_trees(call).ListRevisions, request, RPC_SECONDS)
    return json_response({"revisions": [revision_json(each) for each in found]})


async def tree(call: Call) -> web.Response:
    """A whole tree."""
    answer = await _revision(call, call.request.match_info["revision"])
    return await _shown({"revision": revision_json(answer.revision)}, "root", lambda: tree_json(answer.blob))


async def diff(call: Call) -> web.Response:
    """What two revisions differ in."""
    before = await _revision(call, call.request.query.get("from", ""))
    after = await _revision(call, call.request.query.get("to", ""))
    sides = {"from": revision_json(before.revision), "to": revision_json(after.revision)}
    return await _shown(sides, "changes", lambda: diff_json(before.blob, after.blob))


def _trees(call: Call) -> device_tree_pb2_grpc.DeviceTreeServiceAsyncStub:
    return device_tree_pb2_grpc.DeviceTreeServiceStub(call.gateway.channels.channel(call.the_vm, "hcall"))


async def _revision(call: Call, text: str) -> device_tree_pb2.GetTreeResponse:
    if not text.isascii() or not text.isdecimal() or len(text) > 20 or int(text) >= _MAX_REVISION:
        raise web.HTTPBadRequest(reason="a revision is a number; 0 is the head")
    request = device_tree_pb2.GetTreeRequest(vm=call.the_vm.name, revision=int(text))
    return await _trees(call).GetTree(request, timeout=RPC_SECONDS)


async def _shown(content: dict[str, Any], key: str, make: Callable[[], Any]) -> web.Response:
    """Answer with content and what make returns, which takes its time."""
    try:
        return await asyncio.to_thread(lambda: json_response({**content, key: make()}))
    except (FdtError, TooLargeError) as error:
        return error_response(422, f"cannot be shown: {error}")


ROUTES = (
    Route("GET", "/api/vms", list_vms, Action.LIST),
    Route("GET", "/api/vms/{vm}/status", status_socket, Action.LIST, socket=True),
    Route("GET", "/api/vms/{vm}/console", console_socket, Action.READ_CONSOLE, socket=True),
    Route("GET", "/api/vms/{vm}/revisions", revisions, Action.READ_TREE),
    Route("GET", "/api/vms/{vm}/trees/{revision}", tree, Action.READ_TREE),
    Route("GET", "/api/vms/{vm}/diff", diff, Action.READ_TREE),
    Route("POST", "/api/vms/{vm}/pause", _control("PauseMachine", machine_pb2.PauseMachineRequest), Action.CONTROL),
    Route("POST", "/api/vms/{vm}/resume", _control("ResumeMachine", machine_pb2.ResumeMachineRequest), Action.CONTROL),
    Route("POST", "/api/vms/{vm}/reset", _control("ResetMachine", machine_pb2.ResetMachineRequest), Action.CONTROL),
    Route("POST", "/api/vms/{vm}/stop", _control("StopMachine", machine_pb2.StopMachineRequest), Action.CONTROL),
)
