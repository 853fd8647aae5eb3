# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that wait for the firmware, which asks for them one at a time: a few, since what it speaks has few under way."""

from __future__ import annotations

import asyncio
from collections import deque

from splitvisor.papr.frame_access import MAX_FRAME

WAITING_FRAMES = 64
"""Frames that wait; more are lost, as in a network device that is slow."""


class FirmwarePort:
    """The firmware's end of a wire."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self.is_closed = False
        self.dropped = 0
        """Frames that found no room."""

    def put(self, frame: bytes) -> None:
        """Keep a frame that has arrived, if there is room."""
        if len(self._waiting) >= WAITING_FRAMES or len(frame) > MAX_FRAME:
            self.dropped += 1
            return
        self._waiting.append(frame)
        self._changed.set()

    async def take(self, room: int, seconds: float) -> bytes:
        """Return the next frame of at most room bytes, which may take seconds to arrive; none: empty. Larger ones are lost."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self.is_closed:
            while self._waiting:
                frame = self._waiting.popleft()
                if len(frame) <= room:
                    return frame
                self.dropped += 1
            self._changed.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                break
        return b""

    def close(self) -> None:
        """Forget what waits; who waits for a frame gets none."""
        self.is_closed = True
        self._waiting.clear()
        self._changed.set()
