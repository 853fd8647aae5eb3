# SPDX-License-Identifier: GPL-2.0-or-later
"""The archives, and environments with the wheel, once for all tests here."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests.harness import ROOT
from tests.packaging.archives import PAGE, build, copy_checkout, only
from tests.packaging.environments import Environment


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from it."""
    if not (ROOT / PAGE / "xterm.mjs").exists():
        pytest.skip("the wheel needs xterm.js: run ./dev web, which needs npm")
    directory = tmp_path_factory.mktemp("archives")
    done = build(copy_checkout(directory / "checkout"), directory)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return directory


@pytest.fixture(scope="session")
def wheel(archives: Path) -> Path:
    """The wheel."""
    return only(archives, "*.whl")


@pytest.fixture(scope="session")
def short_session_path() -> Iterator[Path]:
    """A temporary directory whose path is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def installed(wheel: Path, short_session_path: Path) -> Environment:
    """The wheel as somebody has it who runs machines, looks at them in a browser and tests devices; this Python's."""
    directory = short_session_path / "all"
    directory.mkdir()
    return Environment(directory, Path(sys.executable), wheel, "[run,gateway,testing]")


@pytest.fixture(scope="session")
def base(wheel: Path, short_session_path: Path) -> Environment:
    """The wheel as the author of a device installs it where the device is served."""
    directory = short_session_path / "base"
    directory.mkdir()
    return Environment(directory, Path(sys.executable), wheel)
