# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that may wait for a disk, on a few threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from splitvisor.block.outlast import outlast

THREADS = 8
"""Of a disk, at most; each is started when the others are busy."""
_T = TypeVar("_T")


class Workers:
    """The threads of a disk."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")

    async def run(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Return what a function returns. When this is cancelled, it ends once the function has no more use for its memory."""
        future = self._threads.submit(function, *arguments)
        wrapped = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(wrapped)
        except asyncio.CancelledError:
            future.cancel()  # If it has not begun.
            await outlast(wrapped)
            raise

    async def close(self) -> None:
        """End the threads, after what they do."""
        await asyncio.to_thread(self._threads.shutdown)
