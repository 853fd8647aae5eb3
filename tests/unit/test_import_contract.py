# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may import whom is written in pyproject.toml, kept, and a broken rule is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("splitvisor", "cpu_service", "hcall_service", "vio_service", "of_client_service", "gateway_service")


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Hold the packages of a directory against its contract."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("splitvisor/trap/memory.py", "import splitvisor.service.main", "splitvisor's rooms are layers"),
        (
            "splitvisor/net/addresses.py",
            "import vio_service.session",
            "splitvisor imports no service",
        ),
        ("hcall_service/platform/rtas.py", "import vio_service.session", "a service imports no other service"),
        ("cpu_service/engine/state.py", "import cpu_service.routing.router", "cpu_service's rooms are layers"),
        (
            "splitvisor/net/addresses.py",
            "def late():\n    import splitvisor.net.tls_files",
            "no module imports itself by way of its neighbours",
        ),
    ],
)
def test_a_forbidden_import_is_noticed(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("static", "web", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    broken = lint(tmp_path)
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert f"{contract} BROKEN" in broken.stdout


def test_the_contract_is_kept() -> None:
    kept = lint(ROOT)
    assert kept.returncode == 0, kept.stdout + kept.stderr
