# SPDX-License-Identifier: GPL-2.0-or-later
"""The services that are fuzzed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import Service


@pytest.fixture
def fuzzed(short_path: Path) -> Iterator[dict[str, Service]]:
    """The four; what they are told to write goes below a directory that goes with the test."""

    def start(name: str, *arguments: str) -> Service:
        return Service(name, short_path, *arguments, working_directory=short_path, log=short_path / f"{name}.log")

    hcall = start("hcall", "--store", str(short_path / "trees.sqlite"))
    running = {
        "hcall": hcall,
        "vio": start("vio", "--device-tree", hcall.address),
        "of-client": start("of-client", "--device-tree", hcall.address),
        "cpu": start("cpu", "--ram-dir", str(short_path)),
    }
    yield running
    for service in running.values():
        service.end()
