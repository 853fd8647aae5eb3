# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are read: regular ones, so that no read waits for anybody; and pipes that a command is given, which become such."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from splitvisor.process.files import OPEN_FLAGS, WrongFileError, found_at, open_regular, own_descriptor

PIPE_BYTES = 1 << 30
"""What a pipe may hold: it is kept in memory."""
_PART_BYTES = 1 << 20


def open_input(path: Path) -> BufferedReader:
    """Open a regular file to read it. Raises OSError; WrongFileError for what is none, which is not opened at all."""
    return os.fdopen(open_regular(path, os.O_RDONLY), "rb")


def read_input(path: Path, limit: int) -> bytes:
    """Return the contents of a regular file of at most limit bytes. Raises OSError as open_input() does, and for a larger."""
    with open_input(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise WrongFileError(f"it is larger than {limit} bytes", path)
    return data


class Pipes:
    """What a command's arguments name and only this process can read: pipes, and descriptors such as /dev/fd/63 of `<(command)`.

    A pipe is read to its end into memory; then it is a file like others for everybody, services included, as long as this
    process lives.

    Args:
        deadline: by time.monotonic(); None: until the pipe ends or a signal comes.
        say: shown what is waited for, and an empty text after.
    """

    def __init__(self, deadline: float | None = None, say: Callable[[str], None] = lambda _text: None) -> None:
        self._deadline, self._say = deadline, say
        self._given: dict[str, Path] = {}

    def file(self, path: Path) -> Path:
        """Return where any process of this user finds the contents: path itself for an ordinary file, or for nothing.

        Raises OSError for a pipe that cannot be read, TimeoutError when its end does not come in time.
        """
        try:
            found = found_at(path)
        except OSError:
            return path  # Whoever opens it says what is wrong.
        if found is None:
            return path
        if stat.S_ISFIFO(found.st_mode):
            descriptor = self._copied(path)
        elif stat.S_ISREG(found.st_mode) and own_descriptor(path) is not None:
            descriptor = os.open(path, os.O_RDONLY | OPEN_FLAGS)
        else:
            return path
        file = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        self._given[str(file)] = path
        return file

    def gave(self, file: Path | None) -> bool:
        """Return whether file() has put a file in the place of what was given."""
        return str(file) in self._given

    def named(self, text: str) -> str:
        """Return a message with the names that the user gave."""
        for file, path in self._given.items():
            text = text.replace(file, str(path))
        return text

    def _copied(self, path: Path) -> int:
        """Return a descriptor of what comes through a pipe."""
        source = os.open(path, os.O_RDONLY | OPEN_FLAGS)
        copy = os.memfd_create(path.name)
        size = 0
        self._say(f"reading {path}")
        try:
            # Not readable before somebody has opened it for writing.
            while select.select([source], [], [], self._left())[0]:
                data = os.read(source, _PART_BYTES)
                if not data:
                    return copy
                size += len(data)
                if size > PIPE_BYTES:
                    raise WrongFileError(f"more than {PIPE_BYTES >> 20} MiB came through this pipe", path)
                _write_all(copy, data)
            raise TimeoutError(errno.ETIMEDOUT, "the pipe's end did not come in time", str(path))
        except BaseException:
            os.close(copy)
            raise
        finally:
            self._say("")
            os.close(source)

    def _left(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
