# SPDX-License-Identifier: GPL-2.0-or-later
"""Who uses which memory while the client interface lives: claim, release and what is still available.

Claims are kept as sorted ranges without overlap and without touching neighbours, so any part of any claim can be released.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

MAX_RANGES = 4096
"""Claimed ranges that do not touch each other. Linux and GRUB stay below 20."""
ADDRESS_LIMIT = 1 << 32
"""The client interface has 32-bit cells: claims end below 4 GiB."""


class Claims:
    """Claimed memory of one machine.

    Args:
        ram_bytes: size of RAM, from address 0.
    """

    def __init__(self, ram_bytes: int) -> None:
        self.ram_bytes = ram_bytes
        self._top = min(ram_bytes, ADDRESS_LIMIT)
        self._starts: list[int] = []
        self._ends: list[int] = []

    def ranges(self) -> list[tuple[int, int]]:
        """Claimed (start, end) pairs, ascending."""
        return list(zip(self._starts, self._ends, strict=True))

    def restore(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Be these ranges. Raises ValueError when claims cannot be so."""
        edges = [0, *(edge for claimed in ranges for edge in claimed), self.ram_bytes]
        inner = edges[1:-1]
        if len(ranges) > MAX_RANGES or edges != sorted(edges) or len(set(inner)) != len(inner):
            raise ValueError("claims that overlap, or are outside of RAM")
        self._starts, self._ends = [start for start, _ in ranges], [end for _, end in ranges]

    def available(self) -> Iterator[tuple[int, int]]:
        """Free (start, length) pairs of all RAM, ascending, none empty."""
        free_from = 0
        for start, end in zip(self._starts, self._ends, strict=True):
            if start > free_from:
                yield free_from, start - free_from
            free_from = end
        if free_from < self.ram_bytes:
            yield free_from, self.ram_bytes - free_from

    def claim(self, address: int, size: int, align: int) -> int | None:
        """Take size bytes: at address when align is 0, else at the lowest free multiple of align.

        Returns the address, None when there is no such free memory (IEEE 1275 6.3.2.4).
        """
        if size <= 0 or size > self._top or len(self._starts) >= MAX_RANGES:
            return None
        if align == 0:
            if not self.is_free(address, size):
                return None
        else:
            found = self._lowest(size, align)
            if found is None:
                return None
            address = found
        self._add(address, address + size)
        return address

    def reserve(self, address: int, size: int) -> None:
        """Claim what the machine itself has put into memory, overlaps allowed; cut to RAM."""
        end = min(address + size, self.ram_bytes)
        if address < end:
            self.release(address, end - address)
            self._add(address, end)

    def release(self, address: int, size: int) -> bool:
        """Free whatever is claimed of a range. False when that would need more than MAX_RANGES; nothing is freed then."""
        end = address + size
        first = bisect_right(self._ends, address)
        last = bisect_left(self._starts, end)
        if first >= last or size <= 0:
            return True
        left, right = (self._starts[first], address), (end, self._ends[last - 1])
        kept = [(low, high) for low, high in (left, right) if low < high]
        if len(self._starts) - (last - first) + len(kept) > MAX_RANGES:
            return False
        self._starts[first:last] = [low for low, _ in kept]
        self._ends[first:last] = [high for _, high in kept]
        return True

    def is_free(self, address: int, size: int) -> bool:
        """Whether nothing is claimed of a range that can be claimed."""
        if address + size > self._top:
            return False
        position = bisect_right(self._ends, address)
        return position == len(self._starts) or self._starts[position] >= address + size

    def _lowest(self, size: int, align: int) -> int | None:
        for start, length in self.available():
            address = -(-start // align) * align
            if address + size > self._top:
                return None
            if address + size <= start + length:
                return address
        return None

    def _add(self, start: int, end: int) -> None:
        """Insert a free range, joining its neighbours."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
