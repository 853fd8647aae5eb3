# SPDX-License-Identifier: GPL-2.0-or-later
"""Unix sockets in directories: only what nobody listens at any more makes way."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from splitvisor.net.addresses import AddressError
from splitvisor.net.sockets import make_way


def bound(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made


def test_nothing_and_a_stale_socket_make_way(short_path: Path) -> None:
    path = short_path / "a.sock"
    make_way(str(path))
    bound(path).close()
    make_way(str(path))
    assert not path.exists()


def test_a_socket_that_somebody_listens_at_stays_also_when_its_queue_is_full(short_path: Path) -> None:
    path = short_path / "a.sock"
    with bound(path) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.listen(0)
        waiting.setblocking(False)
        for _ in range(2):
            with pytest.raises(AddressError, match="another process listens there; end it, or give another path"):
                make_way(str(path))
            waiting.connect_ex(str(path))
    assert path.is_socket()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.write_text("mine"), "a regular file"),
        (Path.mkdir, "a directory"),
        (os.mkfifo, "a pipe"),
        (lambda path: path.symlink_to("elsewhere"), "a link"),
    ],
)
def test_what_is_no_socket_stays(make: Callable[[Path], None], what: str, short_path: Path) -> None:
    path = short_path / "a.sock"
    make(path)
    with pytest.raises(AddressError, match=f"it is {what}, not a socket, so it is not replaced; give another path"):
        make_way(str(path))
    assert os.path.lexists(path)
