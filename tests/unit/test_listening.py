# SPDX-License-Identifier: GPL-2.0-or-later
"""A service that cannot listen says why, for each kind of address; what is free is free."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitvisor.net.addresses import AddressError, parse_address
from splitvisor.net.listening import check_free


@pytest.fixture(name="taken")
def make_taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def refused(text: str) -> str:
    with pytest.raises(AddressError) as error:
        check_free(parse_address(text))
    return str(error.value)


def test_a_port_in_use_is_refused(taken: int) -> None:
    for text in (f"127.0.0.1:{taken}", f"localhost:{taken}", f"tls:0.0.0.0:{taken}"):
        assert refused(text) == f"{text}: another program listens there; end it, or choose another port; 0 is any that is free"


def test_ports_that_are_free_are_free(taken: int) -> None:
    check_free(parse_address("127.0.0.1:0"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    check_free(parse_address(f"127.0.0.1:{free}"))
    check_free(parse_address(f"127.0.0.1:{free}"))


def test_an_address_of_another_host_and_a_host_without_address_are_refused() -> None:
    assert refused("tls:192.0.2.1:7000").startswith("tls:192.0.2.1:7000: no interface of this host has that address; give one")
    assert refused("tls:nothing.invalid:7000").startswith("tls:nothing.invalid:7000: no address of host 'nothing.invalid' (")
    assert refused(f"tls:{'x' * 70}.example:7000").endswith("give an IP address")


def test_a_socket_needs_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(f"unix:{tmp_path}/no/s").endswith(f"{tmp_path}/no is not a directory; make it first")
    assert refused(f"unix:{tmp_path}/file/s").endswith(f"{tmp_path}/file is not a directory; make it first")


@pytest.mark.skipif(os.getuid() == 0, reason="root may do anything")
def test_a_directory_of_others_is_refused() -> None:
    assert "this user may not make a socket in /proc" in refused("unix:/proc/s")
