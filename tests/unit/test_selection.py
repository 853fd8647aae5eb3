# SPDX-License-Identifier: GPL-2.0-or-later
"""Every test has the marks of its folder, by which `./dev test --fast` and `--long` choose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.selection import KINDS, NOT_FAST, ROOT, kind_of

SECONDS = 120.0


def run_pytest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it as `./dev test` does, but for what would make this take longer."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "SPLITVISOR_"))}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", f"{ROOT}/pyproject.toml"]
    return subprocess.run(
        [*command, f"--rootdir={ROOT}", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip


def collected(*arguments: str | Path) -> list[str]:
    """The tests that would run."""
    done = run_pytest("--collect-only", *arguments)
    assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout + done.stderr
    return [line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith(("tests/", "examples/"))]


def test_a_test_outside_the_table_fails(tmp_path: Path) -> None:
    stray = tmp_path / "test_stray.py"
    stray.write_text("def test_nothing() -> None: ...\n")
    done = run_pytest("-p", "tests.selection", stray)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{stray}: in no folder of KINDS in tests/selection.py" in done.stderr


def test_a_mark_that_pyproject_does_not_name_fails(tmp_path: Path) -> None:
    stray = tmp_path / "test_stray.py"
    stray.write_text("import pytest\n\n\n@pytest.mark.fast\ndef test_nothing() -> None: ...\n")
    done = run_pytest("-p", "tests.selection", stray)
    assert done.returncode != 0
    assert "'fast' not found in `markers` configuration option" in done.stdout


def test_every_mark_of_the_table_is_named_in_pyproject(pytestconfig: pytest.Config) -> None:
    named = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert {mark for kind in KINDS for mark in kind.marks} | set(NOT_FAST) <= named


def test_every_path_of_the_table_is_there() -> None:
    assert [kind.path for kind in KINDS if not (ROOT / kind.path).exists()] == []


def test_the_longest_path_decides() -> None:
    assert kind_of(ROOT / "tests/guests/test_demo.py").marks == ()
    assert kind_of(ROOT / "tests/guests/test_debian.py").marks == ("guest",)
    assert kind_of(ROOT / "examples/cpp/test_vty.py").path == "examples/cpp"
    assert kind_of(ROOT / "examples/echo_device/test_echo_device.py").path == "examples"


def test_fast_leaves_out_real_guests_but_the_demo() -> None:
    assert set(collected("--fast", "tests/guests", "examples/cpp")) == {"tests/guests/test_demo.py"}
