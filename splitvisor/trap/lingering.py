# SPDX-License-Identifier: GPL-2.0-or-later
"""A back end that looks for the next requests for a moment before it sleeps, as a vCPU does for its answer.

A processor that sleeps is slow to wake, most of all in a virtual machine. It is the vCPU that has to wake it to send a request,
and the guest stands still meanwhile.
"""

from __future__ import annotations

import asyncio
import time

LINGER_S = 0.0002
"""How long it looks."""
SHORT_S = 1.5 * LINGER_S
"""A pause that would have been shorter, had nobody had to be woken at its end."""
WORTH = 0.5
"""Of the recent pauses, this part was short."""
_WEIGHT = 1 / 8
"""Of the last pause in the average."""


class Lingering:
    """The pauses between what comes over one connection."""

    def __init__(self) -> None:
        self.short = 0.0
        """Which part of the recent pauses was short: an average that the older ones fade from."""
        self._since = 0.0
        """When the last pause has begun."""
        self._is_looking = False

    def began(self) -> None:
        """Something has come."""
        was_short = time.monotonic() - self._since < SHORT_S
        self.short += (was_short - self.short) * _WEIGHT

    def ended(self) -> None:
        """It is taken: the next pause begins."""
        self._since = time.monotonic()
        if self.short >= WORTH and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Keep the event loop from sleeping; it looks at all connections in each turn."""
        if time.monotonic() - self._since < LINGER_S:
            asyncio.get_running_loop().call_soon(self._look)
        else:
            self._is_looking = False
