# SPDX-License-Identifier: GPL-2.0-or-later
"""What people do with an installed wheel, wherever it is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Protocol


class Installed(Protocol):
    """A place with the wheel."""

    @property
    def work(self) -> Path:
        """A working directory, as programs there see it."""

    def run(
        self, program: str, *arguments: str | Path, typed: str = "", directory: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to its end, in `work` or another directory."""


def runs_the_demo_guest(installed: Installed) -> None:
    done = installed.run("splitvisor", "run", typed="ls\rcat /chosen\roff\r")
    assert done.returncode == 0, done.stderr
    assert "Splitvisor's demo guest" in done.stdout
    assert re.search(r"ls\r?$(?s:.*?)vdevice(?s:.*?)^> ", done.stdout, re.MULTILINE), done.stdout


def boots_linux(installed: Installed, kernel: str | Path, initrd: str | Path) -> None:
    guest = ("--kernel", kernel, "--initrd", initrd, "--append", "console=hvc0 loglevel=1")
    booted = installed.run("splitvisor", "run", *guest, typed="uname -m; poweroff\n")
    assert booted.returncode == 0, booted.stderr
    assert "ppc64le" in booted.stdout


def writes_a_device_whose_tests_pass(installed: Installed) -> None:
    name = "door_bell"
    said = installed.run("splitvisor", "new-device", name)
    assert said.returncode == 0, said.stderr
    tested = installed.run("python", "-m", "pytest", "-q", "-W", "error", directory=installed.work / name)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "5 passed" in tested.stdout
