# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a command writes as a whole: they are there whole or not at all, also after a crash of this host.

Whether such a file can be written is found out before the work that fills it. What is there already is replaced only by its like,
a snapshot by a snapshot; mode, owner, links and further names stay as they are.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from splitvisor.process.files import OPEN_FLAGS, WrongFileError, found_at, own_descriptor, require_regular, sync_directory
from splitvisor.process.inputs import open_input
from splitvisor.process.locks import InUseError, lock, unlock

PRIVATE = 0o600
"""The mode of a new file that holds what a guest keeps to itself."""
SHARED = 0o666
"""The mode of any other, less the umask."""
_PART_SUFFIX = ".splitvisor-part"
_NO_PLACE_BESIDE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""Why a directory takes no new file, though a file in it may be written."""
_WRITABLE_DEVICES = (stat.S_IFIFO, stat.S_IFCHR)


@dataclass(frozen=True)
class Content:
    """What a file is to hold."""

    name: str
    """With its article: "a snapshot"."""
    is_in: Callable[[BinaryIO], bool]
    """Whether a file holds such content, of this program's making; raises nothing but OSError."""


class Output:
    """A file that is to be written.

    Args:
        path: what may be there: nothing, an empty file, one with the same content, or a pipe or a character device, /dev/stdout
            among them, which get what is written as it comes.
        content: what it is to hold.
        mode: of a new file.

    Raises OSError when it cannot be written; WrongFileError for what must not be replaced.
    """

    def __init__(self, path: Path, content: Content, mode: int) -> None:
        self.path = path
        self._content, self._mode = content, mode
        self._place = Path(os.path.realpath(path))
        self._stream = -1
        """What takes the content as it comes: a pipe, a device, or the file itself; -1: a new file takes the old one's place."""
        self._in_place = False
        """The stream is the file itself."""
        own = own_descriptor(path)
        if own is not None:
            self._stream = os.dup(own)
            return
        found = self._replaceable()
        if found is not None and not stat.S_ISREG(found.st_mode):
            self._stream = _open_stream(path)
        else:
            self._try_place(found)

    def _replaceable(self) -> os.stat_result | None:
        """Return what is there. Raises WrongFileError when it must stay."""
        found = found_at(self.path)
        if found is None or stat.S_IFMT(found.st_mode) in _WRITABLE_DEVICES:
            return found
        require_regular(found, self.path)
        if found.st_size:
            with open_input(self.path) as file:
                if not self._content.is_in(file):
                    what = f"it is there and is not {self._content.name}, so it is not replaced"
                    raise WrongFileError(what, self.path)
        return found

    def _try_place(self, found: os.stat_result | None) -> None:
        """Find out whether the file can be written, and how. Raises OSError."""
        if found is not None:
            descriptor = os.open(self._place, os.O_WRONLY | OPEN_FLAGS)
        try:
            part, name = self._open_part()
        except OSError as error:
            if found is None or error.errno not in _NO_PLACE_BESIDE:
                raise
            self._stream, self._in_place = descriptor, True
            return
        os.unlink(name)
        os.close(part)
        if found is not None:
            os.close(descriptor)

    @property
    def streams(self) -> bool:
        """Whether what is written leaves at once, to a pipe or to standard output."""
        return self._stream >= 0 and not self._in_place

    @contextmanager
    def written(self) -> Iterator[BinaryIO]:
        """Write it: it takes its place when the block ends without an error. Once. Raises OSError; path is as it was then.

        What takes the content as it comes, and a file that is mounted alone or has further names, may have a part of it then.
        """
        if self._stream >= 0:
            stream, self._stream = self._stream, -1
            os.set_blocking(stream, True)
            with os.fdopen(stream, "wb") as file:
                if self._in_place:
                    file.truncate(0)
                yield file
                file.flush()
                _sync(stream)
            return
        part, name = self._open_part()
        try:
            with os.fdopen(part, "r+b") as file:
                yield file
                file.flush()
                os.fsync(part)
                self._take_place(file, name)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
        sync_directory(self._place.parent)

    def write(self, data: bytes) -> None:
        """Write all of it. See written()."""
        with self.written() as file:
            file.write(data)

    def close(self) -> None:
        """Leave it as it is; for an output that will not be written."""
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1

    def _open_part(self) -> tuple[int, Path]:
        """Open the file that will take the place, beside it. One that a killed process left is used again."""
        name = self._place.with_name(f".{self._place.name}{_PART_SUFFIX}")
        while True:
            try:
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | OPEN_FLAGS, self._mode)
            except OSError as error:
                error.filename = str(self.path)
                raise
            try:
                require_regular(os.fstat(descriptor), name)
                lock(descriptor, self.path)
                # The one before may have taken its place between the two.
                if _is_same(descriptor, name):
                    os.ftruncate(descriptor, 0)
                    return descriptor, name
            except InUseError:
                os.close(descriptor)
                raise WrongFileError("another process is writing it", self.path) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _take_place(self, part: BinaryIO, name: Path) -> None:
        found = self._replaceable()
        if found is None:
            try:
                os.link(name, self._place)
            except FileExistsError:
                self._replaceable()
                _renamed(name, self._place)
            except OSError:  # A file system without links.
                _renamed(name, self._place)
            else:
                os.unlink(name)
        elif found.st_nlink > 1 or not _looks_like(part.fileno(), found) or not _renamed(name, self._place):
            self._copy_over(part)
            os.unlink(name)
        unlock(part.fileno())

    def _copy_over(self, part: BinaryIO) -> None:
        """Write into the file that is there."""
        part.seek(0)
        with os.fdopen(os.open(self._place, os.O_WRONLY | os.O_TRUNC | OPEN_FLAGS), "wb") as file:
            shutil.copyfileobj(part, file)
            file.flush()
            os.fsync(file.fileno())


def _open_stream(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | OPEN_FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise WrongFileError("nobody reads this pipe", path) from error
        raise


def _is_same(descriptor: int, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(name))
    except FileNotFoundError:
        return False


def _looks_like(descriptor: int, found: os.stat_result) -> bool:
    """Give a file the owner and the mode of another; return whether that could be done."""
    try:
        own = os.fstat(descriptor)
        if (own.st_uid, own.st_gid) != (found.st_uid, found.st_gid):
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    except OSError:
        return False
    return True


def _renamed(name: Path, place: Path) -> bool:
    """Put a file in another's place; return whether it could be: one that is mounted alone stays."""
    try:
        os.replace(name, place)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):  # A pipe or a device has no disk.
            raise
