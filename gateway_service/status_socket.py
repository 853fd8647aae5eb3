# SPDX-License-Identifier: GPL-2.0-or-later
"""The WebSocket of a VM's status: one message a second, and nothing from the browser."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from gateway_service.sockets import ProtocolError, open_socket, run_first, watch_access
from gateway_service.status import INTERVAL_SECONDS
from gateway_service.web_app import Call


async def status_socket(call: Call) -> web.StreamResponse:
    """Send a VM's status until the browser or the VM is gone."""
    async with open_socket(call) as socket:
        await run_first(_send(call, socket), _receive(socket), watch_access(call))
    return socket


async def _send(call: Call, socket: web.WebSocketResponse) -> None:
    # A browser that does not read delays only its own next status.
    while any(vm == call.vm for vm in await call.gateway.vms(call.principal)):
        await socket.send_json({"type": "status", **await call.gateway.board.shown(call.the_vm, call.principal)})
        await asyncio.sleep(INTERVAL_SECONDS)
    await socket.send_json({"type": "gone", "text": f"VM {call.the_vm.name!r} is no longer here"})


async def _receive(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            raise ProtocolError("a status socket takes no messages")
