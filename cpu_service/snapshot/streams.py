# SPDX-License-Identifier: GPL-2.0-or-later
"""Between the machine's thread, which makes and takes snapshots, and the event loop, whose streams carry them. All is bounded."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from concurrent.futures import CancelledError

from splitvisor.machine.snapshot_file import SnapshotError

AHEAD = 8
"""Parts under way."""
READER_TIMEOUT_S = 10.0
"""How long a machine stands still for a reader that takes nothing."""
WRITER_TIMEOUT_S = 30.0
"""How long a restore waits for the next part."""


class SlowReaderError(Exception):
    """Who asked for a snapshot does not take it."""


class Outgoing:
    """Parts from a thread to the loop that this is made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(AHEAD)
        self._abandoned = False

    def send(self, parts: Iterable[bytes]) -> None:
        """Hand over all parts, from a thread. Raises SlowReaderError."""
        for part in parts:
            self._put(part)

    def end(self) -> None:
        """Nothing follows; from a thread."""
        asyncio.run_coroutine_threadsafe(self._queue.put(None), self._loop)

    def abandon(self) -> None:
        """Nobody reads any more; from the loop."""
        self._abandoned = True
        while not self._queue.empty():
            self._queue.get_nowait()

    def _put(self, part: bytes) -> None:
        if self._abandoned:
            raise SlowReaderError("the reader of the snapshot has gone")
        waiting = asyncio.run_coroutine_threadsafe(self._queue.put(part), self._loop)
        try:
            waiting.result(READER_TIMEOUT_S)
        except (TimeoutError, CancelledError):
            waiting.cancel()
            raise SlowReaderError(f"the reader of the snapshot took nothing for {READER_TIMEOUT_S:g} s") from None

    async def receive(self) -> bytes | None:
        """The next part, None behind the last."""
        return await self._queue.get()


class Incoming:
    """Parts from the loop that this is made in to a thread, which reads them as from a file."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(AHEAD)
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._part = memoryview(b"")
        self._ended = False

    async def put(self, part: bytes) -> None:
        """Hand over a part, once there is room."""
        await self._room.acquire()
        self._queue.put(part)

    def end(self) -> None:
        """Nothing follows."""
        self._queue.put(None)

    def read(self, size: int, /) -> bytes:
        """See splitvisor.machine.snapshot_file.Source. Raises SnapshotError when nothing comes for too long."""
        taken = []
        while size and not self._ended:
            if not self._part:
                try:
                    part = self._queue.get(timeout=WRITER_TIMEOUT_S)
                except queue.Empty:
                    raise SnapshotError(f"the rest of the snapshot did not come within {WRITER_TIMEOUT_S:g} s") from None
                if part is None:
                    self._ended = True
                    break
                self._part = memoryview(part)
                self._loop.call_soon_threadsafe(self._room.release)
            taken.append(self._part[:size])
            self._part = self._part[size:]
            size -= len(taken[-1])
        return b"".join(taken)
