# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk whose changes are thrown away: what is written is in a file without a name, in front of the disk that is only read."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockDevice
from splitvisor.block.image_file import ImageFile
from splitvisor.block.options import Cache
from splitvisor.block.raw import RawDevice

CLUSTER_BYTES = 64 << 10
"""The unit of which it is known whether it was written."""
SIZE_MAX = 64 << 40
"""Of a disk: the map then has 128 MiB."""


def directory_of_overlays() -> Path:
    """Return where the files are: TMPDIR, else /var/tmp, as they may become as large as disks."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")


class Overlay(BlockDevice):
    """The disk. Made by over().

    A cluster is in the file once a write to it has ended. Writes that bring clusters there wait for each other: what such a write
    does not cover of a cluster is copied from below first.
    """

    has_write_cache = True
    can_discard = True

    def __init__(self, below: BlockDevice, above: RawDevice) -> None:
        self._below, self._above = below, above
        self.name, self.size, self.block_bytes = below.name, below.size, below.block_bytes
        self._written = bytearray(below.size // CLUSTER_BYTES // 8 + 1)
        self._growing = asyncio.Lock()

    @classmethod
    async def over(cls, below: BlockDevice, directory: Path | None = None) -> Overlay:
        """Return a disk in front of another, which is closed with it. Raises OSError. directory: of the file."""
        if below.size > SIZE_MAX:
            raise OSError(errno.EFBIG, f"snapshot is possible up to {SIZE_MAX >> 40} TiB; give readonly", below.name)
        image = await asyncio.to_thread(ImageFile.unnamed, below.size, directory or directory_of_overlays())
        return cls(below, RawDevice(image, Cache.UNSAFE))

    async def read(self, offset: int, into: Buffers) -> None:
        """Fill the buffers from where each cluster is."""
        for place, length, written in self._runs(offset, into.length):
            source = self._above if written else self._below
            await source.read(offset + place, into.part(place, length))

    async def write(self, offset: int, data: Buffers, fua: bool = False) -> None:
        """Store the buffers."""
        await self._change(offset, data.length, lambda: self._above.write(offset, data))

    async def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        """Make a range zero."""
        await self._change(offset, length, lambda: self._above.write_zeroes(offset, length, unmap))

    async def flush(self) -> None:
        """Do nothing: what is written does not outlive the disk."""

    async def discard(self, offset: int, length: int) -> None:
        """Give the room of what was written back."""
        for place, part, written in self._runs(offset, length):
            if written:
                await self._above.discard(offset + place, part)

    async def close(self) -> None:
        """Close both; the file is gone."""
        await self._above.close()
        await self._below.close()

    async def hand_over(self) -> None:
        """Refuse: what was written is in this process alone."""
        raise OSError(errno.EOPNOTSUPP, "a disk with snapshot cannot be handed over", self.name)

    async def take_back(self, seconds: float) -> None:
        """Do nothing: it was not handed over."""

    async def _change(self, offset: int, length: int, change: Callable[[], Coroutine[None, None, None]]) -> None:
        if not length or all(written for _, _, written in self._runs(offset, length)):
            await change()
            return
        async with self._growing:
            end = offset + length
            for cluster in {offset // CLUSTER_BYTES, (end - 1) // CLUSTER_BYTES}:
                start, stop = cluster * CLUSTER_BYTES, min((cluster + 1) * CLUSTER_BYTES, self.size)
                if (start < offset or end < stop) and not self._is_written(cluster):
                    copy = Buffers.of(bytearray(stop - start))
                    await self._below.read(start, copy)
                    await self._above.write(start, copy)
            await change()
            for cluster in range(offset // CLUSTER_BYTES, (end - 1) // CLUSTER_BYTES + 1):
                self._written[cluster >> 3] |= 1 << (cluster & 7)

    def _is_written(self, cluster: int) -> bool:
        return bool(self._written[cluster >> 3] >> (cluster & 7) & 1)

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the range in parts that are in one place: where in the range, bytes, and whether they are in the file."""
        place = start = 0
        while place < length:
            written = self._is_written((offset + place) // CLUSTER_BYTES)
            start = place
            while place < length and self._is_written((offset + place) // CLUSTER_BYTES) is written:
                place = ((offset + place) // CLUSTER_BYTES + 1) * CLUSTER_BYTES - offset
            yield start, min(place, length) - start, written
