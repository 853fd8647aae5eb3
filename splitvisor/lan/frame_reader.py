# SPDX-License-Identifier: GPL-2.0-or-later
"""The receiving side of a descriptor that has a frame in each read: a tap device, a socket for datagrams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from splitvisor.lan.wire import MAX_FRAME, MIN_FRAME, Receive

BATCH = 64
"""Frames that are read at a time; then others have a turn."""


class FrameReader:
    """Reads frames as they arrive, as long as there is room for them.

    Args:
        read: reads into a buffer, without waiting, and returns the length. Raises OSError.
        offer: takes a frame; False: it has no room, and nothing is read until resume().
        misfit: is called for a frame that is too short or too long.
        failed: is called with what read() raised, unless that was BlockingIOError; returns whether to read on at once.
    """

    def __init__(
        self,
        read: Callable[[bytearray], int],
        offer: Receive,
        misfit: Callable[[], None],
        failed: Callable[[OSError], bool],
    ) -> None:
        self._read, self._offer, self._misfit, self._failed = read, offer, misfit, failed
        self._descriptor = -1
        self._held: bytes | None = None
        """A frame that there was no room for."""
        self._memory = bytearray(MAX_FRAME + 1)
        self._view = memoryview(self._memory)

    def start(self, descriptor: int) -> None:
        """Read whenever there is something to be read."""
        self._descriptor = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._readable)

    def stop(self) -> None:
        """Read no more, before the descriptor is closed; a frame that waits for room is lost."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._descriptor, self._held = -1, None

    def resume(self) -> None:
        """There is room again."""
        if self._held is None or self._descriptor < 0:
            return
        frame, self._held = self._held, None
        if self._offer(frame):
            asyncio.get_running_loop().add_reader(self._descriptor, self._readable)
        else:
            self._held = frame

    def _readable(self) -> None:
        for _ in range(BATCH):
            if self._descriptor < 0:
                return
            try:
                count = self._read(self._memory)
            except BlockingIOError:
                return
            except OSError as error:
                if self._failed(error):
                    continue
                return
            if not MIN_FRAME <= count <= MAX_FRAME:
                self._misfit()
                continue
            frame = bytes(self._view[:count])
            if not self._offer(frame):
                self._held = frame
                asyncio.get_running_loop().remove_reader(self._descriptor)
                return
