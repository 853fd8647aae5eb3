# SPDX-License-Identifier: GPL-2.0-or-later
"""An event loop on a thread of its own: what serves back ends while a test, which is plain code, waits for a guest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

DEADLINE_S = 30.0
"""How long anything that a test waits for may take."""


class LoopThread:
    """A running event loop. Handlers of back ends that are served in the test's process run on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="splitvisor-testing", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = DEADLINE_S) -> T:
        """Run a coroutine there and return its result. Raises TimeoutError after timeout seconds, and what it raised."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def close(self) -> None:
        """End what still runs, and the thread."""
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
