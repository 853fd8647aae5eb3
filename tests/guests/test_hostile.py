# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that calls everything with anything harms nobody but itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS

SOURCE = Path(__file__).with_name("hostile.S")
TOOLS = "powerpc64-linux-gnu-"


@pytest.fixture
def program(short_path: Path) -> Path:
    for tool in ("as", "ld"):
        if shutil.which(TOOLS + tool) is None:
            pytest.skip(f"no {TOOLS}{tool}: apt-get install binutils-powerpc64-linux-gnu")
    built, linked = short_path / "hostile.o", short_path / "hostile.elf"
    subprocess.run([f"{TOOLS}as", "-mbig", "-a64", "-mpower8", "-o", built, SOURCE], check=True)
    subprocess.run([f"{TOOLS}ld", "-EB", "-Ttext=0x200000", "-e", "_start", "-o", linked, built], check=True)
    return linked


@pytest.mark.parametrize("memory", [(), ("--no-shared-memory",)], ids=["shared", "through-streams"])
def test_every_call_returns_and_every_service_lives(run: Run, program: Path, memory: tuple[str, ...]) -> None:
    console = run("--kernel", str(program), *memory)
    console.expect("all returned", BOOT_SECONDS)
    pids = console.pids()
    assert set(pids) == {"cpu", "hcall", "vio", "of-client"}
    for pid in pids.values():
        assert Path(f"/proc/{pid}/stat").read_text().split()[2] in "RSD"
    assert console.process.poll() is None
