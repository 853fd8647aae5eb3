# SPDX-License-Identifier: GPL-2.0-or-later
"""A file of fixed size that a VM rewrites in place, as it does an NVRAM.

It is opened once. So the name may be a link, or a file that is mounted alone, and mode, owner and further names stay: no other
file takes its place.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from splitvisor.process.files import WrongFileError, found_at, open_regular, sync_directory
from splitvisor.process.locks import InUseError, lock, unlock


class KeptFile:
    """The file, open for reading and writing.

    Args:
        path: made with size zero bytes, for this user only, when nothing is there; an empty file becomes that too.
        size: that it has.
        wait: go on without the lock when somebody else has it; take it later with lock().

    Raises OSError: InUseError when somebody else has it, WrongFileError for what is no regular file of that size, and whatever
    speaks against writing it: a file system that is read-only or has no room for all of it.
    """

    def __init__(self, path: Path, size: int, *, wait: bool = False) -> None:
        self.path, self.size = path, size
        self.locked = False
        fresh = found_at(path) is None
        self._descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            with suppress(*([InUseError] if wait else [])):
                self.lock()
            self._check(fresh=fresh)
        except BaseException:
            self.close()
            raise

    def lock(self) -> None:
        """Take the file, unless it is taken. Raises InUseError."""
        if not self.locked:
            lock(self._descriptor, self.path)
            self.locked = True

    def _check(self, *, fresh: bool) -> None:
        """Have all of the file's bytes on the disk, so that a later write has no need of room."""
        there = os.fstat(self._descriptor).st_size
        if there not in ((0, self.size) if self.locked else (self.size,)):
            raise WrongFileError(f"it has {there} bytes, not {self.size}", self.path)
        if not self.locked:
            return
        try:
            os.posix_fallocate(self._descriptor, 0, self.size)
        except OSError:
            if not there:
                os.ftruncate(self._descriptor, 0)
            if fresh:
                os.unlink(os.path.realpath(self.path))
            raise
        if not there:
            os.fsync(self._descriptor)
            sync_directory(Path(os.path.realpath(self.path)).parent)

    def read(self) -> bytes:
        """Return all of it. Raises OSError."""
        data = b""
        while len(data) < self.size and (part := os.pread(self._descriptor, self.size - len(data), len(data))):
            data += part
        if len(data) != self.size:
            raise WrongFileError("it became shorter while it was read", self.path)
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Replace bytes; they outlive this process when this returns, and this host after sync(). Raises OSError."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            offset, view = offset + written, view[written:]

    def sync(self) -> None:
        """Bring what was written to the disk. Raises OSError."""
        os.fdatasync(self._descriptor)

    async def synced(self) -> None:
        """The same on another thread, also if this file is closed meanwhile. Raises OSError."""
        # To the end also if nobody waits any more: the descriptor is to be closed.
        await asyncio.shield(asyncio.to_thread(_sync_and_close, os.dup(self._descriptor)))

    def close(self) -> None:
        """Let go of the file; more than once does nothing."""
        if self._descriptor >= 0:
            if self.locked:
                unlock(self._descriptor)
                self.locked = False
            os.close(self._descriptor)
            self._descriptor = -1


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
