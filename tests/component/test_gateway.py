# SPDX-License-Identifier: GPL-2.0-or-later
"""The gateway as a process in front of real services with the demo guest: who gets in, what each role may, what it answers."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway_service.authorization import Role
from gateway_service.routes import ROUTES
from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc, machine_pb2, machine_pb2_grpc, trap_pb2
from tests.gateway_process import GatewayProcess, needs_xterm, token_table
from tests.services import start_services

pytestmark = needs_xterm

DEADLINE = 60.0
NAME = "demo-1"
STRANGER = "nothing-here"


class Stack:
    """A machine, its services, and a gateway with tokens that are called as their roles are."""

    def __init__(self, directory: Path) -> None:
        self.services = start_services(directory)
        names = {"hcall": "hcall_service", "vio": "vio_service", "of-client": "of_client_service"}
        backends = [machine_pb2.BackendAddress(name=name, address=self.services[flag].address) for flag, name in names.items()]
        config = machine_pb2.MachineConfig(
            name=NAME, memory_mib=256, vcpus=1, devices=[trap_pb2.DeviceSpec(kind="vty")], backends=backends
        )
        with grpc.insecure_channel(self.services["cpu"].address) as channel:
            stub = machine_pb2_grpc.MachineServiceStub(channel)
            stub.StartMachine(machine_pb2.StartMachineRequest(config=config), timeout=DEADLINE)
        tokens = directory / "tokens.toml"
        tokens.write_text(
            "".join(token_table(role, role, "demo-*") for role in Role) + token_table("elsewhere", "operator", "other-*")
        )
        addresses = ",".join(f"{name}={self.services[name].address}" for name in ("cpu", "hcall", "vio"))
        self.gateway = GatewayProcess(directory, "--connect", f"vm={NAME},{addresses}", "--tokens", str(tokens))

    def close(self) -> None:
        self.gateway.end()
        for service in self.services.values():
            service.end()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    directory = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    stack = Stack(directory)
    yield stack
    stack.close()
    shutil.rmtree(directory, ignore_errors=True)


def conversation(stack: Stack, talk: Callable[[aiohttp.ClientSession], Awaitable[None]], token: str = "") -> None:
    """Talk to the gateway, as who has a token."""

    async def run() -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        jar = aiohttp.CookieJar(unsafe=True)  # It has no cookies of plain addresses otherwise.
        session = aiohttp.ClientSession(stack.gateway.origin, headers=headers, cookie_jar=jar)
        async with asyncio.timeout(DEADLINE), session:
            await talk(session)

    asyncio.run(run())


async def next_json(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    while True:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            content: dict[str, Any] = json.loads(message.data)
            return content
        assert message.type is aiohttp.WSMsgType.BINARY, message


def test_a_token_in_the_url_becomes_a_session_in_a_cookie(stack: Stack) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        async with session.get("/?token=operator", allow_redirects=False) as answer:
            assert answer.status == 303
            assert answer.headers["Location"] == "/"
            [cookie] = answer.cookies.values()
            assert cookie["httponly"]
            assert cookie["samesite"] == "Strict"
            assert str(stack.gateway.port) in cookie.key
            assert "operator" not in cookie.value
        async with session.get("/") as answer:
            assert answer.status == 200
            assert "/static/main.js" in await answer.text()
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'; script-src 'self';" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["Cache-Control"] == "no-store"
        async with session.get("/api/vms") as answer:
            listed = await answer.json()
            assert listed["you"]["role"] == "operator"
            assert [(vm["vm"], vm["state"]) for vm in listed["vms"]] == [(NAME, "running")]
        async with session.post("/logout", headers={"Origin": stack.gateway.origin}, allow_redirects=False) as answer:
            assert answer.status == 303
        session.cookie_jar.update_cookies({cookie.key: cookie.value})
        async with session.get("/api/vms") as answer:
            assert answer.status == 401

    conversation(stack, talk)


def test_who_shows_no_good_token_gets_the_page_to_sign_in_and_nothing_else(stack: Stack) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        for path in ("/", "/?token=", "/?token=guessed", f"/?token={'x' * 5000}"):
            async with session.get(path) as answer:
                assert answer.status == 401
                assert "Token" in await answer.text()
                assert not answer.cookies
        for authorization in ("Bearer guessed", "Bearer", "Basic b3BlcmF0b3I6b3BlcmF0b3I=", "operator"):
            async with session.get("/api/vms", headers={"Authorization": authorization}) as answer:
                assert answer.status == 401
        async with session.post("/login", data={"token": "operator"}, headers={"Origin": stack.gateway.origin}) as answer:
            assert answer.status == 200
            assert "/static/main.js" in await answer.text()

    conversation(stack, talk)


def test_what_the_page_is_made_of_comes_from_here_with_its_type(stack: Stack) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        for path, kind in (
            ("main.js", "javascript"), ("app.css", "css"), ("vendor/xterm.mjs", "javascript"), ("icon.svg", "svg+xml"),
        ):  # fmt: skip
            async with session.get(f"/static/{path}") as answer:
                assert (answer.status, answer.content_type.partition("/")[2]) == (200, kind)
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for path in ("", "vendor", "../service.py", "%2e%2e/service.py", "/etc/passwd", "vendor/../../service.py"):
            async with session.get(f"/static/{path}") as answer:
                assert answer.status in (403, 404)

    conversation(stack, talk)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_name_that_is_not_the_gateways_is_refused(stack: Stack, host: str) -> None:
    """DNS rebinding: the browser believes that it talks to its attacker."""

    async def talk(session: aiohttp.ClientSession) -> None:
        for path in ("/", "/api/vms", "/static/main.js", "/?token=operator"):
            async with session.get(path, headers={"Host": host.format(port=stack.gateway.port)}) as answer:
                assert answer.status in (400, 403)
                assert not answer.cookies

    conversation(stack, talk, "operator")


def test_pages_of_other_sites_can_neither_change_nor_watch_anything(stack: Stack) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        async with session.get("/?token=operator"):
            pass
        own = stack.gateway.origin
        for origin in ("http://evil.example", own.replace("http", "https"), "null", f"{own}.evil.example", own[:-1]):
            for method, path in (("POST", f"/api/vms/{NAME}/stop"), ("POST", "/logout"), ("POST", "/login"), ("GET", "/api/vms")):
                async with session.request(method, path, headers={"Origin": origin}) as answer:
                    assert answer.status == 403, (origin, path)
            for what in ("status", "console?client=00000000"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(f"/api/vms/{NAME}/{what}", origin=origin)
                assert refused.value.status == 403
        # A browser that tells no Origin where it has to is none that we know.
        async with session.post(f"/api/vms/{NAME}/stop") as answer:
            assert answer.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"/api/vms/{NAME}/status")
        async with session.ws_connect(f"/api/vms/{NAME}/status", origin=own) as socket:
            assert (await next_json(socket))["state"] == "running"

    conversation(stack, talk)


MAY: dict[str, set[str]] = {
    "GET /api/vms": {"console-read", "console-write", "operator"},
    "GET /api/vms/{vm}/status": {"console-read", "console-write", "operator"},
    "GET /api/vms/{vm}/console": {"console-read", "console-write", "operator"},
    "GET /api/vms/{vm}/revisions": {"operator"},
    "GET /api/vms/{vm}/trees/{revision}": {"operator"},
    "GET /api/vms/{vm}/diff": {"operator"},
    "POST /api/vms/{vm}/pause": {"operator"},
    "POST /api/vms/{vm}/resume": {"operator"},
    "POST /api/vms/{vm}/reset": {"operator"},
    "POST /api/vms/{vm}/stop": {"operator"},
}
"""Written down once more: what a role may is changed in two places, or in none."""


def test_every_role_may_what_is_written_down_and_nothing_else(stack: Stack) -> None:
    assert {f"{route.method} {route.path}" for route in ROUTES} == MAY.keys()

    async def ask(session: aiohttp.ClientSession, route: Any, vm: str, token: str) -> int:
        path = route.path.format(vm=vm, revision="0") + ("?from=0&to=0" if route.path.endswith("diff") else "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if route.socket:
            try:
                async with session.ws_connect(f"{path}?client=00000000", headers=headers) as socket:
                    await next_json(socket)
                    return 200
            except aiohttp.WSServerHandshakeError as refused:
                return refused.status
        async with session.request(route.method, path, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def talk(session: aiohttp.ClientSession) -> None:
        for route in sorted(ROUTES, key=lambda route: route.path.endswith("stop")):
            allowed = MAY[f"{route.method} {route.path}"]
            for role in Role:
                expected = 200 if role in allowed else 403
                if not route.path.endswith("stop"):  # The others need the machine.
                    assert await ask(session, route, NAME, role) == expected, (route.path, role)
                elif expected == 403:
                    assert await ask(session, route, NAME, role) == 403, (route.path, role)
                if "{vm}" in route.path:
                    assert await ask(session, route, STRANGER, role) == 404
                    assert await ask(session, route, NAME, "elsewhere") == 404
            for token in ("", "guessed"):
                status = await ask(session, route, NAME, token)
                # Without a token it looks like a page of another site, which is refused first.
                assert status == (403 if not token and (route.method == "POST" or route.socket) else 401), (route.path, token)
        async with session.get("/api/vms", headers={"Authorization": "Bearer elsewhere"}) as answer:
            assert (await answer.json())["vms"] == []
        for role in Role:
            headers = {"Authorization": f"Bearer {role}"}
            async with session.get("/api/vms", headers=headers) as answer:
                [listed] = (await answer.json())["vms"]
            async with session.ws_connect(f"/api/vms/{NAME}/status", headers=headers) as socket:
                watched = await next_json(socket)
            for shown in (listed, watched):
                assert len(shown["consoles"]) == 1
                assert ("state" in shown) == (role is Role.OPERATOR)
            assert ("calls" in watched) == (role is Role.OPERATOR)

    conversation(stack, talk)


def test_an_operator_pauses_and_resumes_and_sees_it(stack: Stack) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(f"/api/vms/{NAME}/status") as socket:
            for action, state in (("pause", "paused"), ("resume", "running")):
                async with session.post(f"/api/vms/{NAME}/{action}") as answer:
                    assert answer.status == 200
                while (status := await next_json(socket))["state"] != state:
                    pass
            assert {backend["name"]: backend["attached"] for backend in status["backends"]} == {
                "hcall_service": True, "vio_service": True, "of_client_service": True,
            }  # fmt: skip
            calls = {call["name"]: call["count"] for call in status["calls"]}
            assert calls["H_OF_CLIENT"] > 0
            [console] = status["consoles"]
            assert console["unit"] == 0x71000000
            later = await next_json(socket)
            assert later["time"] > status["time"]
            assert later["uptime_seconds"] > status["uptime_seconds"]

    conversation(stack, talk, "operator")


def test_a_status_socket_takes_nothing(stack: Stack) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(f"/api/vms/{NAME}/status") as socket:
            await socket.send_str("hello")
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert message.data == aiohttp.WSCloseCode.POLICY_VIOLATION

    conversation(stack, talk, "console-read")


def test_trees_and_their_differences(stack: Stack) -> None:
    with grpc.insecure_channel(stack.services["hcall"].address) as channel:
        stub = device_tree_pb2_grpc.DeviceTreeServiceStub(channel)
        node = trap_pb2.TreeNode(path="/added", properties=[trap_pb2.TreeProperty(name="answer", value=b"\0\0\0\x2a")])
        stub.ChangeNodes(device_tree_pb2.ChangeNodesRequest(vm=NAME, add=[node]), timeout=DEADLINE)

    async def talk(session: aiohttp.ClientSession) -> None:
        async with session.get(f"/api/vms/{NAME}/revisions") as answer:
            revisions = (await answer.json())["revisions"]
        assert revisions[-1]["origin"] == "seed"
        assert revisions[0]["origin"] == "hotplug"
        first, last = revisions[-1]["number"], revisions[0]["number"]
        async with session.get(f"/api/vms/{NAME}/trees/0") as answer:
            shown = await answer.json()
        assert shown["revision"] == revisions[0]
        assert "added" in [child["name"] for child in shown["root"]["children"]]
        async with session.get(f"/api/vms/{NAME}/diff?from={first}&to={last}") as answer:
            changes = (await answer.json())["changes"]
        assert {"path": "/added", "name": "answer", "kind": "added", "before": None, "after": "<0x2a>"} in changes
        for path, status in (
            ("trees/999999", 404), ("trees/x", 400), ("trees/-1", 400), (f"trees/{'9' * 30}", 400), ("diff", 400),
            ("diff?from=1", 400), ("nothing", 404),
        ):  # fmt: skip
            async with session.get(f"/api/vms/{NAME}/{path}") as answer:
                assert answer.status == status, path
                assert (await answer.json())["error"]

    conversation(stack, talk, "operator")


def test_what_is_too_large_is_refused(stack: Stack) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        async with session.post("/login", data={"token": "x" * 100_000}, headers={"Origin": stack.gateway.origin}) as answer:
            assert answer.status == 413
        async with session.get(f"/?token={'x' * 20_000}") as answer:
            assert answer.status == 400
        async with session.get("/api/vms", headers={"X": "x" * 20_000}) as answer:
            assert answer.status == 400

    conversation(stack, talk, "operator")


def test_it_is_healthy_like_every_service(stack: Stack) -> None:
    with grpc.insecure_channel(stack.gateway.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE, wait_for_ready=True)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_service_that_is_away_shows_and_does_not_stop_the_page(stack: Stack, short_path: Path) -> None:
    alone = GatewayProcess(short_path, "--connect", "vm=lost,cpu=unix:/tmp/no-1,hcall=unix:/tmp/no-2,vio=unix:/tmp/no-3")

    async def run() -> None:
        headers = {"Authorization": f"Bearer {alone.token}"}
        async with asyncio.timeout(DEADLINE), aiohttp.ClientSession(alone.origin, headers=headers) as session:
            async with session.get("/api/vms") as answer:
                [vm] = (await answer.json())["vms"]
                assert vm["state"] == "unreachable"
                assert vm["detail"]
            for method, path in (("GET", "revisions"), ("POST", "pause")):
                async with session.request(method, f"/api/vms/lost/{path}") as answer:
                    assert answer.status in (502, 504)
                    assert (await answer.json())["error"]
            async with session.ws_connect("/api/vms/lost/console?client=00000000") as socket:
                assert (await next_json(socket))["reason"] == "lost"
            # With a socket open, the end is as quick.
            async with session.ws_connect("/api/vms/lost/status") as socket:
                await next_json(socket)
                alone.process.send_signal(signal.SIGTERM)
                while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
                assert message.data == aiohttp.WSCloseCode.GOING_AWAY

    try:
        asyncio.run(run())
    finally:
        assert alone.end() == 0
