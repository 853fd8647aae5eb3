# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench snapshot`: from the start of `splitvisor run --from FILE` to an answer of the shell that was saved."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splitvisor.bench.boot import RUN_SECONDS, poweroff_command, wall_seconds
from splitvisor.bench.peers import BenchError, Peer
from splitvisor.bench.shell import guests_at_hand, own_shell

LIMIT = 0.3
"""Of the time that QEMU takes to boot the same kernel to power-off."""


def measure(runs: int, peers: Sequence[Peer], say: Callable[[str], None]) -> dict[str, Any]:
    """Save a shell once, restore it so often, print each figure as it comes, return them all. Raises BenchError."""
    guests_at_hand(say)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer.name: [] for peer in peers}
    with tempfile.TemporaryDirectory(prefix="sv-bench-") as name:
        snapshot = Path(name) / "shell.snapshot"
        _save(Path(name), snapshot)
        for number in range(1, runs + 1):
            ours.append(_seconds_to_answer(snapshot))
            for peer in peers:
                theirs[peer.name].append(wall_seconds(poweroff_command(peer, "512M")))
            boots = "".join(f", {name}'s boot {seconds[-1]:.2f} s" for name, seconds in theirs.items())
            say(f"run {number}: {ours[-1]:.2f} s to the shell's answer{boots}")
        size = snapshot.stat().st_size
    figures: dict[str, Any] = {"seconds": ours, "median": statistics.median(ours), "snapshot_bytes": size}
    say(f"best {min(ours):.2f} s, median {figures['median']:.2f} s; the snapshot has {size / 1e6:.1f} MB")
    for name, seconds in theirs.items():
        of_medians = figures["median"] / statistics.median(seconds)
        figures.setdefault("qemu_boot_seconds", seconds)
        figures.setdefault("ratio_of_medians", of_medians)
        figures.setdefault("peers", {})[name] = {"boot_seconds": seconds, "ratio_of_medians": of_medians}
        say(f"to {name}: {min(ours) / min(seconds):.2f} of the best, {of_medians:.2f} of the medians")
    return figures


def _save(directory: Path, snapshot: Path) -> None:
    with own_shell(directory) as shell:
        shell.line("echo warm$((1+1))", "warm2")
        save = [sys.executable, "-m", "splitvisor", "vm", "save", "guest", str(snapshot)]
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
        done = subprocess.run(save, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
        if done.returncode:
            raise BenchError(f"the guest could not be saved: {done.stderr.strip()}")


def _seconds_to_answer(snapshot: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="sv-bench-") as directory:
        began = time.perf_counter()
        with own_shell(Path(directory), snapshot=snapshot) as shell:
            shell.line("echo here$((1+1))", "here2")
            return time.perf_counter() - began
