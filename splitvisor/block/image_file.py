# SPDX-License-Identifier: GPL-2.0-or-later
"""The file or block device that holds a raw image: opened, locked, measured, and its system calls."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from splitvisor.block import qemu_locks
from splitvisor.block.device import SECTOR_BYTES
from splitvisor.process.files import OPEN_FLAGS, WrongFileError, found_at, kind_of, mount_of
from splitvisor.process.locks import InUseError, lock

VECTORS = 1024
"""Pieces of memory in one system call (IOV_MAX)."""
BOUNCE_BYTES = 1 << 20
"""Of aligned memory, where O_DIRECT does not take the caller's."""
DIRECT_BYTES = (SECTOR_BYTES, 4096)
"""The sizes of blocks that disks have."""
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
_libc = ctypes.CDLL(None, use_errno=True)
_ZEROES = memoryview(bytes(BOUNCE_BYTES))
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class ShorterFileError(OSError):
    """A file has become shorter, which is an error of the transfer (EIO) and says nothing of earlier ones."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EIO, "it has become shorter", str(path))


class EmptyFileError(WrongFileError):
    """A file of no size, which no disk has."""

    def __init__(self, path: Path) -> None:
        super().__init__("it is empty", path)


class ImageFile:
    """An image, open.

    Args:
        path: of a regular file or block device; links are followed.
        read_only: others may read it too; without, nobody else may have it.
        direct: past the page cache.

    Raises OSError: WrongFileError for what no image can be in. The lock is not taken yet.
    """

    def __init__(self, path: Path, *, read_only: bool, direct: bool = False) -> None:
        self.path, self.read_only, self.direct = path, read_only, direct
        found = _require_image(found_at(path), path)
        flags = OPEN_FLAGS | (os.O_RDONLY if read_only else os.O_RDWR) | (os.O_DIRECT if direct else 0)
        if stat.S_ISBLK(found.st_mode) and not read_only:
            flags |= os.O_EXCL  # Refused while it is mounted here, or part of something.
        try:
            self.descriptor = os.open(path, flags)
        except OSError as error:
            if error.errno == errno.EINVAL and direct:
                what = "its file system has no O_DIRECT; give cache=writeback"
                raise OSError(errno.EINVAL, what, str(path)) from None
            if error.errno == errno.EBUSY:
                raise InUseError("it is mounted or otherwise in use on this host", path) from None
            raise
        try:
            self.is_device = stat.S_ISBLK(_require_image(os.fstat(self.descriptor), path).st_mode)
            self.size = self._measure()
            self.block_bytes = self._direct_block() if direct else SECTOR_BYTES
            self.in_memory = _file_system(self.descriptor) in ("tmpfs", "ramfs") and not self.is_device
        except BaseException:
            os.close(self.descriptor)
            raise

    @classmethod
    def unnamed(cls, size: int, directory: Path) -> ImageFile:
        """Return an image without a name and contents, which is gone with its descriptor. Raises OSError."""
        image = cls.__new__(cls)
        image.path, image.read_only, image.direct, image.is_device = directory, False, False, False
        image.descriptor = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(image.descriptor, size)
            image.size, image.block_bytes = size, SECTOR_BYTES
            image.in_memory = _file_system(image.descriptor) in ("tmpfs", "ramfs")
        except BaseException:
            os.close(image.descriptor)
            raise
        return image

    def lock(self) -> None:
        """Keep others out until it is closed: writers, and readers too when this one writes. Raises InUseError."""
        lock(self.descriptor, self.path, shared=self.read_only)
        # NFS turns flock(2) into a lock of all bytes, which would be in the way of one's own.
        if self.is_device or _file_system(self.descriptor).startswith("nfs"):
            return
        qemu_locks.lock(self.descriptor, self.path, read_only=self.read_only)

    def close(self) -> None:
        """Close it, and let go of its lock."""
        os.close(self.descriptor)

    # What follows runs on any thread.

    def read(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Fill memory. Raises OSError: EIO behind the end of a file that has become shorter."""
        while pieces:
            try:
                count = os.preadv(self.descriptor, pieces[:VECTORS], offset)
            except OSError as error:
                if error.errno != errno.EINVAL or not self.direct:
                    raise
                count = self._bounced_read(offset, pieces)
            if not count:
                raise ShorterFileError(self.path)
            offset += count
            pieces = behind(pieces, count)

    def write(self, offset: int, pieces: Sequence[memoryview], fua: bool) -> None:
        """Store memory; fua: and have it durable. Raises OSError."""
        self.require_length(offset + sum(map(len, pieces)))
        while pieces:
            try:
                count = os.pwritev(self.descriptor, pieces[:VECTORS], offset, os.RWF_DSYNC if fua else 0)
            except OSError as error:
                if error.errno != errno.EINVAL or not self.direct:
                    raise
                count = self._bounced_write(offset, pieces, fua)
            offset += count
            pieces = behind(pieces, count)

    def flush(self) -> None:
        """Have everything durable that was written."""
        os.fdatasync(self.descriptor)

    def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        """Make a range zero, without its room if that is wanted and possible."""
        self.require_length(offset + length)
        if self._allocate((_PUNCH_HOLE if unmap else _ZERO_RANGE) | _KEEP_SIZE, offset, length):
            return
        while length:
            part = min(length, len(_ZEROES))
            self.write(offset, [_ZEROES[:part]], False)
            offset, length = offset + part, length - part

    def discard(self, offset: int, length: int) -> None:
        """Give the room of a range back, where that is possible."""
        self.require_length(offset + length)
        self._allocate(_PUNCH_HOLE | _KEEP_SIZE, offset, length)

    def can_discard(self) -> bool:
        """Whether discard() does something."""
        if self.read_only:
            return False
        if not self.is_device:
            return self._allocate(_PUNCH_HOLE | _KEEP_SIZE, self.size, 4096)  # Behind the end: changes nothing.
        device = os.fstat(self.descriptor).st_rdev
        at = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        for queue in (at / "queue", at.resolve().parent / "queue"):
            with suppress(OSError, ValueError):
                return int((queue / "discard_max_bytes").read_text()) > 0
        return False

    def _allocate(self, mode: int, offset: int, length: int) -> bool:
        """Call fallocate(2). Returns False where there is no such thing."""
        while True:
            if _libc.fallocate(self.descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0:
                return True
            code = ctypes.get_errno()
            if code in _UNSUPPORTED:
                return False
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code), str(self.path))

    def _bounced_read(self, offset: int, pieces: Sequence[memoryview]) -> int:
        length = min(sum(map(len, pieces)), BOUNCE_BYTES)
        with mmap.mmap(-1, length) as aligned, memoryview(aligned) as view:
            count = os.preadv(self.descriptor, [view], offset)
            done = 0
            for piece in pieces:
                part = min(len(piece), count - done)
                piece[:part] = view[done : done + part]
                done += part
        return count

    def _bounced_write(self, offset: int, pieces: Sequence[memoryview], fua: bool) -> int:
        length = min(sum(map(len, pieces)), BOUNCE_BYTES)
        with mmap.mmap(-1, length) as aligned, memoryview(aligned) as view:
            done = 0
            for piece in pieces:
                part = min(len(piece), length - done)
                view[done : done + part] = piece[:part]
                done += part
            return os.pwritev(self.descriptor, [view], offset, os.RWF_DSYNC if fua else 0)

    def require_length(self, end: int) -> None:
        """Raise ShorterFileError when a write would make a file longer that has become shorter."""
        if not self.is_device and os.fstat(self.descriptor).st_size < end:
            raise ShorterFileError(self.path)

    def _measure(self) -> int:
        size = os.lseek(self.descriptor, 0, os.SEEK_END)
        if not size:
            raise EmptyFileError(self.path)
        if size % SECTOR_BYTES:
            what = (
                f"it has {size} bytes, which is no multiple of {SECTOR_BYTES}; truncate -s %{SECTOR_BYTES} adds what is missing"
            )
            raise WrongFileError(what, self.path)
        return size

    def _direct_block(self) -> int:
        """Return of what offsets are multiples: what the device below takes."""
        with mmap.mmap(-1, DIRECT_BYTES[-1]) as aligned, memoryview(aligned) as view:
            for length in DIRECT_BYTES:
                try:
                    with view[:length] as part:
                        os.preadv(self.descriptor, [part], 0)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    continue
                if self.size % length:
                    break
                return length
        raise OSError(errno.EINVAL, "its blocks are larger than O_DIRECT can have there; give cache=writeback", str(self.path))


def behind(pieces: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    """Return what comes after the first bytes."""
    for index, piece in enumerate(pieces):
        if count < len(piece):
            return [piece[count:], *pieces[index + 1 :]] if count else pieces[index:]
        count -= len(piece)
    return ()


def _require_image(found: os.stat_result | None, path: Path) -> os.stat_result:
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        raise WrongFileError(f"is neither a regular file nor a block device but {kind_of(found)}", path)
    return found


def _file_system(descriptor: int) -> str:
    """Return the kind of file system that an open file is in; empty when it cannot be seen."""
    try:
        mount = mount_of(descriptor)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            fields = next((line.split() for line in file if line.split(None, 1)[0] == mount), [])
    except OSError:
        return ""
    return fields[fields.index("-") + 1] if "-" in fields else ""
