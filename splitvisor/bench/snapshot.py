# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench snapshot`: from the start of `splitvisor run --from FILE` to an answer of the shell that was saved."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splitvisor.bench.boot import RUN_SECONDS, BenchError, poweroff_command, wall_seconds
from splitvisor.bench.shell import guests_at_hand, own_shell

LIMIT = 0.3
"""Of the time that QEMU takes to boot the same kernel to power-off."""


def measure(runs: int, vs_qemu: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Save a shell once, restore it so often, print each figure as it comes, return them all. Raises BenchError."""
    guests_at_hand(say, *(["qemu-system-ppc64"] if vs_qemu else []))
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="sv-bench-") as name:
        snapshot = Path(name) / "shell.snapshot"
        _save(Path(name), snapshot)
        for number in range(1, runs + 1):
            ours.append(_seconds_to_answer(snapshot))
            if vs_qemu:
                theirs.append(wall_seconds(poweroff_command("512M")))
            say(f"run {number}: {ours[-1]:.2f} s to the shell's answer" + (f", qemu's boot {theirs[-1]:.2f} s" if theirs else ""))
        size = snapshot.stat().st_size
    figures: dict[str, Any] = {"seconds": ours, "median": statistics.median(ours), "snapshot_bytes": size}
    say(f"best {min(ours):.2f} s, median {figures['median']:.2f} s; the snapshot has {size / 1e6:.1f} MB")
    if vs_qemu:
        figures["qemu_boot_seconds"] = theirs
        figures["ratio_of_medians"] = figures["median"] / statistics.median(theirs)
        say(f"ratio: {min(ours) / min(theirs):.2f} of the best, {figures['ratio_of_medians']:.2f} of the medians")
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
