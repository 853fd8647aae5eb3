# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench record`: what `run --record` adds to a boot of Debian, in wall time and in CPU time of all its processes."""

from __future__ import annotations

import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splitvisor.bench.boot import poweroff_run, wall_seconds
from splitvisor.bench.peers import BenchError
from splitvisor.guests.fetch import GuestError, fetch

LIMIT = 1.1
"""Times the boot that is not recorded."""
_KINDS = ("plain", "recorded")


def measure(runs: int, memory: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Boot in turn, print each figure as it comes, return them all. Raises BenchError.

    A recorded machine's RAM is private to cpu_service, so what that costs its back ends is part of the price.
    """
    try:
        fetch(say)
    except GuestError as error:
        raise BenchError(str(error)) from error
    wall: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    with tempfile.TemporaryDirectory(prefix="splitvisor-bench-") as directory:
        recording = Path(directory) / "boot.recording"
        commands = {"plain": poweroff_run(memory), "recorded": [*poweroff_run(memory), "--record", str(recording)]}
        for number in range(1, runs + 1):
            for kind in _KINDS if number % 2 else reversed(_KINDS):  # Whoever comes second has the warmer caches.
                began = _cpu_seconds()
                wall[kind].append(wall_seconds(commands[kind]))
                cpu[kind].append(_cpu_seconds() - began)
            said = (f"{kind} {wall[kind][-1]:.2f} s, {cpu[kind][-1]:.2f} s of CPU" for kind in _KINDS)
            say(f"run {number}: {'; '.join(said)}")
        size = recording.stat().st_size
    figures: dict[str, Any] = {
        "memory": memory,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "recording_bytes": size,
        "wall_ratio": _ratio(wall),
        "cpu_ratio": _ratio(cpu),
    }
    for kind in _KINDS:
        medians = f"{statistics.median(wall[kind]):.2f} s, {statistics.median(cpu[kind]):.2f} s of CPU"
        say(f"{kind + ':':<10} median {medians}; best {min(wall[kind]):.2f} s, {min(cpu[kind]):.2f} s of CPU")
    say(f"ratio:     {figures['wall_ratio']:.3f} of wall time, {figures['cpu_ratio']:.3f} of CPU time, of the medians")
    say(f"recording: {size / 1e3:.0f} kB")
    return figures


def _ratio(seconds: dict[str, list[float]]) -> float:
    return statistics.median(seconds["recorded"]) / statistics.median(seconds["plain"])


def _cpu_seconds() -> float:
    """CPU time so far of the processes that were started here and by them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
