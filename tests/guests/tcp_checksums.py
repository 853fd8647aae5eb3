# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes to a guest and back over TCP, compared by SHA-256; the host's side is a server on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from splitvisor.guests.commands import Commands

MIB = 1 << 20
TRANSFER_S, MIB_S = 300.0, 20.0
"""What a transfer may take, and each MiB of it more, on a busy machine."""
_FILE, _QUIET = "/tmp/tcp", "/tmp/quiet"


@dataclass
class Transfers:
    """What the server sends, and what it was sent."""

    data_port: int = 0
    """Who connects here gets the data."""
    sink_port: int = 0
    """Who connects here sends as much, and gets an empty line at first, at last the SHA-256 of it as a line."""
    digest: str = ""
    """SHA-256 of the data that is sent."""
    received: list[str] = field(default_factory=list)
    """SHA-256 of what each connection sent."""


@contextmanager
def transfer_server(mebibytes: int, host: str = "127.0.0.1") -> Iterator[Transfers]:
    """Serve that much of random data, the same each time; in a thread of its own."""
    data = random.Random(mebibytes).randbytes(mebibytes * MIB)
    transfers = Transfers(digest=hashlib.sha256(data).hexdigest())
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    ended = asyncio.Event()

    async def send(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # passt of Debian 12 resets a connection 24 s after its start unless this host has sent something.
        writer.write(b"\n")
        digest = hashlib.sha256()
        missing = len(data)
        while missing and (chunk := await reader.read(min(missing, MIB))):
            digest.update(chunk)
            missing -= len(chunk)
        transfers.received.append(digest.hexdigest())
        writer.write(f"{digest.hexdigest()}\n".encode())
        await writer.drain()
        writer.close()

    async def serve() -> None:
        async with await asyncio.start_server(send, host, 0) as source, await asyncio.start_server(receive, host, 0) as sink:
            transfers.data_port, transfers.sink_port = (server.sockets[0].getsockname()[1] for server in (source, sink))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10), "the server did not start"
    try:
        yield transfers
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


def tcp_checksums(commands: Commands, host: str, mebibytes: int) -> None:
    """Send data to the guest, and back; every byte must arrive there and here.

    Args:
        commands: the guest, whose network is up.
        host: the address under which the guest reaches the host's loopback, as of Lease.gateway.
        mebibytes: how much; the guest keeps it in memory.

    Raises AssertionError and CommandError.
    """
    seconds = TRANSFER_S + MIB_S * mebibytes
    # The guest's end is open as long as the host's: passt of Debian 12 loses data of a connection that one side has ended.
    commands.ok(f"[ -p {_QUIET} ] || mkfifo {_QUIET}")
    with transfer_server(mebibytes) as server:
        there = commands.ok(f"nc {host} {server.data_port} <>{_QUIET} >{_FILE} && sha256sum <{_FILE}", seconds).split()[0]
        assert there == server.digest, "what came to the guest is not what was sent"
        back = commands.ok(f"(exec 3<>{_QUIET}; cat {_FILE} >&3 & nc {host} {server.sink_port} <&3); rm {_FILE}", seconds)
        assert back == server.digest, "what came back to the host is not what was sent"
        assert server.received == [server.digest]
