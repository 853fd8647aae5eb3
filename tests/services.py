# SPDX-License-Identifier: GPL-2.0-or-later
"""Service processes for tests: started, killed, and started again at the same address."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.guests.harness import ROOT, STEP_SECONDS


class Service:
    """A service process that can be killed and started again at the same address."""

    def __init__(
        self, name: str, directory: Path, *arguments: str, working_directory: Path = ROOT, log: Path = Path(os.devnull)
    ) -> None:
        self._working_directory = working_directory
        self.log = log
        self.socket = directory / f"{name}.sock"
        self.address = f"unix:{self.socket}"
        self._command = [sys.executable, "-m", "splitvisor.service.main", name, "--listen", self.address, *arguments]
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        ready_read, ready_write = os.pipe()
        command = [*self._command, "--ready-fd", str(ready_write)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self._working_directory, env={**os.environ, "PYTHONPATH": str(ROOT)}, pass_fds=(ready_write,),
                stderr=log,
            )  # fmt: skip
        os.close(ready_write)
        with os.fdopen(ready_read, "rb") as ready:
            line = ready.readline()
            assert line, f"{self._command} did not start"
        self.ready: dict[str, Any] = json.loads(line)
        """What it told once it listened."""

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        assert self.process.wait(STEP_SECONDS) == -signal.SIGKILL
        self.socket.unlink(missing_ok=True)

    def end(self) -> None:
        """End it as an operator would."""
        self.process.terminate()
        self.process.wait(STEP_SECONDS)


def start_services(directory: Path, *arguments: str) -> dict[str, Service]:
    """Start all four, by their flag names, each with these arguments beside its own."""
    hcall = Service("hcall", directory, "--store", str(directory / "trees.sqlite"), *arguments)
    return {
        "hcall": hcall,
        "vio": Service("vio", directory, *arguments),
        "of-client": Service("of-client", directory, "--device-tree", hcall.address, *arguments),
        "cpu": Service("cpu", directory, "--ram-dir", str(directory), *arguments),
    }
