# SPDX-License-Identifier: GPL-2.0-or-later
"""The buffers that a guest has given for frames, in pools by size (LoPAPR 16.4.4.3).

Most of them stand in pages of guest memory too, each in a slot, so that a process that takes this one's place finds them there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vio_service.devices.llan.layout import FRAME_OFFSET, SLOTS

MAX_POOLS = 512
"""Different sizes of buffers; Linux uses five."""
POOL_BUFFERS = 4096
"""Of one size."""
POSTED_BUFFERS = 200
"""How many may be under way whose guest does not wait for an answer."""
NO_SLOT = -1
"""Of a buffer that stands nowhere else: there are more than slots."""


class FreeBuffer(NamedTuple):
    """A buffer that has no frame yet."""

    ioba: int
    length: int
    slot: int


class FreeBuffers:
    """All free buffers of a device."""

    def __init__(self) -> None:
        self._pools: dict[int, dict[int, FreeBuffer]] = {}
        """By length, and there by address. The shortest comes first."""
        self._slots = list(reversed(range(SLOTS)))
        self.count = 0

    def has_room(self, buffers: int) -> bool:
        """Whether so many more find room, whatever their sizes."""
        return self.count + buffers <= POOL_BUFFERS and len(self._pools) + buffers <= MAX_POOLS

    def __iter__(self) -> Iterator[FreeBuffer]:
        for pool in self._pools.values():
            yield from pool.values()

    def add(self, ioba: int, length: int) -> FreeBuffer | None:
        """Take a buffer. Returns None if there is no room: too many sizes, or too many of one.

        One that is there already stays there once: a call may come twice when the process that had it has ended.
        """
        pool = self._pools.get(length)
        if pool is None:
            if len(self._pools) == MAX_POOLS:
                unused = next((size for size, each in self._pools.items() if not each), None)
                if unused is None:
                    return None
                del self._pools[unused]
            self._pools[length] = pool = {}
            self._pools = dict(sorted(self._pools.items()))
        known = pool.get(ioba)
        if known is not None:
            return known
        if len(pool) == POOL_BUFFERS:
            return None
        added = pool[ioba] = FreeBuffer(ioba, length, self._slots.pop() if self._slots else NO_SLOT)
        self.count += 1
        return added

    def found(self, slot: int, ioba: int, length: int) -> None:
        """Take over a buffer that was found in a slot of guest memory, or (NO_SLOT) in a saved state."""
        if slot != NO_SLOT:
            self._slots.remove(slot)
        pool = self._pools.setdefault(length, {})
        self.count += ioba not in pool
        pool[ioba] = FreeBuffer(ioba, length, slot)
        self._pools = dict(sorted(self._pools.items()))

    def take(self, frame_bytes: int, offset: int = FRAME_OFFSET) -> FreeBuffer | None:
        """Remove and return the newest of the smallest buffers that a frame fits into; None: there is none.

        Its slot stays taken until release().

        Args:
            frame_bytes: length of the frame.
            offset: where it is to begin in the buffer.
        """
        for length, pool in self._pools.items():
            if length >= frame_bytes + offset and pool:
                return self._remove(pool)
        return None

    @property
    def longest(self) -> int:
        """Bytes of the longest buffer that is free; 0: there is none."""
        return max((length for length, pool in self._pools.items() if pool), default=0)

    def take_exactly(self, length: int) -> FreeBuffer | None:
        """Remove and return a buffer of this length; None: there is none. Its slot stays taken until release()."""
        pool = self._pools.get(length)
        return self._remove(pool) if pool else None

    def could_fit(self, frame_bytes: int) -> bool:
        """Whether a frame may fit into what the guest gives: it has given such buffers before, or none at all yet."""
        return not self._pools or max(self._pools) >= frame_bytes + FRAME_OFFSET

    def discard(self, buffer: FreeBuffer) -> None:
        """Remove a buffer, if it is there."""
        if self._pools.get(buffer.length, {}).pop(buffer.ioba, None) is not None:
            self.count -= 1
            self.release(buffer)

    def release(self, buffer: FreeBuffer) -> None:
        """The slot of a buffer that was taken is empty in guest memory."""
        if buffer.slot != NO_SLOT:
            self._slots.append(buffer.slot)

    def _remove(self, pool: dict[int, FreeBuffer]) -> FreeBuffer:
        self.count -= 1
        return pool.popitem()[1]
