# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk has done, for metrics and people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DiskStatistics:
    """A disk at one moment. Numbers are since it was opened; failed transfers are errors only."""

    reads: int = 0
    writes: int = 0
    """Zeroes too."""
    discards: int = 0
    flushes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    errors: int = 0
    depth: int = 0
    """Transfers under way, those that wait among them."""
    deepest: int = 0
    """The largest number that were at once."""


class Counters:
    """The same while it changes."""

    __slots__ = ("deepest", "depth", "discards", "errors", "flushes", "read_bytes", "reads", "writes", "written_bytes")

    def __init__(self) -> None:
        self.reads = self.writes = self.discards = self.flushes = self.read_bytes = self.written_bytes = self.errors = 0
        self.depth = self.deepest = 0

    def began(self) -> None:
        """A transfer has begun."""
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)

    def snapshot(self) -> DiskStatistics:
        """Return the numbers of now."""
        return DiskStatistics(**{name: getattr(self, name) for name in self.__slots__})
