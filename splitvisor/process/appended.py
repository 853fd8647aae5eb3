# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that lines are added to: logs and journals. To write one never waits and never fails; what is lost is counted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from splitvisor.process.files import OPEN_FLAGS, WrongFileError, found_at, own_descriptor, require_regular
from splitvisor.process.inputs import open_input

_MODE = 0o666
_LOOKED_AT = 4096


class AppendedFile:
    """A file that grows.

    Args:
        path: made when nothing is there; a text, a pipe that somebody reads, or a character device.

    Raises OSError when it cannot be written; WrongFileError for what is no text: a line would damage it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost_bytes = 0
        self.failure = ""
        """Why bytes are lost; empty: none are."""
        found = found_at(path)
        own = own_descriptor(path)
        if found is not None and own is None and not (stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode)):
            require_regular(found, path)
            with open_input(path) as file:
                if b"\0" in file.read(_LOOKED_AT):
                    raise WrongFileError("it is there and is not a text, so nothing is added to it", path)
        if own is not None and not stat.S_ISFIFO(os.fstat(own).st_mode):
            self._descriptor = os.dup(own)
            return
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | OPEN_FLAGS, _MODE)
        except OSError as error:
            if found is not None and stat.S_ISFIFO(found.st_mode):
                raise WrongFileError("nobody reads this pipe", path) from error
            raise

    def write(self, data: bytes) -> None:
        """Add whole lines. What cannot be written now is lost."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self.lost_bytes += len(view)
            self.failure = error.strerror or str(error)

    def close(self) -> None:
        """Close it; more than once does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
