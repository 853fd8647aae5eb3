# SPDX-License-Identifier: GPL-2.0-or-later
"""Back ends and the machine's end of their trap streams."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.trap_backend import (
    ChildBackend,
    ThreadBackend,
)
from tests.component.trap_client import Client


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


@pytest.fixture
def client(backend: ThreadBackend) -> Iterator[Client]:
    client = Client(backend.address).attached()
    yield client
    client.close()


@pytest.fixture
def child(directory: Path) -> Iterator[ChildBackend]:
    child = ChildBackend(directory)
    yield child
    child.kill()
