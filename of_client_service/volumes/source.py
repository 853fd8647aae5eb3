# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes that can be read: a medium, a partition of it, a file on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


class VolumeError(Exception):
    """What is on a medium cannot be used; the text says what is wrong, for a line on the console."""


class MediumError(VolumeError):
    """The medium itself could not be read."""


@dataclass(frozen=True)
class Extent:
    """Consecutive bytes of a source."""

    start: int
    length: int


class Source(ABC):
    """Bytes at offsets from 0."""

    size: int
    """Bytes."""
    block_bytes: int
    """Bytes of a block of the medium, which partition tables count in."""

    @abstractmethod
    async def read(self, offset: int, length: int) -> bytes:
        """Return length bytes. Raises VolumeError when they are not all there, MediumError when they cannot be read."""

    @abstractmethod
    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield where on the medium bytes are, as many as there are."""

    def check(self, offset: int, length: int) -> None:
        """Raise VolumeError unless there are length bytes at offset."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise VolumeError(f"ends at byte {self.size}, before byte {offset + length}")


class Part(Source):
    """Some extents of a source, one after the other.

    Args:
        whole: has the bytes.
        extents: which of them, in order. Raises VolumeError when they are not all there.
    """

    def __init__(self, whole: Source, extents: Sequence[Extent]) -> None:
        for extent in extents:
            whole.check(extent.start, extent.length)
        self._whole, self._extents = whole, tuple(extents)
        self.size = sum(extent.length for extent in extents)
        self.block_bytes = whole.block_bytes

    async def read(self, offset: int, length: int) -> bytes:
        """See Source."""
        self.check(offset, length)
        return b"".join([await self._whole.read(each.start, each.length) for each in self._pieces(offset, length)])

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """See Source."""
        for each in self._pieces(offset, length):
            yield from self._whole.extents(each.start, each.length)

    def _pieces(self, offset: int, length: int) -> Iterator[Extent]:
        for extent in self._extents:
            if length and offset < extent.length:
                piece = Extent(extent.start + offset, min(length, extent.length - offset))
                yield piece
                length -= piece.length
            offset = max(offset - extent.length, 0)
