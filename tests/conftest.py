# SPDX-License-Identifier: GPL-2.0-or-later
"""What several kinds of tests share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import Service, start_services


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary directory whose path is short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def services(short_path: Path) -> Iterator[dict[str, Service]]:
    """The four services as processes of their own, by flag name."""
    running = start_services(short_path)
    yield running
    for service in running.values():
        service.end()
