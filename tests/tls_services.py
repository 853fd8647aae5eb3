# SPDX-License-Identifier: GPL-2.0-or-later
"""Service processes that listen with TLS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 20.0


class TlsService:
    """A service process with a certificate, which listens at a TCP port of its choice."""

    def __init__(
        self, name: str, certificate: Path, *arguments: str, listen: str = "tls:127.0.0.1:0", prefix: Sequence[str] = ()
    ) -> None:
        self._stopped = False
        ready_read, ready_write = os.pipe()
        self.log = certificate / f"{name}.log"
        command = [
            *prefix, sys.executable, "-m", "splitvisor.service.main", name, "--listen", listen, "--tls", str(certificate),
            "--ready-fd", str(ready_write), *arguments,
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, pass_fds=(ready_write,), stderr=log, umask=0)
        os.close(ready_write)
        with os.fdopen(ready_read, "rb") as ready:
            line = ready.readline()
        assert line, self.log.read_text()
        self.addresses: list[str] = json.loads(line)["addresses"]

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.addresses[0]

    def wait_logged(self, text: str) -> None:
        """Wait until its log has a text."""
        end = time.monotonic() + DEADLINE
        while text not in self.log.read_text():
            assert time.monotonic() < end, f"{text!r} is not in:\n{self.log.read_text()}"
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask it to end, as an operator would."""
        if not self._stopped:
            self._stopped = True
            self.process.terminate()

    def end(self) -> None:
        """End it."""
        self.stop()
        assert self.process.wait(DEADLINE) == 0
