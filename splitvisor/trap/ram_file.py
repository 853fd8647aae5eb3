# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of memory that cpu_service makes and back ends on its host map: guest RAM, and the TCEs of DMA windows."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

RAM_SUFFIX = ".ram"
"""How names of files with guest RAM end."""
_NAME = re.compile(r"[a-z0-9-]+-[0-9a-f]{32}\.(ram|tce)")
"""How cpu_service names its files of memory."""


class RamFile:
    """A file that holds guest RAM, or TCEs, mapped shared.

    cpu_service makes it with create(); a back end on the same host opens it. Its name is unguessable, so a file of that
    name and size is that VM's also when seen through another mount.
    """

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        self._descriptor = descriptor
        try:
            self.map = mmap.mmap(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def create(cls, path: Path, size: int) -> RamFile:
        """Make a file of size bytes, all zero, readable by its owner only. Raises OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # The mapping keeps the lock, as it keeps the open file: without a lock the maker has ended (see remove_abandoned).
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, size)
        return cls(path, descriptor, size)

    @classmethod
    def open(cls, path: Path, size: int, suffix: str = RAM_SUFFIX) -> RamFile:
        """Map an existing file. Raises OSError when it cannot be opened, has another size, or is not a file of create().

        The path comes from a peer, which must not get at other files of this user.
        """
        if path.suffix != suffix:
            raise OSError(f"{path} is not called *{suffix}")
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            os.close(descriptor)
            raise OSError(f"{path} has {found.st_size} bytes, not {size}")
        ram = cls(path, descriptor, size)
        ram.close_file()
        return ram

    def used(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of what may be other than zero: the parts that have memory behind them. Only before close_file().

        Raises OSError: a snapshot without a part must not pass for whole.
        """
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self._descriptor, end, os.SEEK_DATA)
                end = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # No data behind the last hole.
                    raise
                return
            yield start, end

    def store(self, address: int, data: memoryview) -> None:
        """Write through the file, which costs no page faults; from any thread, only before close_file(). Raises OSError."""
        while data:
            written = os.pwrite(self._descriptor, data, address)
            address, data = address + written, data[written:]

    def close(self) -> None:
        """Unmap; the file stays."""
        self.map.close()
        self.close_file()

    def close_file(self) -> None:
        """Close the file; the mapping stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def remove_abandoned(directory: Path) -> None:
    """Remove the files of memory of this user in a directory whose makers were killed: they would hold it for ever."""
    for path in directory.iterdir():
        if not _NAME.fullmatch(path.name):
            continue
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # Another user's, or gone meanwhile.
        try:
            found = os.fstat(descriptor)
            # One without a size is being made.
            if found.st_uid == os.getuid() and found.st_size:
                with suppress(BlockingIOError, FileNotFoundError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
        finally:
            os.close(descriptor)
