# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run makes can be opened by its user only: whoever opens a socket or guest RAM has the machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitvisor.service.names import SERVICE_NAMES
from splitvisor.service.runtime_directory import SHARED_MEMORY
from tests.guests.conftest import Run


@pytest.fixture
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_no_umask")
def test_sockets_ram_and_store_are_0600_in_0700_directories(run: Run, short_path: Path) -> None:
    console = run("--name", "modes")
    console.expect("Type help for the commands")
    [runtime] = short_path.glob("splitvisor-*")
    [ram] = [*SHARED_MEMORY.glob("splitvisor-*/modes-*.ram"), *short_path.glob("splitvisor-*/modes-*.ram")]
    made = [ram, *runtime.iterdir()]
    kinds = {stat.S_IFMT(path.lstat().st_mode) for path in made}
    assert kinds == {stat.S_IFREG, stat.S_IFSOCK}
    sockets = {f"{name.command}.sock" for name in SERVICE_NAMES}
    assert {path.name for path in made} >= {*sockets, "run.json", "device-trees.sqlite"}
    for path in made:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600, path
    for directory in (runtime, ram.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700, directory
    console.type("off\r")
    assert console.wait() == 0
