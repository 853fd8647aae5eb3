# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench clock`: whether the guest's time is the host's, asleep and computing, and what an idle guest costs.

Debian's shell is driven over the console; each figure is taken when the guest's line arrives here, so it includes the console's
way, some milliseconds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from splitvisor.cli.bench_boot import APPEND, RUN_SECONDS, BenchError
from splitvisor.guests import GuestError, fetch, resolve

SLEEP_S = 10
BUSY_S = 10
"""Seconds of its own time that the guest's shell computes without a system call that waits."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ClockFigures:
    """Seconds by the host's clock, and shares."""

    sleep_seconds: float
    """How long `sleep 10` took."""
    idle_share: float
    """Share of one core that cpu_service used meanwhile."""
    busy_guest_seconds: float
    """Seconds by the guest's clock while its shell computed."""
    busy_host_seconds: float
    """The same time by the host's clock."""

    @property
    def sleep_error(self) -> float:
        """How far the sleep was off, as a share."""
        return abs(self.sleep_seconds - SLEEP_S) / SLEEP_S

    @property
    def drift(self) -> float:
        """How far the guest's clock was off while it computed, as a share."""
        return abs(self.busy_guest_seconds - self.busy_host_seconds) / self.busy_host_seconds


def measure_clock(say: Callable[[str], None]) -> ClockFigures:
    """Boot Debian's shell and take the figures. Raises BenchError."""
    try:
        fetch(say)
    except GuestError as error:
        raise BenchError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="splitvisor-bench-") as directory, _shell(Path(directory)) as shell:
        shell.line("echo warm", "warm")
        pid = json.loads(next(Path(directory).glob("splitvisor-*/run.json")).read_text())["pids"]["cpu"]
        shell.line("echo asleep; sleep 10; echo awake", "asleep")
        began, used = time.monotonic(), _cpu_seconds(pid)
        shell.expect("awake")
        slept, used = time.monotonic() - began, _cpu_seconds(pid) - used
        # $SECONDS is not BusyBox's: /proc/uptime has hundredths. The loop waits for nothing and forks nothing.
        loop = "read now rest < /proc/uptime; while [ ${now%.*} -lt $end ]; do read now rest < /proc/uptime; done"
        shell.line(f"read now rest < /proc/uptime; end=$((${{now%.*}} + {BUSY_S})); echo from $now", r"from (\d+\.\d+)")
        host, guest = time.monotonic(), float(shell.found[1])
        shell.line(f"{loop}; echo to $now", r"to (\d+\.\d+)")
        host, guest = time.monotonic() - host, float(shell.found[1]) - guest
        shell.line("poweroff", "Power down")
    return ClockFigures(slept, used / slept, guest, host)


class _Shell:
    """The guest's shell on the console of a run."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._seen = b""
        self.found: re.Match[str]
        """What expect() matched last."""

    def line(self, command: str, pattern: str) -> None:
        """Type a command and wait for a line of its output."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        self.expect(pattern)

    def expect(self, pattern: str) -> None:
        """Wait for a line that is all pattern, or ends with it after the kernel's time stamp."""
        assert self._process.stdout is not None
        wanted = re.compile(rf"^(?:\[[ \d.]+\] .*)?{pattern}\r?$", re.MULTILINE)
        while True:
            match = wanted.search(self._seen.decode(errors="replace"))
            if match is not None:
                self.found = match
                self._seen = b""
                return
            data = os.read(self._process.stdout.fileno(), 4096)
            if not data:
                raise BenchError(f"the guest ended without writing {pattern!r}")
            self._seen = (self._seen + data)[-65536:]


@contextmanager
def _shell(directory: Path) -> Iterator[_Shell]:
    command = [
        sys.executable, "-m", "splitvisor", "run", "--kernel", str(resolve("kernel", "debian")),
        "--initrd", str(resolve("initrd", "debian")), "--append", APPEND, "--timeout", str(RUN_SECONDS),
    ]  # fmt: skip
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, env=environment) as run:
        try:
            yield _Shell(run)
        finally:
            run.terminate()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
