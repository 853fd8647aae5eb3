# SPDX-License-Identifier: GPL-2.0-or-later
"""Browsers at consoles: a gateway process between WebSockets of our own and a real vio_service whose guest is scripted."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway_service.console_socket import HELD_BYTES, OUTPUT_WINDOW
from gateway_service.sockets import MAX_MESSAGE
from gateway_service.web_app import MAX_SOCKETS
from tests.component.console_harness import DEADLINE, VTY, Guest, VioServer
from tests.gateway_process import GatewayProcess, needs_xterm, token_table

pytestmark = needs_xterm

Talk = Callable[["Scene"], Awaitable[None]]


class Browser:
    """One console socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.output = b""
        self.skipped = 0
        self.opened: dict[str, Any] = {}

    async def message(self, kind: str) -> dict[str, Any]:
        """Return the next control message, which is of a kind; output before it is kept."""
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                self.output += message.data
                continue
            assert message.type is aiohttp.WSMsgType.TEXT, message
            content: dict[str, Any] = json.loads(message.data)
            assert content["type"] == kind, content
            return content

    async def expect(self, output: bytes) -> None:
        """Wait until all output is this."""
        while len(self.output) < len(output):
            message = await self.socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, message
            self.output += message.data
        assert self.output == output

    async def acknowledge(self) -> None:
        """Say that everything was shown."""
        await self.socket.send_str(json.dumps({"type": "ack", "bytes": len(self.output)}))

    async def read_to(self, position: int) -> None:
        """Read and acknowledge what there is before a position."""
        while len(self.output) + self.skipped < position:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                self.output += message.data
                await self.acknowledge()
            else:
                content = json.loads(message.data)
                assert content["type"] == "skipped", content
                self.skipped += content["bytes"]
        assert len(self.output) + self.skipped == position

    async def close_code(self) -> int:
        """Wait until the gateway closes; return why."""
        while (message := await self.socket.receive()).type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            pass
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return int(message.data)


class Scene:
    """A guest, its vio_service, and a gateway."""

    def __init__(self, vio: VioServer, guest: Guest, gateway: GatewayProcess, tokens: Path) -> None:
        self.vio = vio
        self.guest = guest
        self.gateway = gateway
        self.tokens = tokens

    @asynccontextmanager
    async def browser(self, token: str = "alice", client: str = "00000001", **query: str | int) -> AsyncIterator[Browser]:
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(self.gateway.origin, headers=headers) as session:
            parameters = {"client": client, "mode": "write", **query}
            async with session.ws_connect("/api/vms/vm/console", params=parameters, max_msg_size=0) as socket:
                browser = Browser(socket)
                browser.opened = await browser.message("opened")
                yield browser


TOKENS = token_table("alice", "console-write", "vm") + token_table("rita", "console-read", "*")


class Stage:
    """A gateway, and where the vio_service of each scene is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tokens = directory / "tokens.toml"
        self.tokens.write_text(TOKENS)
        addresses = f"cpu=unix:{directory}/no-cpu,hcall=unix:{directory}/no-hcall,vio=unix:{directory}/vio.sock"
        self.gateway = GatewayProcess(directory, "--connect", f"vm=vm,{addresses}", "--tokens", str(self.tokens))

    def play(self, talk: Talk) -> None:
        """Run a scene."""

        async def run() -> None:
            vio = VioServer(self.directory)
            await vio.start()
            try:
                async with asyncio.timeout(DEADLINE), Guest(vio.address) as guest:
                    await talk(Scene(vio, guest, self.gateway, self.tokens))
            finally:
                await vio.stop()

        self.tokens.write_text(TOKENS)
        asyncio.run(run())


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    directory = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    stage = Stage(directory)
    yield stage
    stage.gateway.end()
    shutil.rmtree(directory)


def test_a_browser_sees_what_came_before_types_and_is_told_what_arrived(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        scene.guest.post(b"before ")
        await scene.guest.settle()
        async with scene.browser() as browser:
            assert browser.opened["writer"]
            assert (browser.opened["position"], browser.opened["live"]) == (0, 7)
            await browser.expect(b"before ")
            scene.guest.post(b"after")
            await browser.expect(b"before after")
            await browser.socket.send_bytes(b"ls\r")
            assert await scene.guest.read(3) == b"ls\r"
            assert await browser.message("accepted") == {"type": "accepted", "bytes": 3}
            await browser.socket.send_str('{"type": "size", "rows": 24, "columns": 80}')
            await browser.socket.send_bytes(b"x" * MAX_MESSAGE)
            assert await scene.guest.read(MAX_MESSAGE) == b"x" * MAX_MESSAGE

    stage.play(talk)


def test_a_second_writer_reads_until_it_takes_over_and_the_first_is_told(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        async with scene.browser(client="00000001") as first, scene.browser(client="00000002") as second:
            assert not second.opened["writer"]
            assert "alice (web 00000001)" in second.opened["refusal"]
            await second.socket.send_bytes(b"!")
            assert await second.close_code() == aiohttp.WSCloseCode.POLICY_VIOLATION
            async with scene.browser(client="00000002", mode="take") as third:
                assert third.opened["writer"]
                ended = await first.message("ended")
                assert ended["reason"] == "taken-over"
                assert "alice (web 00000002)" in ended["text"]
                await third.socket.send_bytes(b"x")
                assert await scene.guest.read(1) == b"x"
            # The same page, after a lost connection that nobody has noticed yet, is no stranger to itself.
            async with scene.browser(client="00000003", mode="take"), scene.browser(client="00000003") as again:
                assert again.opened["writer"]

    stage.play(talk)


def test_a_role_that_only_reads_reads(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        for mode in ("write", "take", "read"):
            async with scene.browser("rita", mode=mode) as reader:
                assert not reader.opened["writer"]
                assert ("console-read" in reader.opened["refusal"]) == (mode != "read")
                assert reader.opened["input_window"] == 0
                scene.guest.post(mode.encode())
                await scene.guest.settle()
        async with scene.browser("rita", mode="read") as reader:
            await reader.expect(b"writetakeread")
            await reader.socket.send_bytes(b"!")
            assert await reader.close_code() == aiohttp.WSCloseCode.POLICY_VIOLATION

    stage.play(talk)


def test_after_a_lost_connection_nothing_is_missing_and_nothing_is_shown_twice(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        scene.guest.post(b"0123456789")
        async with scene.browser() as browser:
            await browser.expect(b"0123456789")
            instance = browser.opened["instance"]
        scene.guest.post(b"abc")
        await scene.guest.settle()
        async with scene.browser(instance=instance, position=10) as browser:
            assert (browser.opened["same"], browser.opened["position"], browser.opened["skipped"]) == (True, 10, 0)
            await browser.expect(b"abc")
        async with scene.browser(instance="7", position=10) as browser:
            assert not browser.opened["same"]
            await browser.expect(b"0123456789abc")

    stage.play(talk)


def test_a_slow_browser_slows_nobody_and_learns_what_it_missed(stage: Stage) -> None:
    size = 3 << 20
    """More than the gateway's window, every buffer on the way, and vio_service's backlog together."""

    async def talk(scene: Scene) -> None:
        async with scene.browser() as slow, scene.browser("rita", "00000002") as quick:
            received = 0

            async def follow() -> None:
                nonlocal received
                while received < size:
                    data = await quick.socket.receive_bytes()
                    received += len(data)
                    await quick.socket.send_str(json.dumps({"type": "ack", "bytes": received}))

            following = asyncio.create_task(follow())
            # In steps that a reader can follow: what is tested is that nobody waits for the slow one.
            for start in range(0, size, 1 << 18):
                scene.guest.post(b"x" * (1 << 18))
                await scene.guest.settle()
                while received < start:
                    await asyncio.sleep(0.001)
            await following
            while len(slow.output) <= OUTPUT_WINDOW:
                slow.output += await slow.socket.receive_bytes()
            assert len(slow.output) < 2 * OUTPUT_WINDOW, "more is under way than the browser acknowledged"
            await slow.acknowledge()
            await slow.read_to(size)
            missed = slow.skipped
            assert missed > 0
            scene.guest.post(b"!")
            await slow.read_to(size + 1)
            assert slow.skipped == missed
            assert slow.output.endswith(b"x!")
        # A browser that comes back too late learns how much it missed, too.
        scene.guest.post(b"y" * (3 << 19))
        await scene.guest.settle()
        async with scene.browser(instance=slow.opened["instance"], position=size + 1) as again:
            assert again.opened["same"]
            assert again.opened["skipped"] == again.opened["position"] - (size + 1) > 0
            await again.acknowledge()
            assert (await again.socket.receive_bytes())[:1] == b"y"

    stage.play(talk)


WRONG: tuple[str | bytes, ...] = (
    "", "nonsense", "[]", "{}", '{"type": "ack"}', '{"type": "ack", "bytes": 1}', '{"type": "ack", "bytes": -1}',
    '{"type": "ack", "bytes": true}', '{"type": "size", "rows": 1e3, "columns": 1}',
    '{"type": "size", "rows": 10000, "columns": 1}', '{"type": "shell"}', "[" * 10_000, b"x" * ((64 << 10) + 1),
)  # fmt: skip
"""Control messages that are none, and more input than the window takes."""


def test_what_breaks_the_protocol_ends_the_socket_and_nothing_else(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        async with scene.browser("rita", "00000009", mode="read") as witness:
            for message in WRONG:
                async with scene.browser() as browser:
                    if isinstance(message, str):
                        await browser.socket.send_str(message)
                    else:
                        for start in range(0, len(message), MAX_MESSAGE):
                            await browser.socket.send_bytes(message[start : start + MAX_MESSAGE])
                    assert await browser.close_code() == aiohttp.WSCloseCode.POLICY_VIOLATION, message[:40]
            async with scene.browser() as browser:
                await browser.socket.send_bytes(b"x" * (MAX_MESSAGE + 1))
                assert await browser.close_code() == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            scene.guest.post(b"still here")
            await witness.expect(b"still here")

    stage.play(talk)


def test_a_url_that_makes_no_sense_is_refused_with_the_reason(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        good = {"client": "00000001", "mode": "write", "unit": "0", "instance": "0", "position": "0"}
        headers = {"Authorization": "Bearer alice", "Upgrade": "websocket", "Connection": "Upgrade"}
        async with aiohttp.ClientSession(scene.gateway.origin, headers=headers) as session:
            for name, value in (
                ("client", ""), ("client", "0000000G"), ("client", "0" * 9), ("mode", "own"), ("unit", "-1"),
                ("unit", "0x71000000"), ("unit", str(1 << 32)), ("instance", str(1 << 64)),
                ("position", "9" * 5000), ("position", "\u0661"),
            ):  # fmt: skip
                async with session.get("/api/vms/vm/console", params={**good, name: value}) as answer:
                    assert answer.status == 400, (name, value)
                    assert "must be" in (reason := (await answer.json())["error"]) or "are decimal" in reason

    stage.play(talk)


def test_a_token_that_is_taken_back_ends_its_sockets(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        async with scene.browser() as browser, scene.browser("rita", "00000002") as other:
            # A file that cannot be read changes nothing, for whoever is in or comes.
            scene.tokens.write_text("nonsense")
            async with scene.browser("alice", "00000003", mode="read"):
                pass
            scene.tokens.write_text(token_table("rita", "console-read", "*"))
            assert await browser.close_code() == aiohttp.WSCloseCode.OK
            scene.guest.post(b"secret")
            await other.expect(b"secret")
            assert browser.output == b""
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with scene.browser():
                    pass
            assert refused.value.status == 401

    stage.play(talk)


def test_the_reasons_of_an_end_are_told(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        headers = {"Authorization": "Bearer alice"}
        async with aiohttp.ClientSession(scene.gateway.origin, headers=headers) as session:
            query = {"client": "00000001", "unit": "1"}
            async with session.ws_connect("/api/vms/vm/console", params=query) as socket:
                ended = await Browser(socket).message("ended")
                assert ended["reason"] == "not-found"
                assert "0x71000000" in ended["text"]
        async with scene.browser(unit=VTY) as browser:
            scene.guest.post(b"last words")
            await scene.guest.end()
            assert (await browser.message("ended"))["reason"] == "vm-ended"
            assert browser.output == b"last words"

    stage.play(talk)


def test_a_vio_service_that_is_restarted_is_another_console(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        async with scene.browser() as browser:
            await scene.vio.stop()
            assert (await browser.message("ended"))["reason"] in ("shutdown", "lost")
        await scene.vio.start()
        async with Guest(scene.vio.address) as guest, scene.browser(instance=browser.opened["instance"]) as again:
            assert not again.opened["same"]
            guest.post(b"new")
            await again.expect(b"new")

    stage.play(talk)


def test_sockets_are_counted(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        headers = {"Authorization": "Bearer rita"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(scene.gateway.origin, headers=headers, connector=connector) as session:
            open_sockets = [await session.ws_connect("/api/vms/vm/status") for _ in range(MAX_SOCKETS)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect("/api/vms/vm/status")
            assert refused.value.status == 503
            await open_sockets.pop().close()
            while True:
                try:
                    await (await session.ws_connect("/api/vms/vm/status")).close()
                    break
                except aiohttp.WSServerHandshakeError:
                    continue
            await asyncio.gather(*(socket.close() for socket in open_sockets))

    stage.play(talk)


def test_a_message_ends_between_two_sequences_and_what_is_unfinished_comes_with_the_end(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        async with scene.browser() as browser:
            scene.guest.post(b"a\x1b[3")
            await scene.guest.settle()
            await browser.expect(b"a")
            # Longer than vio_service waits for the rest.
            scene.guest.post(b"1mred")
            assert (await browser.socket.receive()).data == b"\x1b[31mred"
            long = b"\x1b]0;" + b"x" * 2 * HELD_BYTES
            scene.guest.post(long)
            browser.output = b""
            await browser.expect(long)
            scene.guest.post(b"\x07\xc3")
            assert (await browser.socket.receive()).data == b"\x07"
            await scene.guest.end()
            assert (await browser.socket.receive()).data == b"\xc3"
            assert (await browser.message("ended"))["reason"] == "vm-ended"

    stage.play(talk)


def test_input_that_the_guest_has_not_read_can_be_dropped(stage: Stage) -> None:
    async def talk(scene: Scene) -> None:
        async with scene.browser() as browser:
            await browser.socket.send_bytes(b"x" * 10_000)
            assert (await browser.message("accepted"))["bytes"] == 10_000
        async with scene.browser("rita", mode="read", discard=1) as reader:
            assert reader.opened["discarded"] == 0
        async with scene.browser(discard=1) as again:
            assert again.opened["discarded"] == 10_000
            await again.socket.send_bytes(b"ls")
            assert await scene.guest.read(2) == b"ls"
        async with scene.browser() as last:
            assert last.opened["discarded"] == 0

    stage.play(talk)
