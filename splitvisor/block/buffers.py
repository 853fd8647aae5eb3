# SPDX-License-Identifier: GPL-2.0-or-later
"""Scattered memory: the buffers of one transfer, often guest RAM itself, so that a disk's bytes are copied once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Buffers:
    """Pieces of memory that are one run of bytes to a device.

    Args:
        pieces: in order, of bytes. Writable, if the device is to store into them.
    """

    def __init__(self, pieces: Iterable[memoryview]) -> None:
        self.pieces: Sequence[memoryview] = [piece for piece in pieces if len(piece)]
        self.length = sum(map(len, self.pieces))

    @classmethod
    def made(cls, pieces: Sequence[memoryview], length: int) -> Buffers:
        """Return buffers of pieces of which none is empty, and that have so many bytes together."""
        buffers = cls.__new__(cls)
        buffers.pieces, buffers.length = pieces, length
        return buffers

    @classmethod
    def of(cls, data: bytes | bytearray) -> Buffers:
        """Return buffers of one piece."""
        return cls((memoryview(data),))

    def part(self, offset: int, length: int) -> Buffers:
        """Return the buffers of a range; what lies behind the end is left out."""
        found: list[memoryview] = []
        for piece in self.pieces:
            if length <= 0:
                break
            if offset < len(piece):
                found.append(piece[offset : offset + length])
                length -= len(found[-1])
                offset = 0
            else:
                offset -= len(piece)
        return Buffers(found)

    def store(self, data: bytes | bytearray | memoryview, offset: int = 0) -> int:
        """Copy data to an offset, as far as there is room. Returns the number of bytes copied."""
        stored = 0
        for piece in self.part(offset, len(data)).pieces:
            piece[:] = data[stored : stored + len(piece)]
            stored += len(piece)
        return stored

    def load(self, offset: int = 0, length: int | None = None) -> bytes:
        """Return a copy of a range; what lies behind the end is left out."""
        return b"".join(self.part(offset, self.length if length is None else length).pieces)
