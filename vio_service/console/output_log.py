# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest wrote, kept for its readers: the newest part of a stream, and the places where it may be cut."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator

from splitvisor.terminal.sequences import CAN, Boundary, unit_end, units_end, without_queries

REPLAY_BYTES = 64 << 10
"""Old output that a new reader gets, unless the service was told otherwise."""
BACKLOG_BYTES = 1 << 20
"""How far a reader may fall behind."""
MARK_BYTES = 4096
"""Between two places where output may be cut, as far as they are kept: those between are found when they are needed."""
SLACK_BYTES = 16 << 10
"""Older output that may still be there."""
HOLD_SECONDS = 0.05
"""How long output waits for the rest of a unit: a guest that writes 16 bytes at a time sends it at once, if it comes at all."""


class OutputLog:
    """The last BACKLOG_BYTES of a stream, addressed by position from the stream's first byte.

    It knows where the stream may be cut: between two units of what a terminal handles (splitvisor/terminal/sequences.py).

    Args:
        start: position of the first byte that is to come.
    """

    def __init__(self, start: int = 0) -> None:
        self._bytes = bytearray()
        self._base = start
        """Position of the first byte that is still there; up to SLACK_BYTES before start, so that not every call moves it."""
        self.start = start
        """Position of the oldest byte that is kept."""
        self.end = start
        """Position after the newest byte: how much was written in all."""
        self._boundary = Boundary()
        self._first: int | None = start
        """The first place between two units that is not before _base; None: the newest unit began before it."""
        self.last = start
        """The last place between two units, in the stream so far."""
        self._marks = [start]
        """Such places, some MARK_BYTES apart: the first one may lie before _base."""
        self._open_since = 0.0

    def append(self, data: bytes) -> None:
        """Add bytes; the oldest go when there are too many."""
        self._bytes += data
        self.end += len(data)
        if not self._boundary.open and data.isascii() and b"\x1b" not in data:  # Nearly always: this is as fast as it looks.
            self.last = self.end
        else:
            self._find_last(data)
        if self.last - self._marks[-1] >= MARK_BYTES:
            self._marks.append(self.last)
        if len(self._bytes) > BACKLOG_BYTES:
            self.start = self.end - BACKLOG_BYTES
            if self.start - self._base >= SLACK_BYTES:
                self._move_base(self.start)

    def _find_last(self, data: bytes) -> None:
        """Find the last place between two units after data was added."""
        was_open = bool(self._boundary.open)
        rest = self._boundary.feed(data)
        if rest is not None:
            self.last = self.end - rest
        if self._boundary.open and not (was_open and rest is None):
            self._open_since = time.monotonic()

    def _move_base(self, base: int) -> None:
        if self._first is None or self._first < base:
            self._first = self.boundary_from(base)
        del self._bytes[: base - self._base]  # CPython moves the start of the buffer; nothing is copied per call.
        self._base = base
        while len(self._marks) > 1 and self._marks[1] <= base:
            del self._marks[0]

    def _last_before(self, position: int) -> int | None:
        """The last place between two units up to a position; None when that has gone."""
        mark = self._marks[max(bisect_right(self._marks, position) - 1, 0)]
        base = mark if self._first is None else max(mark, self._first)
        if not self._base <= base <= position:
            return None
        return self._base + units_end(self._bytes, base - self._base, position - self._base)

    def boundary_from(self, position: int) -> int | None:
        """Return the first place between two units that is not before position; None: it is yet to come."""
        before = self._last_before(position)
        if before is None:
            later = self._first if self._first is not None else self.last
            return later if later >= position else None
        if before == position:
            return position
        end = unit_end(self._bytes, before - self._base)
        return None if end is None else self._base + end

    def beginning(self, position: int) -> int | None:
        """Return where a reader of output from a position on begins; None: at the end, in the middle of a long unit."""
        position = min(max(position, self.start), self.end)
        boundary = self.boundary_from(position)
        if boundary is None and self.last >= max(self.start, self.end - REPLAY_BYTES):
            boundary = self.last
        return boundary

    def cut(self, position: int, end: int) -> int:
        """Return where output from position on is cut that cannot go beyond end: between two units if it has such a place."""
        before = self._last_before(end)
        return end if before is None or before <= position else before

    def held_for(self, position: int) -> float:
        """Return the seconds for which output at a position had better wait: the guest is in the middle of a unit."""
        if not self.last <= position < self.end:
            return 0.0
        return max(self._open_since + HOLD_SECONDS - time.monotonic(), 0.0)

    def open_unit(self) -> bytes:
        """The unit at the end that is not whole, or what stands for it."""
        return self._boundary.open

    def without_queries(self, position: int, end: int) -> bytes:
        """Return output of which no terminal answers anything, though the first unit may have begun before position."""
        before = self._last_before(position)
        before = position if before is None else before
        data = without_queries(self.read(before, end - before))[position - before :]
        if before < position and data[:1] == b"\0" and self.read(position, 1) != b"\0":
            return CAN + data[1:]  # The terminal has the first half of a query.
        return data

    def read(self, position: int, limit: int) -> bytes:
        """Return up to limit bytes from a position that is not before start."""
        first = position - self._base
        return bytes(self._bytes[first : first + limit])

    def newest(self, limit: int, piece: int) -> Iterator[bytes]:
        """Return the newest limit bytes (0: all) as they are now, from a whole unit on, in pieces."""
        begin = self.beginning(self.end - limit if limit else self.start)
        data = b"" if begin is None else self.read(begin, BACKLOG_BYTES)
        return (data[start : start + piece] for start in range(0, len(data), piece))
