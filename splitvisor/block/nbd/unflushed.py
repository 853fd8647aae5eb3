# SPDX-License-Identifier: GPL-2.0-or-later
"""What a server has acknowledged and not yet flushed, for the case that it dies with it.

A server may keep what is written in its own memory until it is told to flush; qemu-nbd does so with the tables of a qcow2 image.
When it is killed and started again, the guest, which goes on, would miss what it has written: no power failed. So it is kept
here until a flush has succeeded, as an NFS client does before COMMIT, and written again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

KEPT_BYTES = 64 << 20
"""Beyond this a flush is due."""
KEPT_WRITES = 64 << 10
"""As that, for small ones."""


@dataclass(frozen=True)
class Kept:
    """A write."""

    offset: int
    length: int
    data: bytes | None
    """None: zeroes."""


class Unflushed:
    """The writes, oldest first."""

    def __init__(self) -> None:
        self._writes: deque[Kept] = deque()
        self._bytes = 0
        self._dropped = 0
        """Writes that were here once."""

    @property
    def is_full(self) -> bool:
        """Whether a flush is due."""
        return self._bytes > KEPT_BYTES or len(self._writes) > KEPT_WRITES

    @property
    def mark(self) -> int:
        """What a flush that begins now is about."""
        return self._dropped + len(self._writes)

    def add(self, write: Kept) -> None:
        """Keep a write that the server has acknowledged."""
        self._writes.append(write)
        self._bytes += len(write.data or b"")

    def flushed(self, mark: int) -> None:
        """Forget what a flush was about that has succeeded."""
        while self._dropped < mark:
            self._bytes -= len(self._writes.popleft().data or b"")
            self._dropped += 1

    def all(self) -> tuple[Kept, ...]:
        """Return the writes, oldest first."""
        return tuple(self._writes)
