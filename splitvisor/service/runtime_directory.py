# SPDX-License-Identifier: GPL-2.0-or-later
"""The private directory of one `splitvisor run`: sockets, the device tree's store, who runs; and one for guest RAM.

Both are deleted when the run ends. The next start deletes those of a killed run: a directory with an unlocked lock is stale.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from splitvisor.net.addresses import AddressError
from splitvisor.process.text import is_text

PREFIX = "splitvisor-"
LOCK = "lock"
SHARED_MEMORY = Path("/dev/shm")
PATH_BYTES = 60
"""Longest parent directory: what gRPC listens at must stay under 108 bytes."""
RAM_SLACK = 64 << 20
"""Bytes to leave free in the file system that holds guest RAM."""


@contextmanager
def private_directory(parents: Sequence[Path]) -> Iterator[Path]:
    """Make a directory that only this user can enter in the first parent that takes one; remove it in the end.

    Raises OSError when none does.
    """
    failure = OSError("no directory to make one in")
    for parent in parents:
        try:
            _remove_stale(parent)
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            failure = error
            continue
        break
    else:
        raise failure
    descriptor = _lock(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def socket_parents() -> list[Path]:
    """Where the directory of the sockets may go, best first."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    short = named and os.path.isabs(named) and len(os.fsencode(named)) <= PATH_BYTES and is_text(named)
    return [*([Path(named)] if short else []), Path("/tmp")]


def make_socket_directory() -> Path:
    """Make the directory for services without --listen, closed to other users.

    Raises AddressError if another user owns it or can enter it.
    """
    path = socket_parents()[0] / f"{PREFIX}services-{os.getuid()}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise AddressError(f"{path} is not a directory that only this user can enter", "remove it, or give --listen ADDRESS")
    return path


def ram_parents(ram_bytes: int) -> list[Path]:
    """Where a file of ram_bytes may go, memory before disks; those without room are left out unless none has room.

    A file system that fills up under a mapping kills whoever touches the page (SIGBUS), so the room is checked first.
    """
    candidates = [SHARED_MEMORY, *socket_parents(), Path(tempfile.gettempdir()), Path("/var/tmp")]
    roomy = [path for path in candidates if _free_bytes(path) >= ram_bytes + RAM_SLACK]
    return roomy or candidates[-1:]


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def _lock(path: Path) -> int:
    """Hold the lock of a directory. It gets its name once it is held: a lock file that can be taken means a dead owner."""
    unnamed = path / f"{LOCK}.new"
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    unnamed.rename(path / LOCK)
    return descriptor


def _remove_stale(parent: Path) -> None:
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # Another user's, or gone meanwhile.
        try:
            if os.fstat(descriptor).st_uid == os.getuid():
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.parent, ignore_errors=True)
        finally:
            os.close(descriptor)
