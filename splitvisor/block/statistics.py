# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk has done, for metrics and people."""

from __future__ import annotations

from dataclasses import dataclass, field

from splitvisor.observe.call_times import Latency


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
    read_times: Latency = field(default_factory=Latency)
    """How long each took, waits included; these lists go on changing."""
    write_times: Latency = field(default_factory=Latency)
    flush_times: Latency = field(default_factory=Latency)
    discard_times: Latency = field(default_factory=Latency)


class Counters:
    """The same while it changes."""

    __slots__ = (
        "deepest", "depth", "discard_times", "discards", "errors", "flush_times", "flushes", "read_bytes", "read_times", "reads",
        "write_times", "writes", "written_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reads = self.writes = self.discards = self.flushes = self.read_bytes = self.written_bytes = self.errors = 0
        self.depth = self.deepest = 0
        self.read_times, self.write_times, self.flush_times, self.discard_times = Latency(), Latency(), Latency(), Latency()

    def began(self) -> None:
        """A transfer has begun."""
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)

    def snapshot(self) -> DiskStatistics:
        """Return the numbers of now."""
        return DiskStatistics(**{name: getattr(self, name) for name in self.__slots__})
