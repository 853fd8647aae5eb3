# SPDX-License-Identifier: GPL-2.0-or-later
"""Unix sockets in directories: what a killed process leaves goes, what anybody else has stays."""

from __future__ import annotations

import os
import socket
import stat

from splitvisor.net.addresses import AddressError
from splitvisor.process.files import kind_of


def make_way(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Have nothing at a path where a listener is to be: a socket is removed when nobody listens there any more.

    Args:
        path: where it is to be.
        kind: of socket.

    Raises AddressError for one that somebody listens at, for everything that is no socket, and when it cannot be removed.
    """
    try:
        found = os.lstat(path)
        if not stat.S_ISSOCK(found.st_mode):
            what = "a regular file" if stat.S_ISREG(found.st_mode) else kind_of(found)
            raise AddressError(f"unix:{path}: it is {what}, not a socket, so it is not replaced", "give another path")
        with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as visitor:
            try:
                visitor.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
                return
            except BlockingIOError:
                pass  # Its queue is full: somebody is slow.
    except FileNotFoundError:
        return
    except OSError as error:
        raise AddressError(f"unix:{path}: {error.strerror}", "give another path") from error
    raise AddressError(f"unix:{path}: another process listens there", "end it, or give another path")
