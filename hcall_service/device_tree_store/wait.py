# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the store, and waits for a database that starts at the same time as the service, or later.

A service that ended instead would be started again, later each time, by whoever runs it, and count as failed meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from hcall_service.device_tree_store import Store, StoreAbsentError, StoreError, is_served, open_store, store_name
from splitvisor.process.logging import get_logger
from splitvisor.service.serve import SettingError

DEFAULT_WAIT_SECONDS = 60.0
"""Longer than a new PostgreSQL takes to make its files on a busy machine; the reason is in the log from the first moment."""
MAX_WAIT_SECONDS = 3600.0
_RETRY_SECONDS = 0.25
_SILENCE_SECONDS = 2.0
"""When an attempt takes longer, it is told that nobody answers: a host that is not there is noticed late."""

_log = get_logger(__name__)


async def open_store_patiently(location: str, retention: int, wait: float) -> Store:
    """Open a store; see open_store(). May be cancelled at any moment, also when the database does not answer.

    Args:
        wait: how many seconds a database may take to be there. What else is wrong is not waited for.

    Raises SettingError.
    """
    if not 0 <= wait <= MAX_WAIT_SECONDS:
        raise SettingError(f"--store-wait {wait:g}: give 0 to {MAX_WAIT_SECONDS:.0f} seconds")
    began = time.monotonic()
    told = ""

    def left() -> float:
        return began + wait - time.monotonic()

    def tell(reason: str) -> None:
        nonlocal told
        if reason != told:
            told = reason
            _log.warning(f"waiting for the database, {max(0.0, left()):.0f} s more at most", reason=reason)

    while True:
        attempt = asyncio.ensure_future(_in_a_thread(lambda: open_store(location, retention)))
        try:
            if wait and not told and is_served(location):
                await asyncio.wait((attempt,), timeout=_SILENCE_SECONDS)
                if not attempt.done():
                    tell(f"device-tree store {store_name(location)}: no answer yet")
            store = await attempt
        except StoreAbsentError as error:
            if left() <= 0:
                raise SettingError(f"{error}; waited {wait:g} s for it" if wait else str(error)) from error
            tell(str(error))
            await asyncio.sleep(max(0.0, min(_RETRY_SECONDS, left())))
        except StoreError as error:
            raise SettingError(str(error)) from error
        else:
            if told:
                _log.info("the database is there", waited=f"{time.monotonic() - began:.1f} s")
            return store


async def _in_a_thread(function: Callable[[], Store]) -> Store:
    """Call a function in a thread of its own.

    Not asyncio.to_thread(): the end of the process would wait for its threads, and a host that does not answer takes its time.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Store] = loop.create_future()

    def finish(store: Store | None, error: BaseException | None) -> None:
        if result.cancelled():
            if store is not None:
                store.close()
        elif store is not None:
            result.set_result(store)
        elif error is not None:
            result.set_exception(error)

    def call() -> None:
        store, failure = None, None
        try:
            store = function()
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(finish, store, failure)
        except RuntimeError:
            # The loop is closed: the service has been told to stop, and nobody wants the store.
            if store is not None:
                store.close()

    threading.Thread(target=call, name="open store", daemon=True).start()
    return await result
