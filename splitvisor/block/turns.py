# SPDX-License-Identifier: GPL-2.0-or-later
"""So many at once: who comes later waits, and those that wait go on in the order in which they came."""

from __future__ import annotations

import asyncio


class Turns:
    """Turns, of which some can be taken at once. They cost little as long as nobody waits, which is the rule.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[asyncio.Future[None], None] = {}

    def take(self) -> bool:
        """Take a turn. Returns False if there is none; wait() then."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Take a turn as soon as there is one."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except BaseException:
            if self._waiting.pop(turn, turn) is turn:
                self.end()  # It was there already.
            raise

    def end(self) -> None:
        """End a turn: whoever waits longest has it now."""
        turn = next(iter(self._waiting), None)
        if turn is None:
            self._free += 1
        else:
            del self._waiting[turn]
            if not turn.done():
                turn.set_result(None)
