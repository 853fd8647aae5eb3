# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor new-device` writes a device whose tests pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splitvisor.cli.app import make_app
from tests.guests.harness import ROOT

TESTS_S = 120.0


def new_device(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(make_app(), ["new-device", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def run(module: str, *arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=TESTS_S, check=False)


@pytest.mark.parametrize(("flags", "more", "tests"), [((), set(), 5), (("--vio",), {"machine.toml"}, 6)], ids=["plain", "vio"])
def test_what_it_writes_passes_its_own_tests(tmp_path: Path, flags: tuple[str, ...], more: set[str], tests: int) -> None:
    status, said, _ = new_device("door_bell", "--directory", tmp_path, *flags)
    assert status == 0
    device = tmp_path / "door_bell"
    assert {file.name for file in device.iterdir()} == {"door_bell.py", "test_door_bell.py", "README.md"} | more
    assert f"cd {device} && python -m pytest" in said
    text = "".join(file.read_text() for file in device.iterdir())
    assert "$" not in text, "something was not filled in"
    done = run("pytest", "-q", "-W", "error", "-p", "no:cacheprovider", directory=device)
    assert done.returncode == 0, done.stdout
    assert f"{tests} passed" in done.stdout


@pytest.mark.parametrize("flags", [(), ("--vio",)], ids=["plain", "vio"])
@pytest.mark.parametrize("name", ["a", "x" * 24])
def test_what_it_writes_is_in_good_style_whatever_the_name(tmp_path: Path, name: str, flags: tuple[str, ...]) -> None:
    assert new_device(name, "--directory", tmp_path, *flags)[0] == 0
    config = ROOT / "pyproject.toml"
    checked = run("ruff", "check", "--config", str(config), "--ignore", "D103,I001", "--no-cache", ".", directory=tmp_path / name)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Bell", "is not a device name"),
        ("door-bell", "is not a device name"),
        ("../bell", "is not a device name"),
        ("", "NAME is empty"),
        ("x" * 25, "is not a device name"),
        ("class", "is reserved by Python"),
        ("json", "is reserved by Python"),
        ("splitvisor", "is reserved by Python"),
        ("test_bell", "is reserved by Python or pytest"),
    ],
)
def test_a_name_that_cannot_be_is_one_line_and_status_2(tmp_path: Path, name: str, why: str) -> None:
    status, _, said = new_device(name, "--directory", tmp_path)
    assert status == 2
    assert why in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "bell").mkdir()
    (tmp_path / "bell" / "notes").write_text("mine")
    status, _, said = new_device("bell", "--directory", tmp_path)
    assert (status, said.count("\n")) == (2, 1)
    assert "exists already" in said
    assert [file.name for file in (tmp_path / "bell").iterdir()] == ["notes"]


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    status, _, said = new_device("bell", "--directory", tmp_path / "missing")
    assert (status, said.count("\n")) == (2, 1)
