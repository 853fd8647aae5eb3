# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of a process as a whole, and who listens at a unix socket."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import suppress

from splitvisor.errors.problem import ProblemError
from splitvisor.net.addresses import AddressError, parse_address
from splitvisor.net.sockets import make_way


class NoProcessError(ProblemError, LookupError):
    """There is no process to do something to; the text says why and what to do."""


def listener(address: str) -> int:
    """Return the pid of who listens at a unix socket. Raises NoProcessError."""
    try:
        path = parse_address(address).socket_path
    except AddressError as error:
        raise NoProcessError(str(error)) from None
    if path is None:
        raise NoProcessError(f"{address} is not a unix socket, so its process is not known", "use one, or a signal by hand")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(1.0)
        try:
            peer.connect(path)
        except OSError as error:
            raise NoProcessError(f"{address}: nobody listens ({error.strerror or error})", "start the service") from None
        pid, _, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal. Raises NoProcessError when it has ended or is somebody else's."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError) as error:
        raise NoProcessError(f"process {pid}: {error.strerror}", "see who runs with `splitvisor vm status`") from None


def forget_socket(address: str) -> None:
    """Remove the socket that a killed service left behind, so that nobody waits there for its successor."""
    path = parse_address(address).socket_path
    if path is not None:
        with suppress(AddressError):
            make_way(path)
