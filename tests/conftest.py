# SPDX-License-Identifier: GPL-2.0-or-later
"""What several kinds of tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services import Service, start_services

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary directory whose path is short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def private_mounts(tmp_path: Path) -> Callable[[str], str]:
    """Run a shell script with mounts that nobody else sees, in a directory of its own; it returns what the script prints."""
    unshare = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")

    def run(script: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [*unshare, "sh", "-ec", script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def in_network() -> Callable[[str, str], None]:
    """Run a shell script and then Python in a network of their own, which has nothing but loopback; what fails there fails."""
    unshare = ["unshare", "--net"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace")

    def run(script: str, python: str) -> None:
        command = [*unshare, "sh", "-ec", f'ip link set lo up; {script}; exec "$0" -c "$1"', sys.executable, python]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture
def services(short_path: Path) -> Iterator[dict[str, Service]]:
    """The four services as processes of their own, by flag name."""
    running = start_services(short_path)
    yield running
    for service in running.values():
        service.end()
