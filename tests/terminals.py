# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal at a console in a process of its own, for tests of VMs that no `splitvisor run` has."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.guests.harness import ROOT, STEP_SECONDS

_PROGRAM = """
import asyncio, sys
from splitvisor.terminal.session import attach_terminal
result = asyncio.run(attach_terminal(sys.argv[1], sys.argv[2]))
print(f"[{result.end.name}]", flush=True)
"""


class Terminal:
    """What `splitvisor run` attaches to a console, and what it has shown."""

    def __init__(self, address: str, vm: str, *, prefix: Sequence[str] = (), tls: Path | None = None) -> None:
        environment = dict(os.environ) if tls is None else {**os.environ, "SPLITVISOR_TLS": str(tls)}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", _PROGRAM, address, vm],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment,
        )  # fmt: skip
        self.text = ""
        self._position = 0

    def type(self, text: str) -> None:
        """Send to the guest."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def expect(self, pattern: str, seconds: float = STEP_SECONDS) -> re.Match[str]:
        """Wait until pattern is shown after what was matched before."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.text, self._position)
            if match is not None:
                self._position = match.end()
                return match
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            assert data, f"no {pattern!r} on the console, which shows:\n{self.text[-3000:]}"
            self.text += data.decode(errors="replace")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
