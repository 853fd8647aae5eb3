# SPDX-License-Identifier: GPL-2.0-or-later
"""The unix socket that takes a trap stream's messages over from gRPC on one host (trap.proto, "On one host")."""

from __future__ import annotations

import os
import secrets
import socket
import stat
from pathlib import Path

from splitvisor.errors.problem import ProblemError
from splitvisor.limits import MESSAGE_BYTES

SOCKET_SUFFIX = ".trap"
"""How names of sockets end."""
LENGTH_BYTES = 4
"""Before each message: its length, the least significant byte first."""
_WAITING = 4
"""Connections that wait to be accepted; there is one."""


class SocketFramingError(ProblemError):
    """The peer sends what is no message."""


def framed(message: bytes) -> bytes:
    """Return a message behind its length."""
    return len(message).to_bytes(LENGTH_BYTES, "little") + message


class MessageReader:
    """Cuts what comes over a socket into messages."""

    def __init__(self) -> None:
        self._kept = bytearray()
        """The beginning of a message."""

    def take(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Return the messages that end in data. Raises SocketFramingError for one of more than MESSAGE_BYTES."""
        if self._kept:
            self._kept += data
            data = self._kept
        messages: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= LENGTH_BYTES:
            start = at + LENGTH_BYTES
            length = int.from_bytes(data[at:start], "little")
            if length > MESSAGE_BYTES:
                raise SocketFramingError(f"it sent a message of {length} bytes")
            if end - start < length:
                break
            at = start + length
            messages.append(bytes(data[start:at]))
        if data is self._kept:
            del self._kept[:at]
        else:
            self._kept += data[at:]
        return messages


class TrapListener:
    """cpu_service's end before the back end of a connection has come.

    Args:
        directory: of the file of guest RAM.

    Raises OSError.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"{secrets.token_hex(16)}{SOCKET_SUFFIX}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(self._socket.fileno(), 0o600)  # The name gets it, whatever the umask.
            with _Short(self.path) as path:
                self._socket.bind(path)
            self._socket.listen(_WAITING)
            self._socket.setblocking(False)
        except BaseException:
            self.close()
            raise

    def accept(self) -> socket.socket:
        """Return the connection of a back end that says that it is there. Raises OSError when it is not."""
        connection, _ = self._socket.accept()
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        """Take no connection more."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


def connect(path: Path, ram: Path) -> socket.socket:
    """Connect a back end to cpu_service.

    Args:
        path: where cpu_service listens. It comes from a peer, which must not get at other sockets of this user.
        ram: the file of guest RAM that is mapped here.

    Raises OSError.
    """
    if path.suffix != SOCKET_SUFFIX or path.parent != ram.parent or not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise OSError(f"{path} is no socket called *{SOCKET_SUFFIX} beside {ram.name}")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        with _Short(path) as short:
            connection.connect(short)
    except BaseException:
        connection.close()
        raise
    return connection


class _Short:
    """A path of a socket in as few characters as sockets take (108), however deep its directory is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._directory}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)


def remove_abandoned_sockets(directory: Path) -> None:
    """Remove the sockets of this user in a directory on which nobody listens: their makers were killed."""
    for path in directory.glob(f"*{SOCKET_SUFFIX}"):
        try:
            found = path.lstat()
            if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid():
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _Short(path) as short:
                    connection.setblocking(False)
                    connection.connect(short)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            continue  # Somebody listens, or it is gone.
