# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench start`: from the start of `splitvisor run` to the demo guest's first line."""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from splitvisor.bench.peers import BenchError

FIRST_LINE = b"Splitvisor's demo guest"
RUN_SECONDS = 60.0
LIMIT_S = 1.5


def measure(runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all. Raises BenchError."""
    seconds = []
    for number in range(1, runs + 1):
        seconds.append(_seconds_to_first_line())
        say(f"run {number}: {seconds[-1]:.2f} s")
    best, median = min(seconds), statistics.median(seconds)
    say(f"best {best:.2f} s, median {median:.2f} s to the demo guest's first line, {LIMIT_S} s allowed")
    return {"seconds": seconds, "best": best, "median": median}


def _seconds_to_first_line() -> float:
    with tempfile.TemporaryDirectory(prefix="sv-bench-") as directory:
        environment = {**os.environ, "XDG_RUNTIME_DIR": directory}
        began = time.perf_counter()
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        command = [sys.executable, "-m", "splitvisor", "run"]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, env=environment) as run:
            assert run.stdout is not None
            try:
                shown = b""
                while FIRST_LINE not in shown:
                    left = began + RUN_SECONDS - time.perf_counter()
                    data = os.read(run.stdout.fileno(), 4096) if select.select([run.stdout], [], [], max(0.0, left))[0] else b""
                    if not data:
                        raise BenchError(f"no first line of the demo guest within {RUN_SECONDS:.0f} s: {shown[-200:]!r}")
                    shown += data
                return time.perf_counter() - began
            finally:
                run.terminate()
                try:
                    run.wait(10)
                except subprocess.TimeoutExpired:
                    run.kill()
