# SPDX-License-Identifier: GPL-2.0-or-later
"""Fresh virtual environments that have the wheel and know nothing of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.guests.harness import ROOT

INSTALL_SECONDS = 240.0
RUN_SECONDS = 120.0
VERSIONS = ("3.11", "3.12", "3.13")
"""Of Python: those that the wheel is for."""


def interpreter(version: str) -> Path | None:
    """Return a Python of a version on this machine, on PATH or pyenv's; None when there is none that can make environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    named = shutil.which(f"python{version}")
    candidates = [
        Path(sys.executable),
        *([Path(named)] if named else []),
        *sorted(pyenv.glob(f"versions/{version}.*/bin/python")),
    ]
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        done = subprocess.run([str(candidate), "-c", code], capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def constraints(directory: Path) -> Path:
    """Write the versions that the lock of developers has, as constraints; without hashes, which a wheel of ours has none of."""
    lock = (ROOT / "requirements-dev.lock").read_text()
    path = directory / "constraints.txt"
    path.write_text("\n".join(re.findall(r"^[\w.\-]+==[^ ;\\]+", lock, re.MULTILINE)) + "\n")
    return path


class Environment:
    """A virtual environment, and a working directory far from the checkout.

    Args:
        directory: where both are made.
        python: makes it.
        wheel: what is installed.
        extras: as pip has them, "[run]"; without, a base install.
    """

    def __init__(self, directory: Path, python: Path, wheel: Path, extras: str = "") -> None:
        self.work = directory / "work"
        self.work.mkdir()
        self._bin = directory / "venv" / "bin"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPLITVISOR"))}
        self._environment["XDG_RUNTIME_DIR"] = str(directory)
        subprocess.run([str(python), "-m", "venv", "--without-pip", str(directory / "venv")], check=True, timeout=INSTALL_SECONDS)
        # No bytecode beforehand: most of what is installed is never imported.
        install = ("install", "--quiet", "--no-compile", "--constraint", constraints(directory), f"{wheel}{extras}")
        done = self.pip(*install, seconds=INSTALL_SECONDS)
        assert done.returncode == 0, done.stderr

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self._bin / "python"

    def run(
        self, program: str, *arguments: str | Path, typed: str = "", seconds: float = RUN_SECONDS, directory: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to its end."""
        return subprocess.run(
            [str(self._bin / program), *map(str, arguments)], input=typed, capture_output=True, text=True, timeout=seconds,
            check=False, cwd=directory or self.work, env=self._environment,
        )  # fmt: skip

    def pip(self, *arguments: str | Path, seconds: float = RUN_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run this interpreter's pip on the environment, which would take seconds to get one of its own."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=self._environment)

    @contextmanager
    def running(self, program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run one of its programs; it must end with 0 when it is asked to in the end."""
        process = subprocess.Popen(
            [str(self._bin / program), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=self.work,
            env=self._environment,
        )  # fmt: skip
        try:
            yield process
            process.terminate()
            assert process.wait(RUN_SECONDS) == 0
        finally:
            process.kill()
            process.communicate()

    def distributions(self) -> Mapping[str, str]:
        """Return what is installed, by name."""
        code = "from importlib.metadata import distributions; print(*(f'{d.name}=={d.version}' for d in distributions()))"
        done = self.run("python", "-c", code)
        found = dict(line.split("==") for line in done.stdout.split())
        return {name.lower().replace("_", "-"): version for name, version in found.items()}
