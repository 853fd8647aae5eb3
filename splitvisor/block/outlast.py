# SPDX-License-Identifier: GPL-2.0-or-later
"""To wait for something that uses somebody's memory, also when nobody wants its result any more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any


async def outlast(future: asyncio.Future[Any]) -> None:
    """Wait until a future has ended, whatever cancels this meanwhile, and forget how."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # Asked for, so that nobody complains that it was not.
