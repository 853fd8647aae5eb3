# SPDX-License-Identifier: GPL-2.0-or-later
"""Which blocks are being written, so that commands that read, decide and write are atomic to other writers."""

from __future__ import annotations

from types import TracebackType

from splitvisor.scsi.ending import Ending


class Range:
    """Bytes that a command writes; to be entered with `async with`."""

    __slots__ = ("_ranges", "end", "ending", "exclusive", "start")

    def __init__(self, ranges: BlockRanges, start: int, end: int, exclusive: bool) -> None:
        self._ranges = ranges
        self.start = start
        self.end = end
        self.exclusive = exclusive
        self.ending = Ending()

    async def __aenter__(self) -> None:
        before = self._ranges.enter(self)
        try:
            for each in before:
                await each.ending.wait()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()

    def _leave(self) -> None:
        self._ranges.leave(self)
        self.ending.reached()


class BlockRanges:
    """The ranges that commands write, in the order in which they came.

    Who comes waits for all before it that overlap, if one of the two is exclusive: nobody overtakes, so nobody starves, and as
    each waits only for earlier ones there is no deadlock.
    """

    def __init__(self) -> None:
        self._ranges: dict[Range, None] = {}
        self._exclusive = 0

    def shared(self, start: int, length: int) -> Range:
        """Return a range of bytes for a plain write: the order of two that overlap is the initiator's business."""
        return Range(self, start, start + length, False)

    def exclusive(self, start: int, length: int) -> Range:
        """Return a range of bytes that nothing else writes at the same time."""
        return Range(self, start, start + length, True)

    def enter(self, new: Range) -> list[Range]:
        """Add a range and return those that it has to wait for."""
        before: list[Range] = []
        if self._exclusive or new.exclusive:
            before = [
                each
                for each in self._ranges
                if (each.exclusive or new.exclusive) and each.start < new.end and new.start < each.end
            ]
        self._ranges[new] = None
        self._exclusive += new.exclusive
        return before

    def leave(self, old: Range) -> None:
        """Remove a range."""
        del self._ranges[old]
        self._exclusive -= old.exclusive
