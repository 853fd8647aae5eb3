# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench clock`: whether the guest's time is the host's, asleep and computing, and what an idle guest costs.

Debian's shell is driven over the console; each figure is taken when the guest's line arrives here, so it includes the console's
way, some milliseconds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from splitvisor.bench.shell import cpu_seconds, guests_at_hand, own_shell

SLEEP_S = 10
BUSY_S = 10
"""Seconds of its own time that the guest's shell computes without a system call that waits."""


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
    guests_at_hand(say)
    with tempfile.TemporaryDirectory(prefix="splitvisor-bench-") as directory, own_shell(Path(directory)) as shell:
        shell.line("echo warm", "warm")
        pid = shell.pids()["cpu"]
        shell.line("echo asleep; sleep 10; echo awake", "asleep")
        began, used = time.monotonic(), cpu_seconds(pid)
        shell.expect("awake")
        slept, used = time.monotonic() - began, cpu_seconds(pid) - used
        # $SECONDS is not BusyBox's: /proc/uptime has hundredths. The loop waits for nothing and forks nothing.
        loop = "read now rest < /proc/uptime; while [ ${now%.*} -lt $end ]; do read now rest < /proc/uptime; done"
        shell.line(f"read now rest < /proc/uptime; end=$((${{now%.*}} + {BUSY_S})); echo from $now", r"from (\d+\.\d+)")
        host, guest = time.monotonic(), float(shell.found[1])
        shell.line(f"{loop}; echo to $now", r"to (\d+\.\d+)")
        host, guest = time.monotonic() - host, float(shell.found[1]) - guest
        shell.line("poweroff", "Power down")
    return ClockFigures(slept, used / slept, guest, host)
