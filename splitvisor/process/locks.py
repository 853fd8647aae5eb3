# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has a file: flock(2), of the whole file, for as long as it is open.

The kernel holds such a lock per open file description. So it binds every process of a host, containers with the same file
mounted included, and two VMs of one process too; and it is gone with its process, however that ends. flock(1) sees it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from splitvisor.process.files import WrongFileError


class InUseError(WrongFileError):
    """Somebody else has the file."""


def lock(descriptor: int, path: Path, *, shared: bool = False) -> None:
    """Take a file for this open file description alone, or shared: with others that only read it.

    Raises InUseError at once when another one has it, and OSError.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(os.fstat(descriptor))
        raise InUseError(f"it is in use{f' by process {holder}' if holder else ''}", path) from None


def unlock(descriptor: int) -> None:
    """Let go of a file before all descriptors of its open file description are closed."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _holder(found: os.stat_result) -> int:
    """Return the process that has a file, as far as it can be seen from here; else 0."""
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            fields = [line.split() for line in file]
    except OSError:
        return 0
    return next((int(each[4]) for each in fields if len(each) > 5 and each[1] == "FLOCK" and each[5] == wanted), 0)
