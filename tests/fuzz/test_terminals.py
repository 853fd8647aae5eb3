# SPDX-License-Identifier: GPL-2.0-or-later
"""Telnet connections and WebSockets that send nearly what they should: the service lives, and serves the next one.

SPLITVISOR_FUZZ_INPUTS sets how many there are of each (200), SPLITVISOR_FUZZ_SEED where they start.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import tempfile
from pathlib import Path

import aiohttp

from tests.component.console_harness import DEADLINE, BareServer, Guest, VioServer, run_bare
from tests.component.test_telnet import listening, port_of
from tests.gateway_process import GatewayProcess, needs_xterm, token_table

INPUTS = int(os.environ.get("SPLITVISOR_FUZZ_INPUTS", "200"))
SEED = int(os.environ.get("SPLITVISOR_FUZZ_SEED", "1"))
AT_ONCE = 8
IAC = 255
COMMANDS = (240, 241, 243, 244, 250, 251, 252, 253, 254, 255)
MESSAGES: tuple[object, ...] = (
    {"type": "ack", "bytes": 0}, {"type": "ack", "bytes": -1}, {"type": "ack", "bytes": 1 << 70}, {"type": "ack", "bytes": "x"},
    {"type": "size", "rows": 24, "columns": 80}, {"type": "size", "rows": -1, "columns": 1e300}, {"type": "size"},
    {"type": None}, {}, [], None, 7, "text", {"type": "ack", "bytes": [[[[]]]]}, {"type": "takeover"},
)  # fmt: skip
QUERIES: tuple[dict[str, str], ...] = (
    {}, {"mode": "write"}, {"mode": "read"}, {"mode": "\0"}, {"position": "-1"}, {"position": "9" * 400}, {"client": "x" * 3000},
    {"unit": "0x71000000"}, {"unit": "zz"}, {"instance": "1", "position": "7"},
)  # fmt: skip


def telnet_bytes(source: random.Random) -> bytes:
    """Commands, half of them, subnegotiations without an end, and text."""
    made = bytearray()
    for _ in range(source.randint(1, 40)):
        match source.randrange(4):
            case 0:
                made += bytes((IAC, source.choice(COMMANDS), source.randrange(256)))
            case 1:
                made += bytes((IAC, 250, source.choice((24, 31, 39)), *source.randbytes(source.randrange(300))))
            case 2:
                made += source.randbytes(source.randrange(64))
            case _:
                made += b"vm:0x71000000\r\n"
    return bytes(made)


def test_telnet_takes_whatever_comes() -> None:
    source = random.Random(SEED)

    async def one(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(telnet_bytes(source))
        if source.random() < 0.5:
            writer.write_eof()
            await reader.read(4096)
        writer.transport.abort()

    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest, listening(server, port_of(), port_of("vm")) as ports:
            for _ in range(INPUTS // AT_ONCE):
                await asyncio.gather(*(one(source.choice(ports)) for _ in range(AT_ONCE)))
            guest.post(b"still here\r\n")
            reader, writer = await asyncio.open_connection("127.0.0.1", ports[1])
            await reader.readuntil(b"still here\r\n")
            writer.close()
            await writer.wait_closed()

    run_bare(scenario)


@needs_xterm
def test_the_gateway_takes_whatever_a_browser_sends() -> None:
    source = random.Random(SEED)
    directory = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    tokens = directory / "tokens.toml"
    tokens.write_text(token_table("alice", "console-write", "vm"))
    addresses = f"cpu=unix:{directory}/no-cpu,hcall=unix:{directory}/no-hcall,vio=unix:{directory}/vio.sock"
    gateway = GatewayProcess(directory, "--connect", f"vm=vm,{addresses}", "--tokens", str(tokens))

    async def one(session: aiohttp.ClientSession) -> None:
        query = {"client": f"{source.randrange(1 << 32):08x}", **source.choice(QUERIES)}
        try:
            async with session.ws_connect("/api/vms/vm/console", params=query) as socket:
                for _ in range(source.randint(1, 12)):
                    if source.random() < 0.3:
                        await socket.send_bytes(source.randbytes(source.choice((0, 1, 3000, 70_000))))
                        continue
                    text = json.dumps(source.choice(MESSAGES))
                    place = source.randrange(len(text) + 1)
                    inserted = source.choice(("", *'{}[]",:\0é9'))
                    await socket.send_str(text[:place] + inserted + text[place:])
        except aiohttp.ClientError:  # Refused, or closed while this side was sending.
            pass

    async def scenario() -> None:
        vio = VioServer(directory)
        await vio.start()
        headers = {"Authorization": "Bearer alice"}
        try:
            async with (
                asyncio.timeout(DEADLINE + INPUTS), Guest(vio.address) as guest,
                aiohttp.ClientSession(gateway.origin, headers=headers) as session,
            ):  # fmt: skip
                for _ in range(INPUTS // AT_ONCE):
                    await asyncio.gather(*(one(session) for _ in range(AT_ONCE)))
                guest.post(b"still here")
                await guest.settle()
                query = {"client": "00000001", "mode": "write"}
                async with session.ws_connect("/api/vms/vm/console", params=query, max_msg_size=0) as socket:
                    seen = b""
                    while not seen.endswith(b"still here"):
                        message = await socket.receive()
                        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
                        seen += message.data if message.type is aiohttp.WSMsgType.BINARY else b""
        finally:
            await vio.stop()

    try:
        asyncio.run(scenario())
    finally:
        gateway.end()
        shutil.rmtree(directory)
