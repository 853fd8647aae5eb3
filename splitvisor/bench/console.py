# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench console`: how fast a guest's output comes to a terminal, in turn with QEMU when wanted.

Debian's shell counts; ours prints through vio_service into the pipe of `splitvisor run`, QEMU's spapr-vty into a unix socket.
Both guests are booted once and take turns. CPU time is that of all processes that carry the output, for hosts that are busy.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from splitvisor.bench.peers import OURS, Peer
from splitvisor.bench.shell import Shell, guests_at_hand, own_shell, qemu_shell, ready_shells

LIMIT = 1.0
"""How much longer than QEMU's the output may take."""


def measure(lines: int, runs: int, peers: Sequence[Peer], say: Callable[[str], None]) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all. Raises BenchError."""
    guests_at_hand(say)
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv-bench-")))
        shells = {OURS: stack.enter_context(own_shell(directory))}
        for peer in peers:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv-bench-")))
            shells[peer.name] = stack.enter_context(qemu_shell(place, peer))
        ready_shells(list(shells.values()))
        size = 0
        for number in range(1, runs + 1):
            for name, shell in shells.items():
                took, used, size = _count(shell, lines)
                seconds.setdefault(name, []).append(took)
                cpu.setdefault(name, []).append(used)
            latest = (f"{name} {times[-1]:.2f} s ({cpu[name][-1]:.2f} s of CPU)" for name, times in seconds.items())
            say(f"run {number}: {', '.join(latest)}")
    figures: dict[str, Any] = {"lines": lines, "bytes": size, "seconds": seconds, "cpu_seconds": cpu}
    for name, times in seconds.items():
        best, median = min(times), statistics.median(times)
        say(f"{name + ':':<12}best {best:.2f} s ({size / best / 1000:.0f} kB/s), median {median:.2f} s")
    for peer in peers:
        ratios = {
            "ratio": min(seconds[OURS]) / min(seconds[peer.name]),
            "ratio_of_medians": statistics.median(seconds[OURS]) / statistics.median(seconds[peer.name]),
            "cpu_ratio": statistics.median(cpu[OURS]) / statistics.median(cpu[peer.name]),
        }
        figures.setdefault("peers", {})[peer.name] = ratios
        figures = {**ratios, **figures}  # The first peer's have names of their own too.
        say(
            f"to {peer.name + ':':<9}{ratios['ratio']:.2f} of the best, {ratios['ratio_of_medians']:.2f} of the medians,"
            f" {LIMIT} allowed; {ratios['cpu_ratio']:.2f} of CPU time"
        )
    return figures


def _count(shell: Shell, lines: int) -> tuple[float, float, int]:
    """Let the guest count; seconds, seconds of CPU, bytes."""
    received, used = shell.received, shell.cpu_seconds()
    began = time.monotonic()
    shell.pour(f"seq 1 {lines}; echo end$((1+1))", "end2")
    return time.monotonic() - began, shell.cpu_seconds() - used, shell.received - received
