# SPDX-License-Identifier: GPL-2.0-or-later
"""An NBD server that sends anything: the client's process stays as it is, its transfers end, and it stores only where it may."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

from splitvisor.block.buffers import Buffers
from splitvisor.block.disk import Disk
from splitvisor.block.nbd.address import NbdAddress
from splitvisor.block.nbd.device import Patience
from splitvisor.block.nbd.wire import REQUEST, Command
from splitvisor.block.open import DiskError, open_disk
from splitvisor.block.options import DiskOptions

INPUTS = int(os.environ.get("SPLITVISOR_FUZZ_INPUTS", "200"))
SIZE = 1 << 20
GUARD = 64
GROWTH_BYTES = 96 << 20
"""Of this process, at most: what a server says of a length must not be allocated."""


CONTENT = b"".join(bytes((index & 0xFF,)) * 512 for index in range(SIZE // 512))
"""What a server without mistakes has."""


def content(offset: int, length: int) -> bytes:
    """What it has at a place; behind its end too, as the client may be told of another one."""
    return CONTENT[offset : offset + length].ljust(length, b"\0")


class Server:
    """A server that is right until it is not."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.wrong_handshake = seed % 4 == 1
        self.wrong_replies = seed % 4 in (2, 3)
        self.is_wrong = self.wrong_handshake or self.wrong_replies
        self.structured = self.source.random() < 0.6
        self.connections: dict[asyncio.StreamWriter, asyncio.Task[Any]] = {}

    def spoil(self, data: bytes) -> bytes:
        """Return something like it."""
        source, raw = self.source, bytearray(data)
        for _ in range(source.randint(1, 3)):
            place = source.randrange(len(raw) + 1)
            match source.randrange(6):
                case 0:
                    raw[place : place + 1] = bytes((source.randrange(256),))
                case 1:
                    del raw[place : place + source.choice([1, 4, 100, 5000])]
                case 2:
                    raw[place:place] = source.randbytes(source.choice([1, 4, 16, 1000]))
                case 3:
                    raw[place : place + 4] = struct.pack(">I", source.choice([0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 20]))
                case 4:
                    raw[place : place + 8] = struct.pack(">Q", source.choice([0, 1, SIZE, SIZE - 1, (1 << 64) - 1, 1 << 63]))
                case _:
                    raw = bytearray(source.randbytes(source.choice([4, 20, 4096])))
        return bytes(raw)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        task = asyncio.current_task()
        assert task is not None
        self.connections[writer] = task
        try:
            await self._handshake(reader, writer)
            while True:
                _, _, command, cookie, offset, length = REQUEST.unpack(await reader.readexactly(REQUEST.size))
                if command == Command.DISCONNECT:
                    return
                if command == Command.WRITE:
                    await reader.readexactly(length)
                answer = self._answer(command, cookie, offset, length)
                if self.wrong_replies and self.source.random() < 0.3:
                    answer = self.spoil(answer)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            del self.connections[writer]

    async def end(self) -> None:
        """Close all connections."""
        tasks = list(self.connections.values())
        for writer in list(self.connections):
            writer.transport.abort()
        await asyncio.gather(*tasks)

    async def _handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(data: bytes) -> None:
            writer.write(self.spoil(data) if self.wrong_handshake and self.source.random() < 0.4 else data)

        send(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        await reader.readexactly(4)
        while True:
            option, length = struct.unpack(">8xII", await reader.readexactly(16))
            await reader.readexactly(length)
            if option == 8:
                send(struct.pack(">QIII", 0x3E889045565A9, 8, 1 if self.structured else 0x8000_0001, 0))
            else:
                for info in (struct.pack(">HQH", 0, SIZE, 0x6D), struct.pack(">HIII", 3, 1, 4096, 1 << 20)):
                    send(struct.pack(">QIII", 0x3E889045565A9, 7, 3, len(info)) + info)
                send(struct.pack(">QIII", 0x3E889045565A9, 7, 1, 0))
                return

    def _answer(self, command: int, cookie: int, offset: int, length: int) -> bytes:
        if command != Command.READ:
            return struct.pack(">IIQ", 0x67446698, 0, cookie)
        if not self.structured:
            return struct.pack(">IIQ", 0x67446698, 0, cookie) + content(offset, length)
        cut = self.source.randrange(length + 1)
        parts = [(place, end) for place, end in ((0, cut), (cut, length)) if place < end]
        self.source.shuffle(parts)
        chunks = b"".join(
            struct.pack(">IHHQIQ", 0x668E33EF, 0, 1, cookie, 8 + end - place, offset + place)
            + content(offset + place, end - place)
            for place, end in parts
        )
        return chunks + struct.pack(">IHHQI", 0x668E33EF, 1, 0, cookie, 0)


async def use(disk: Disk, source: random.Random, *, right: bool) -> int:
    """Make transfers at once. Returns how many failed; what a read stored beside its memory is found."""
    memories: list[tuple[int, int, bytearray]] = []

    async def read() -> None:
        length = source.choice([512, 4096, 65536, 300 * 512])
        offset = source.randrange((SIZE - length) // 512) * 512
        memory = bytearray(b"\xee" * (length + 2 * GUARD))
        memories.append((offset, length, memory))
        inner = memoryview(memory)[GUARD : GUARD + length]
        await disk.read(offset, Buffers([inner[:100], inner[100:]]))

    async def other() -> None:
        offset = source.randrange(SIZE // 512) * 512
        match source.randrange(4):
            case 0:
                await disk.write(offset, Buffers.of(content(offset, 512)))
            case 1:
                await disk.flush()
            case 2:
                await disk.discard(offset, 512)
            case _:
                await disk.write_zeroes(offset, 512, True)

    results = await asyncio.gather(*(read() if index % 3 else other() for index in range(12)), return_exceptions=True)
    assert all(result is None or isinstance(result, OSError) for result in results), results
    for _, length, memory in memories:
        assert memory[:GUARD] == memory[GUARD + length :] == b"\xee" * GUARD
    failed = sum(result is not None for result in results)
    if right:
        assert not failed
        assert all(memory[GUARD : GUARD + length] == content(offset, length) for offset, length, memory in memories)
    return failed


@pytest.mark.parametrize("batch", range(4))
def test_a_hostile_server(short_path: Path, batch: int) -> None:
    complaints: list[dict[str, Any]] = []
    served = refused = failed = 0

    async def case(seed: int) -> None:
        nonlocal served, refused, failed
        server = Server(seed)
        path = short_path / f"{seed}.sock"
        listening = await asyncio.start_unix_server(server.serve, path)
        options = DiskOptions(NbdAddress("", port=0, socket_path=str(path)))
        patience = Patience(lost=0.1, answer=0.1, dial=0.1) if server.is_wrong else None
        disk = None
        try:
            disk = await open_disk(options, patience=patience)
        except DiskError:
            refused += 1
        if disk is not None:
            served += 1
            failed += await use(disk, random.Random(seed), right=not server.is_wrong)
            await disk.close()
        listening.close()
        await server.end()

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        for seed in range(batch, INPUTS, 4):
            async with asyncio.timeout(30):
                await case(seed)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(test())
    assert complaints == []
    assert served
    assert (refused > 0) == (batch == 1)
    assert (failed > 0) == (batch > 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_BYTES >> 10
