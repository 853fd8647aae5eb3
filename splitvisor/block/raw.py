# SPDX-License-Identifier: GPL-2.0-or-later
"""A raw image: the blocks of the disk are the bytes of a file or of a block device of the host.

What may wait for a disk runs on threads. But the way to a thread and back takes 60 us, and to read 4 KiB of the page cache 1 us.
So a read is tried at once, as far as it does not wait (RWF_NOWAIT; a file system in memory never waits), and small writes where
the file system can say that they will not wait.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockDevice, BlockError
from splitvisor.block.image_file import VECTORS, ImageFile, ShorterFileError, behind
from splitvisor.block.options import Cache
from splitvisor.block.workers import Workers
from splitvisor.process.files import WrongFileError
from splitvisor.process.locks import InUseError

AT_ONCE_BYTES = 1 << 20
"""Of a transfer that is tried on the event loop, at most."""
TURN_BYTES = 4 << 20
"""That are moved so before others have their turn."""
LOCK_PAUSE_S = 0.02
"""Between attempts to take a lock that somebody else has."""


class RawDevice(BlockDevice):
    """The disk. Made by open()."""

    def __init__(self, image: ImageFile, cache: Cache = Cache.WRITEBACK) -> None:
        self._image, self._cache = image, cache
        self.name = str(image.path)
        self.size, self.block_bytes, self.read_only = image.size, image.block_bytes, image.read_only
        self.can_discard = image.can_discard()
        self._workers = Workers()
        self._now = 0 if image.in_memory else os.RWF_NOWAIT
        self._reads_at_once = self._writes_at_once = not image.direct
        self._moved = 0
        self._unsound: BlockError | None = None
        self._handed_over = False

    @classmethod
    async def open(cls, path: Path, *, read_only: bool, cache: Cache, wait_for_lock: float = 0.0) -> RawDevice:
        """Return a disk that nobody else writes.

        Args:
            path: of the image.
            read_only: others may read it meanwhile.
            cache: NONE passes the page cache by, UNSAFE makes flush() do nothing.
            wait_for_lock: seconds in which somebody else may still let go of it.

        Raises OSError: InUseError when somebody else has it.
        """
        return cls(await _opened(path, read_only, cache, wait_for_lock), cache)

    async def read(self, offset: int, into: Buffers) -> None:
        """Fill the buffers."""
        pieces, length = into.pieces, into.length
        if self._reads_at_once and length <= AT_ONCE_BYTES and len(pieces) <= VECTORS and not self._handed_over:
            try:
                done = os.preadv(self._image.descriptor, pieces, offset, self._now)
            except BlockingIOError:
                done = 0
            except OSError as error:
                self._reads_at_once = error.errno not in (errno.EOPNOTSUPP, errno.EINVAL)
                done = 0  # Should there be something wrong, it is so again.
            if done == length:
                if (moved := self._moved + length) < TURN_BYTES:
                    self._moved = moved
                else:
                    await self._turn()
                return
            offset, pieces = offset + done, behind(pieces, done)
        await self._run(self._image.read, offset, pieces)

    async def write(self, offset: int, data: Buffers, fua: bool = False) -> None:
        """Store the buffers."""
        self._require_writable()
        fua = fua and self._cache is not Cache.UNSAFE
        pieces, length = data.pieces, data.length
        if self._writes_at_once and not fua and length <= AT_ONCE_BYTES and len(pieces) <= VECTORS and not self._handed_over:
            try:
                self._image.require_length(offset + length)
                done = os.pwritev(self._image.descriptor, pieces, offset, self._now)
            except BlockingIOError:
                done = 0
            except OSError as error:
                self._writes_at_once = error.errno not in (errno.EOPNOTSUPP, errno.EINVAL)
                done = 0
            if done == length:
                if (moved := self._moved + length) < TURN_BYTES:
                    self._moved = moved
                else:
                    await self._turn()
                return
            offset, pieces = offset + done, behind(pieces, done)
        await self._run(self._image.write, offset, pieces, fua, losing=(errno.EIO,) if fua else ())

    async def flush(self) -> None:
        """Make what was written durable.

        When that has failed once, it fails for ever: the kernel reports an error of its page cache once, then takes what it
        could not write for written.
        """
        if self._cache is Cache.UNSAFE or self.read_only:
            return
        if self._unsound is not None:
            raise self._unsound
        await self._run(self._image.flush, losing=(errno.EIO, errno.ENOSPC, errno.EDQUOT))

    async def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        """Make a range zero."""
        self._require_writable()
        if length:
            await self._run(self._image.write_zeroes, offset, length, unmap)

    async def discard(self, offset: int, length: int) -> None:
        """Give the room of a range back; it reads as zero then, where that is possible."""
        self._require_writable()
        if length:
            await self._run(self._image.discard, offset, length)

    async def close(self) -> None:
        """Close the image."""
        if not self._handed_over:
            await self._workers.close()
            self._image.close()

    async def hand_over(self) -> None:
        """Flush, and let somebody else take it."""
        if not self.read_only:
            await self.flush()
        self._handed_over = True
        await self._workers.close()  # Its descriptor may be another file's soon.
        # Closed, since a block device is kept by its descriptor, and NFS brings to others what was written when it is closed.
        self._image.close()

    async def take_back(self, seconds: float) -> None:
        """Open it again. Raises OSError: InUseError when somebody else has it."""
        image = await _opened(self._image.path, self.read_only, self._cache, seconds)
        if image.size != self.size:
            image.close()
            raise WrongFileError(f"it has {image.size} bytes now, not {self.size}", image.path)
        self._image, self._workers, self._handed_over = image, Workers(), False

    def _require_writable(self) -> None:
        if self.read_only:
            raise BlockError(errno.EROFS, "Read-only", self.name)

    async def _turn(self) -> None:
        """Let others have their turn: transfers that never wait could keep the event loop for themselves."""
        self._moved = 0
        await asyncio.sleep(0)

    async def _run(self, call: Callable[..., None], *arguments: object, losing: tuple[int, ...] = ()) -> None:
        """Call on a thread. losing: errors after which what was written earlier may be lost with the page cache."""
        if self._handed_over:
            raise BlockError(errno.EBUSY, "handed over to another host", self.name)
        try:
            await self._workers.run(self._noted, call, losing, *arguments)
        except OSError as error:
            raise BlockError(error.errno or errno.EIO, error.strerror or str(error), self.name) from None

    def _noted(self, call: Callable[..., None], losing: tuple[int, ...], *arguments: object) -> None:
        """Call, on a thread, so that an error is noted also if the transfer was cancelled."""
        try:
            call(*arguments)
        except OSError as error:
            if error.errno in losing and not self._image.direct and not isinstance(error, ShorterFileError):
                what = f"an earlier flush failed ({error.strerror}), so that what was written may be lost"
                self._unsound = BlockError(errno.EIO, what, self.name)
            raise


async def _opened(path: Path, read_only: bool, cache: Cache, seconds: float) -> ImageFile:
    """Return an image, locked, once nobody else has it, within some time. Raises OSError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await asyncio.to_thread(_open, path, read_only, cache)
        except InUseError:
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(LOCK_PAUSE_S)


def _open(path: Path, read_only: bool, cache: Cache) -> ImageFile:
    image = ImageFile(path, read_only=read_only, direct=cache is Cache.NONE)
    try:
        image.lock()
    except BaseException:
        image.close()
        raise
    return image
