# SPDX-License-Identifier: GPL-2.0-or-later
"""The gateway's HTTP application: what every request goes through before a handler of gateway_service/routes.py sees it.

In this order: the Host that was called, the Origin that calls, who it is, which VM, whether the role allows it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc.aio
from aiohttp import hdrs, web

from gateway_service.authorization import Action, Principal
from gateway_service.sessions import Credential, Sessions
from gateway_service.site import Site
from gateway_service.status import StatusBoard
from gateway_service.vms import Channels, Vm
from splitvisor.errors.status import problem_in
from splitvisor.net.addresses import AddressError
from splitvisor.net.channels import explain

STATIC: Final = Path(__file__).parent / "static"
MAX_REQUEST = 16 << 10
"""Bytes of a request's body."""
MAX_SOCKETS = 128
"""WebSockets at the same time."""

SECURITY_HEADERS: Final = {
    # xterm.js makes style elements; scripts come from here only, and nothing from elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Nothing for others; with no-referrer a form would not tell its Origin here either.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_HTTP_STATUS: Final = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


@dataclass(frozen=True)
class Call:
    """A request that may be answered."""

    gateway: Gateway
    request: web.Request
    credential: Credential
    principal: Principal
    vm: Vm | None

    @property
    def the_vm(self) -> Vm:
        """The VM; only for routes that name one."""
        assert self.vm is not None
        return self.vm


@dataclass(frozen=True)
class Route:
    """Something that can be asked for."""

    method: str
    path: str
    handler: Callable[[Call], Awaitable[web.StreamResponse]]
    action: Action
    """What the role must allow. A path with {vm} also asks for a VM that the token is for."""
    socket: bool = False
    """True: a WebSocket."""


class Gateway:
    """What handlers share."""

    def __init__(self, channels: Channels, sessions: Sessions) -> None:
        self.channels = channels
        self.sessions = sessions
        self.board = StatusBoard(channels)
        self.sockets: set[web.WebSocketResponse] = set()
        self._site: Site | None = None

    @property
    def site(self) -> Site:
        """How browsers call it; known once it listens."""
        assert self._site is not None
        return self._site

    @site.setter
    def site(self, site: Site) -> None:
        self._site = site

    @property
    def cookie(self) -> str:
        """The session's cookie: with the port, as gateways on one host share their cookies."""
        return "splitvisor-" + "".join(letter if letter.isalnum() else "-" for letter in self.site.url.partition("://")[2])

    def credential(self, request: web.Request) -> Credential | None:
        """Return what a request shows of who sent it."""
        authorization = request.headers.get(hdrs.AUTHORIZATION)
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            return self.sessions.by_token(token) if scheme.lower() == "bearer" else None
        session = request.cookies.get(self.cookie)
        return self.sessions.by_cookie(session) if session else None

    async def vms(self, principal: Principal) -> Sequence[Vm]:
        """Return the VMs that exist for somebody."""
        return [vm for vm in await self.channels.vms() if principal.knows(vm.name)]


def application(gateway: Gateway, routes: Sequence[Route], pages: Sequence[web.RouteDef]) -> web.Application:
    """Return the application.

    Args:
        gateway: for the handlers.
        routes: what needs somebody known.
        pages: what does not: how one becomes known.
    """
    app = web.Application(client_max_size=MAX_REQUEST, middlewares=[_checks(gateway)])
    app.add_routes(pages)
    for route in routes:
        app.router.add_route(route.method, route.path, _guarded(gateway, route))
    app.router.add_static("/static", STATIC)

    async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(SECURITY_HEADERS)
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-cache")

    app.on_response_prepare.append(add_headers)
    return app


def _checks(gateway: Gateway) -> Any:
    @web.middleware
    async def checks(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """Refuse requests that were led here by another site, and turn what handlers raise into answers."""
        refusal = _refusal(gateway.site, request)
        if refusal:
            return error_response(403, refusal)
        try:
            return await handler(request)
        except web.HTTPException as error:
            return error if error.status < 400 else error_response(error.status, error.reason)
        except AddressError as error:
            return error_response(502, str(error))
        except grpc.aio.AioRpcError as error:
            return error_response(_HTTP_STATUS.get(error.code(), 502), explain(error), problem_in(error).reason)

    return checks


def _refusal(site: Site, request: web.Request) -> str:
    """Return why a request is not for this site or comes from another one; nothing when all is well."""
    if request.headers.get(hdrs.HOST, "").lower() not in site.hosts:
        return f"this is {site.url}; call it by that name"
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None:
        return "" if origin.lower() in site.origins else f"this is {site.url}; pages of other sites may not use it"
    changes = request.method not in ("GET", "HEAD") or hdrs.UPGRADE in request.headers
    if changes and hdrs.AUTHORIZATION not in request.headers:
        return "a browser tells the Origin of such a request; programs show a token"
    return ""


def _guarded(gateway: Gateway, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        credential = gateway.credential(request)
        principal = gateway.sessions.principal(credential) if credential is not None else None
        if credential is None or principal is None:
            return error_response(401, "sign in, or show a token: Authorization: Bearer TOKEN")
        vm = None
        if "vm" in request.match_info:
            wanted = request.match_info["vm"]
            vm = next((vm for vm in await gateway.vms(principal) if vm.id == wanted), None)
            if vm is None:
                return error_response(404, f"no VM {wanted!r} here, or not for this token")
        if not principal.may(route.action):
            return error_response(403, f"the role {principal.role} may not {route.action}")
        if route.socket and len(gateway.sockets) >= MAX_SOCKETS:
            return error_response(503, f"{MAX_SOCKETS} WebSockets are open already")
        return await route.handler(Call(gateway, request, credential, principal, vm))

    return handle


def error_response(status: int, text: str, reason: str = "") -> web.Response:
    """Return an answer that says in one line what is wrong, and for programs the kind of problem when there is one."""
    return web.json_response({"error": text, **({"reason": reason} if reason else {})}, status=status)


def json_response(content: Any) -> web.Response:
    """Return an answer for the page."""
    text = json.dumps(content, separators=(",", ":"))
    return web.Response(text=text, content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"})
