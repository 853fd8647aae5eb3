# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left for the end of a turn, so that one message tells of all that the turn has done.

A turn is one look at the connection, with all the requests that it brings. What happens at other times ends with the event
loop's turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Turn:
    """The turns of one VM's link.

    Args:
        finish: called last at the end of a turn for which somebody has asked.
    """

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self._calls: list[Callable[[], None]] = []
        self._is_due = self._is_looking = False

    def soon(self, call: Callable[[], None]) -> None:
        """Call at the end of the turn."""
        self._calls.append(call)
        self.due()

    def due(self) -> None:
        """Have the turn end with finish()."""
        if not self._is_due:
            self._is_due = True
            if not self._is_looking:
                asyncio.get_running_loop().call_soon(self._end)

    def begin(self) -> None:
        """A look has brought requests."""
        self._is_looking = True

    def end(self) -> None:
        """They are taken."""
        self._is_looking = False
        if self._is_due:
            self._end()

    def _end(self) -> None:
        self._is_due = False  # Who asks from here on asks for the next.
        calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except Exception:  # It is the others' turn, too, and the connection's.
                log.exception("a device failed at the end of a turn")
        self._finish()
