# SPDX-License-Identifier: GPL-2.0-or-later
"""Back ends and the machine's end of their trap streams."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpu_service.engine.ram import GuestRam
from splitvisor.trap.ram_file import RAM_SUFFIX, RamFile
from tests.component.trap_backend import (
    ChildBackend,
    ThreadBackend,
)
from tests.component.trap_client import RAM_BYTES, Client


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="sv"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def backend(directory: Path) -> Iterator[ThreadBackend]:
    backend = ThreadBackend(directory)
    yield backend
    backend.close()


@pytest.fixture(params=["grpc", "socket"])
def client(backend: ThreadBackend, directory: Path, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client whose messages stay on gRPC, or move to a socket, as they do when guest RAM is shared."""
    moves = request.param == "socket"
    ram = RamFile.create(directory / f"client{RAM_SUFFIX}", RAM_BYTES) if moves else None
    client = Client(
        backend.address, ram=None if ram is None else GuestRam(ram.map), ram_path="" if ram is None else str(ram.path)
    ).attached()
    assert client.moved == moves
    yield client
    client.close()
    if ram is not None:
        ram.close()


@pytest.fixture
def child(directory: Path) -> Iterator[ChildBackend]:
    child = ChildBackend(directory)
    yield child
    child.kill()
