# SPDX-License-Identifier: GPL-2.0-or-later
"""An end that others can wait for."""

from __future__ import annotations

import asyncio


class Ending:
    """The end of something. It costs little as long as nobody waits, which is the rule."""

    __slots__ = ("_event", "_over")

    def __init__(self) -> None:
        self._over = False
        self._event: asyncio.Event | None = None

    def reached(self) -> None:
        """Release those who wait, now and later."""
        self._over = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until it is reached."""
        if self._over:
            return
        if self._event is None:
            self._event = asyncio.Event()
        await self._event.wait()
