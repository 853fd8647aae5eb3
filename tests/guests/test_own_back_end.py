# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run --backend`: a back end of the user's own in a whole run."""

from __future__ import annotations

import sys
from pathlib import Path

from splitvisor.testing import BackendProgram, RunningProgram
from tests.guests.conftest import Run
from tests.guests.harness import ROOT

ECHO = BackendProgram("echo", [sys.executable, str(ROOT / "examples/echo_device/echo_device.py")])


def test_its_node_is_in_the_tree_and_the_run_leaves_it_alone(run: Run, short_path: Path) -> None:
    echo = RunningProgram(ECHO, short_path)
    try:
        for _ in range(2):
            console = run("--backend", f"echo={echo.address}")
            console.expect("> ")
            console.type("ls /vdevice\r")
            console.expect("echo@30000000")
            console.type("off\r")
            assert console.wait() == 0
            assert {"name": "echo", "ram_mapped": True, "reconnects": 0} in console.report()["backends"]
            console.close()
    finally:
        assert echo.stop() == 0


def test_one_that_is_not_there_is_named_with_its_address_and_status_4(run: Run, short_path: Path) -> None:
    missing = f"unix:{short_path}/nobody.sock"
    console = run("--backend", f"echo={missing}")
    assert console.wait() == 4
    assert console.process.stderr is not None
    [line] = console.process.stderr.read().decode().splitlines()
    assert line.startswith(f"splitvisor run: back end echo at {missing}: ")
    assert line.endswith("; start it or correct its address")
