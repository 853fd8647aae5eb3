# SPDX-License-Identifier: GPL-2.0-or-later
"""An installed Debian on a disk: where the disk is, a login, what must be right with it, and a web server of this host for it."""

from __future__ import annotations

import functools
import hashlib
import random
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
LEASE_S = 60.0
STATE_S = 300.0
"""What a busy machine takes to start all services, or to fetch a file."""
FILE_BYTES = 3_000_000
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


def check_system(guest: Commands) -> None:
    """Check that an installed Debian has come up whole, on its own file system."""
    assert guest.ok("cat /proc/1/comm; uname -m; findmnt -no FSTYPE /; . /etc/os-release; echo $ID").split() == [
        "systemd", "ppc64le", "ext4", "debian",
    ]  # fmt: skip
    check_running(guest)


def check_running(guest: Commands) -> None:
    """Check that systemd has started everything."""
    assert guest.ok("systemctl is-system-running --wait || systemctl --failed --no-legend", STATE_S) == "running"


def check_network(guest: Commands, directory: Path) -> None:
    """Wait for a lease, and have the guest fetch a file from this host, with apt's own client, which also compares its digest.

    directory: where the file is made.
    """
    guest.wait_for("ip -4 -brief address | grep -w 10.0.2.15/24", LEASE_S)
    (directory / "file").write_bytes(random.Random(12).randbytes(FILE_BYTES))
    digest = sha256(directory / "file")
    with served(directory) as port:
        fetch = f"/usr/lib/apt/apt-helper download-file http://{GATEWAY}:{port}/file /root/file SHA256:{digest}"
        guest.ok(fetch, STATE_S)
    assert guest.ok("sha256sum </root/file").split()[0] == digest


def power_off(console: Console, guest: Commands) -> None:
    """Check that the kernel has had nothing to complain of, and power off."""
    assert guest.run("dmesg | grep -E 'I/O error|EXT4-fs error|BUG:|Oops:'").output == ""
    console.type("poweroff\n")
    assert console.wait(BOOT_S) == 0


def sha256(path: Path) -> str:
    """Return the digest of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # the base class's name
        """Say nothing: the test says what went wrong."""
