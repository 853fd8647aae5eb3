# SPDX-License-Identifier: GPL-2.0-or-later
"""What `python -m build` makes of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from splitvisor.devtools.manual import manual
from tests.guests.harness import ROOT

PAGE = Path("gateway_service/static/vendor")
PAGE_SOURCES = Path("gateway_service/web/sources")
MANUAL = Path("man/splitvisor.1")
EPOCH = "1700000000"
BUILD_SECONDS = 120.0


def tracked_files() -> list[str]:
    """Name the files that git has, or would have."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=BUILD_SECONDS).stdout
    return sorted(name for name in listing.split("\0") if name and (ROOT / name).is_file())


def copy_checkout(target: Path, *, page: bool = True) -> Path:
    """Copy the tracked files, and what `./dev docs` and `./dev web` put there, to a new directory; return it."""
    for name in tracked_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    (target / MANUAL).parent.mkdir()
    (target / MANUAL).write_text(manual())
    for part in (PAGE, PAGE_SOURCES) if page else ():
        shutil.copytree(ROOT / part, target / part)
    return target


def build(source: Path, output: Path, *arguments: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """Run `python -m build`, with the tools of this environment."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", str(output), *arguments, str(source)],
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS,
        umask=umask,
    )  # fmt: skip


def only(directory: Path, pattern: str) -> Path:
    """Return the one file of a pattern."""
    [path] = directory.glob(pattern)
    return path
