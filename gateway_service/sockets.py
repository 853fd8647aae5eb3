# SPDX-License-Identifier: GPL-2.0-or-later
"""What the gateway's WebSockets have in common: limits, pings, and that they end when their token is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSCloseCode, web

from gateway_service.authorization import Principal
from gateway_service.web_app import Call

MAX_MESSAGE = 16 << 10
"""Bytes of a message from a browser."""
PING_SECONDS = 15.0
"""How often a browser is pinged; one that does not answer in half of that is gone."""
ACCESS_SECONDS = 2.0
"""How often it is looked up whether the token is still good."""

Json = dict[str, Any]


class ProtocolError(Exception):
    """The other side breaks docs/web.md; the text says how."""


@asynccontextmanager
async def open_socket(call: Call) -> AsyncIterator[web.WebSocketResponse]:
    """Accept a WebSocket, and close it in the end."""
    # What aiohttp calls the largest size is the smallest that it refuses.
    socket = web.WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=MAX_MESSAGE + 1, compress=False, timeout=1.0)
    await socket.prepare(call.request)
    call.gateway.sockets.add(socket)
    try:
        yield socket
    except ProtocolError as error:
        await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode()[:120])
    except ConnectionError:
        pass  # The browser went away while it was sent something.
    finally:
        call.gateway.sockets.discard(socket)
        await socket.close()


async def run_first(*jobs: Awaitable[None]) -> None:
    """Run until the first of some jobs ends; the others are cancelled. Raises what that one raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def watch_access(call: Call) -> None:
    """Return once the token is no longer what it was when the socket was opened."""
    known: Principal | None = call.principal
    while known == call.principal:
        await asyncio.sleep(ACCESS_SECONDS)
        known = call.gateway.sessions.principal(call.credential)
