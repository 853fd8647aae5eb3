# SPDX-License-Identifier: GPL-2.0-or-later
"""The locks that programs of QEMU put on images, so that a guest of QEMU and one of Splitvisor do not have one raw image.

They are open-file-description locks for reading, of single bytes: at 100 + n, that the holder does n, and at 200 + n, that it
lets nobody else do n. Nothing is locked for writing; whoever comes looks first whether there is a lock against him (QEMU,
block/file-posix.c: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE; include/block/block-common.h: BLK_PERM_*).
"""

from __future__ import annotations

import errno
import fcntl
import struct
from pathlib import Path

from splitvisor.process.locks import InUseError

_DOES, _DENIES = 100, 200
_READ, _WRITE, _RESIZE = 0, 1, 3
_FLOCK = struct.Struct("@hhqqi4x")
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def lock(descriptor: int, path: Path, *, read_only: bool) -> None:
    """Say what is done to an image, until it is closed.

    Raises InUseError when somebody else does not allow it, or does what must not be.
    """
    does = (_READ,) if read_only else (_READ, _WRITE)
    denies = (_WRITE, _RESIZE) if read_only else (_READ, _WRITE, _RESIZE)
    try:
        # First set, then looked for: of two at the same time both may fail, but never both succeed.
        for place in (*(_DOES + each for each in does), *(_DENIES + each for each in denies)):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, place, 1, 0))
        for place in (*(_DENIES + each for each in does), *(_DOES + each for each in denies)):
            if _is_set(descriptor, place):
                raise InUseError("it is in use by a program of QEMU", path)
    except OSError as error:
        if error.errno not in _UNSUPPORTED or isinstance(error, InUseError):
            raise


def _is_set(descriptor: int, place: int) -> bool:
    """Whether another open file has a lock of a byte."""
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, place, 1, 0))
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
