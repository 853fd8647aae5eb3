# SPDX-License-Identifier: GPL-2.0-or-later
"""An installed Debian on a disk: where the disk is, a login at its console, and a web server of this host for its files."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from splitvisor.devtools import debian_disk
from splitvisor.guests.commands import Commands
from tests.guests.harness import Console

BOOT_S = 600.0
"""From the start to the login: systemd on a busy machine."""
GATEWAY = "10.0.2.2"
"""Where a guest finds this host's loopback, on a network of kind "user"."""
_ANSWER = 'answer() { echo; echo "@$1<"; bash -c "$2" </dev/null 2>&1; set -- "$1" $?; echo; echo "@$1>$2"; }'
"""What Commands has instead of a program in the guest."""


def cached_disk() -> Path:
    """Return the disk, made once and kept beside the other guests; skip the test where none can be made."""
    path = debian_disk.cached()
    if not path.exists() and (reason := debian_disk.why_not()):
        pytest.skip(f"no disk with Debian: {reason}")
    return debian_disk.make(path)


def log_in(console: Console) -> Commands:
    """Log in as root; return the shell's commands."""
    console.expect(rf"^{debian_disk.HOST_NAME} login: ", BOOT_S)
    console.type("root\n")
    console.expect("^Password: ", BOOT_S)
    console.type(f"{debian_disk.PASSWORD}\n")
    console.expect(rf"root@{debian_disk.HOST_NAME}:~# ", BOOT_S)
    console.type(f"{_ANSWER}\n")
    return Commands(console)


@contextmanager
def served(directory: Path) -> Iterator[int]:
    """Serve a directory on loopback; the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(directory))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def sha256(path: Path) -> str:
    """Return the digest of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # the base class's name
        """Say nothing: the test says what went wrong."""
