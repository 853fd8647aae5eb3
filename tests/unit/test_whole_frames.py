# SPDX-License-Identifier: GPL-2.0-or-later
"""Who reads as much as there is finds whole frames, however slow it is."""

from __future__ import annotations

import asyncio
import random
import socket
import threading

from splitvisor.lan.framing import LENGTH
from splitvisor.lan.whole_frames import BUFFER_BYTES, WholeFrames

READ_BYTES = 8 << 20
"""As passt reads."""
WAIT_S = 60.0


def rest_of_last_frame(data: bytes) -> int:
    """Return how many bytes of a frame are missing at the end of a read that began with a frame; -1: of the length before it."""
    at = 0
    while at < len(data):
        if len(data) - at < LENGTH.size:
            return -1
        at += LENGTH.size + LENGTH.unpack_from(data, at)[0]
    return at - len(data)


def test_a_reader_never_finds_a_part_of_a_frame() -> None:
    numbers = random.Random(7)
    frames = [
        numbers.randbytes(numbers.choice((14, 60, 1514, 9014, numbers.randrange(14, BUFFER_BYTES - 4)))) for _ in range(4000)
    ]
    ours, theirs = socket.socketpair()
    theirs.settimeout(WAIT_S)
    total = sum(LENGTH.size + len(frame) for frame in frames)
    reads: list[bytes] = []

    def read() -> None:
        while sum(map(len, reads[-1:])) or not reads:
            reads.append(theirs.recv(READ_BYTES))

    async def send() -> None:
        whole = WholeFrames(ours)
        waited = 0
        for start in range(0, len(frames), 50):
            whole.write(LENGTH.pack(len(frame)) + frame for frame in frames[start : start + 50])
            waited += whole.waiting_bytes > 0
        async with asyncio.timeout(WAIT_S):
            while whole.waiting_bytes:
                await asyncio.sleep(0)
        assert waited, "the socket had room for all"
        whole.close()

    reader = threading.Thread(target=read)
    reader.start()
    asyncio.run(send())
    reader.join(WAIT_S)
    theirs.close()
    assert sum(map(len, reads)) == total
    assert {rest_of_last_frame(data) for data in reads} == {0}
    assert b"".join(reads) == b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)


def test_the_largest_frame_comes_in_two_buffers_of_its_own() -> None:
    ours, theirs = socket.socketpair()
    large, small = bytes(65_549), b"\1" * 60

    async def send() -> None:
        whole = WholeFrames(ours)
        whole.write(LENGTH.pack(len(frame)) + frame for frame in (small, large, small))
        assert whole.waiting_bytes == 0
        whole.close()

    asyncio.run(send())
    first = theirs.recv(LENGTH.size + len(small))
    assert rest_of_last_frame(first) == 0
    rest = theirs.recv(READ_BYTES)
    theirs.close()
    assert rest[LENGTH.size + len(large) :] == LENGTH.pack(len(small)) + small


def test_nothing_waits_for_a_reader_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()

    async def send() -> None:
        whole = WholeFrames(ours)
        whole.write([LENGTH.pack(14) + bytes(14)])
        assert whole.waiting_bytes == 0
        whole.close()
        whole.close()

    asyncio.run(send())
