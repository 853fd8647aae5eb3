# SPDX-License-Identifier: GPL-2.0-or-later
"""The page itself, and how a browser signs in: a token in the URL or in a form becomes a session in a cookie."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import hdrs, web

from gateway_service.sessions import SESSION_SECONDS
from gateway_service.web_app import STATIC, Gateway

_MAX_TOKEN = 1000


def pages(gateway: Gateway) -> Sequence[web.RouteDef]:
    """Return what can be asked for without being known."""

    def sign_in(token: str) -> web.Response:
        credential = gateway.sessions.by_token(token[:_MAX_TOKEN])
        if gateway.sessions.principal(credential) is None:
            return _page("login.html", 401)
        # 303: the token leaves the address bar, and a reload does not send it again.
        response = web.Response(status=303, headers={hdrs.LOCATION: "/", hdrs.CACHE_CONTROL: "no-store"})
        response.set_cookie(
            gateway.cookie, gateway.sessions.begin(credential), max_age=SESSION_SECONDS, httponly=True, samesite="Strict",
            secure=gateway.site.secure,
        )  # fmt: skip
        return response

    async def index(request: web.Request) -> web.Response:
        if "token" in request.query:
            return sign_in(request.query["token"])
        credential = gateway.credential(request)
        known = credential is not None and gateway.sessions.principal(credential) is not None
        return _page("index.html", 200) if known else _page("login.html", 401)

    async def login(request: web.Request) -> web.Response:
        return sign_in(str((await request.post()).get("token", "")))

    async def logout(request: web.Request) -> web.Response:
        gateway.sessions.end(request.cookies.get(gateway.cookie, ""))
        response = web.Response(status=303, headers={hdrs.LOCATION: "/"})
        response.del_cookie(gateway.cookie)
        return response

    return [web.get("/", index), web.post("/login", login), web.post("/logout", logout)]


def _page(name: str, status: int) -> web.Response:
    text = (STATIC / name).read_text("utf-8")
    return web.Response(text=text, content_type="text/html", status=status, headers={hdrs.CACHE_CONTROL: "no-store"})
