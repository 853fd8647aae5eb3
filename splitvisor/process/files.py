# SPDX-License-Identifier: GPL-2.0-or-later
"""What a path leads to. Every file that this program opens for a user passes through here first: docs/files.md has the policy.

Nothing is opened to find out what it is: to open a pipe wakes its writer, and a device may take it for a command.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a link",
}
"""What is not a regular file, as messages call it."""
OPEN_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""Of every open: should the path lead elsewhere by then, nothing waits and no terminal becomes this process's."""

_OWN_DESCRIPTOR = re.compile(r"/proc/(?:self|thread-self|\d+)(?:/task/\d+)?/fd/(\d+)")
_MAX_LINKS = 40


class WrongFileError(OSError):
    """A path leads to something that is not the file that is needed. strerror says what it is, as that of the system does."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(errno.EINVAL, what, str(path))


def require_regular(found: os.stat_result, path: Path) -> None:
    """Raise WrongFileError for anything but a regular file."""
    if not stat.S_ISREG(found.st_mode):
        raise WrongFileError(f"is not a regular file but {kind_of(found)}", path)


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file, made with O_CREAT. Raises OSError; WrongFileError for what is none, which is not opened at all."""
    found = found_at(path)
    if found is not None:
        require_regular(found, path)
    descriptor = os.open(path, flags | OPEN_FLAGS, mode)
    try:
        require_regular(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def kind_of(found: os.stat_result) -> str:
    """Return what something is that is no regular file."""
    return KINDS.get(stat.S_IFMT(found.st_mode), "something unknown")


def found_at(path: Path) -> os.stat_result | None:
    """Return what is at a path, links followed; None: nothing. Raises OSError."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def own_descriptor(path: Path) -> int | None:
    """Return which descriptor of this process a path names, as /dev/fd/63 and /dev/stdin do; None: none."""
    text = os.path.abspath(path)
    for _ in range(_MAX_LINKS):
        parent = os.path.realpath(os.path.dirname(text))
        match = _OWN_DESCRIPTOR.fullmatch(f"{parent}/{os.path.basename(text)}")
        if match is not None:
            own = parent.split("/")[2] in ("self", "thread-self", str(os.getpid()))
            return int(match[1]) if own else None
        try:
            text = os.path.join(parent, os.readlink(f"{parent}/{os.path.basename(text)}"))
        except OSError:
            return None
    return None


def mount_of(descriptor: int) -> str:
    """Return the mount that an open file or directory was reached through."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        return next((line.split()[1] for line in file if line.startswith("mnt_id:")), "")


def is_mounted_alone(path: Path) -> bool:
    """Return whether a file is a mount of its own, as containers have single files: its directory is not where it comes from."""
    with _looked_at(path) as file, _looked_at(Path(os.path.realpath(path)).parent) as directory:
        return mount_of(file) != mount_of(directory)


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some file systems have no such call; there the name is as safe as it can be.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _looked_at(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
