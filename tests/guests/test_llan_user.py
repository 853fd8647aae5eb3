# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's user networks: a client of this host in the guest, files by TFTP."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Callable
from pathlib import Path

from splitvisor.guests.commands import Commands
from splitvisor.guests.network import lease
from tests.guests.lan import TRANSFER_S, check_driver

IoGuest = Callable[..., Commands]
FILE_BYTES = 300_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_client_of_this_host_reaches_the_guest_and_the_guest_reads_by_tftp(io_guest: IoGuest, tmp_path: Path) -> None:
    port, content = free_port(), random.Random(3).randbytes(FILE_BYTES)
    (tmp_path / "file").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    guest = io_guest("--net", f"user,hostfwd=tcp:127.0.0.1:{port}-:22", "--net", f"user,tftp={tmp_path}")
    assert lease(guest, "eth0").address == "10.0.2.15"
    guest.ok("mkfifo /tmp/answers; (nc -l -p 22 <>/tmp/answers >/tmp/asked) &")
    guest.wait_for("cat /proc/net/tcp /proc/net/tcp6 | grep -q ':0016 0*:0000 0A'")
    with socket.create_connection(("127.0.0.1", port), TRANSFER_S) as client:
        client.sendall(b"who is there?\n")
        guest.wait_for("grep -q 'who is there' /tmp/asked")
        guest.ok("echo 'a guest' >/tmp/answers")
        with client.makefile() as answers:
            assert answers.readline() == "a guest\n"
    # Both networks have the same addresses: one at a time.
    guest.ok("ip address flush dev eth0; ip link set eth0 down")
    got = lease(guest, "eth1")
    guest.ok(f"tftp -g -r file -l /tmp/file {got.gateway}", TRANSFER_S)
    assert guest.ok("sha256sum </tmp/file").split()[0] == digest
    assert guest.run(f"tftp -g -r nothing -l /tmp/nothing {got.gateway}", TRANSFER_S).status != 0
    check_driver(guest)
