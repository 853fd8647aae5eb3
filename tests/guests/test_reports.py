# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of a run is there at every end, and two runs do not share a file that one of them keeps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guests.conftest import Run
from tests.guests.harness import Console


def _interrupt(console: Console) -> None:
    console.process.send_signal(signal.SIGINT)


def _terminate(console: Console) -> None:
    console.process.send_signal(signal.SIGTERM)


def _lose_vio(console: Console) -> None:
    os.kill(console.pids()["vio"], signal.SIGKILL)


def _lose_cpu(console: Console) -> None:
    os.kill(console.pids()["cpu"], signal.SIGKILL)


def _wait(_console: Console) -> None:
    """Leave it to --timeout."""


@pytest.mark.parametrize(
    ("arguments", "end", "status", "message", "asked"),
    [
        (("--timeout", "6"), _wait, 124, "the guest did not end within 6 s", True),
        ((), _interrupt, 130, "", True),
        ((), _terminate, 143, "", True),
        ((), _lose_vio, 4, "vio_service was killed by SIGKILL", True),
        ((), _lose_cpu, 4, "cpu_service was killed by SIGKILL", False),
    ],
)
def test_there_is_a_report_however_a_run_ends(
    arguments: tuple[str, ...], end: Callable[[Console], None], status: int, message: str, asked: bool, run: Run
) -> None:
    console = run(*arguments)
    console.expect("Type help for the commands")
    end(console)
    assert console.wait() == status
    report = console.report()
    assert report["status"] == status
    assert report["message"].splitlines()[:1] == ([message] if message else [])
    assert report["pids"].keys() == {"cpu", "hcall", "vio", "of-client"}
    assert report["seconds"] > 0
    if asked:
        assert report["vm"] == "guest"
        assert sum(call["count"] for call in report["calls"]) > 10


def test_a_report_that_cannot_be_written_fails_the_run(run: Run) -> None:
    console = run("--report", "/dev/full")
    console.expect("Type help for the commands")
    console.type("off\r")
    assert console.wait() == 4
    assert console.process.stderr is not None
    said = console.process.stderr.read().decode()
    assert said == "splitvisor run: --report /dev/full: No space left on device; there is no report\n"


def test_a_second_vm_with_an_nvram_file_is_refused_at_the_start(run: Run, tmp_path: Path) -> None:
    nvram = ("--nvram", str(tmp_path / "nvram"))
    first = run(*nvram)
    first.expect("Type help for the commands")
    second = run("--name", "second", *nvram)
    assert second.wait() == 2
    assert second.process.stderr is not None
    said = second.process.stderr.read().decode()
    assert said.count("\n") == 1
    assert f"it is in use by process {first.pids()['vio']}; give each VM a file of its own" in said
    os.kill(first.pids()["vio"], signal.SIGKILL)
    assert first.wait() == 4
    third = run(*nvram)
    third.expect("Type help for the commands")
    third.type("off\r")
    assert third.wait() == 0
