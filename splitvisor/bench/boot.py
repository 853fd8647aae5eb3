# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots of Debian's kernel to a marker in user space and to power-off, in turn with QEMU when wanted."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splitvisor.bench.peers import OURS, BenchError, Peer, compare, latest
from splitvisor.guests.fetch import MARKER, GuestError, fetch, resolve

SAME_WORK = "mitigations=off"
"""What QEMU's firmware says of the processor has Linux flush caches and wait at barriers, what ours says has it not; this tells
both guests not to."""
_CONSOLE = "console=hvc0 panic=-1"
APPEND = f"{_CONSOLE} {SAME_WORK}"
RUN_SECONDS = 300
TOP_CALLS = 12


def poweroff_command(peer: Peer, memory: str, append: str = SAME_WORK) -> list[str]:
    """A QEMU with the guest that powers off. append: to the kernel's command line."""
    kernel, initrd = resolve("kernel", "debian"), resolve("initrd", "debian-poweroff")
    files = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", f"{_CONSOLE} {append}"]
    return [*peer.command(), "-m", memory, *files]


def poweroff_run(memory: str, append: str = SAME_WORK) -> list[str]:
    """Splitvisor with the guest that powers off."""
    kernel, initrd = resolve("kernel", "debian"), resolve("initrd", "debian-poweroff")
    files = ["--kernel", str(kernel), "--initrd", str(initrd), "--append", f"{_CONSOLE} {append}"]
    return [sys.executable, "-m", "splitvisor", "run", *files, "--memory", memory]


def measure(
    runs: int, peers: Sequence[Peer], memory: str, say: Callable[[str], None], *, append: str = SAME_WORK
) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all.

    Args:
        runs: of each.
        peers: in turn with these.
        memory: of the guest.
        say: gets each line.
        append: to the command line of the kernel, here and there.

    Raises BenchError.
    """
    try:
        fetch(say)
    except GuestError as error:
        raise BenchError(str(error)) from error
    seconds: dict[str, list[float]] = {OURS: [], **{peer.name: [] for peer in peers}}
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="splitvisor-bench-") as directory:
        report_file = Path(directory) / "report.json"
        commands = {OURS: [*poweroff_run(memory, append), "--report", str(report_file)]}
        commands |= {peer.name: poweroff_command(peer, memory, append) for peer in peers}
        for number in range(1, runs + 1):
            for name, command in commands.items():
                seconds[name].append(wall_seconds(command))
            say(f"run {number}: {latest(seconds)}")
        report = json.loads(report_file.read_text())
    ours = seconds.pop(OURS)
    figures: dict[str, Any] = {"memory": memory, "append": append, "splitvisor_seconds": ours, "last_run": report}
    say(f"splitvisor: best {min(ours):.2f} s, median {statistics.median(ours):.2f} s")
    figures |= compare(ours, seconds, say)
    _say_calls(report, say)
    return figures


def wall_seconds(command: list[str]) -> float:
    """Run a boot to power-off; return how long it took. Raises BenchError when it did not come so far."""
    started = time.perf_counter()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} took longer than {RUN_SECONDS} s") from None
    seconds = time.perf_counter() - started
    if done.returncode != 0 or MARKER.encode() not in done.stdout:
        tail = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-5:]
        raise BenchError(f"{command[0]} ended with {done.returncode}, no power-off after {MARKER}: {' / '.join(tail)}")
    return seconds


def _say_calls(report: dict[str, Any], say: Callable[[str], None]) -> None:
    uptime, waiting = report["uptime_seconds"], report["waiting_seconds"]
    share = 100 * waiting / uptime if uptime else 0.0
    say(f"last run:   {uptime:.2f} s of the machine, {waiting:.2f} s of it ({share:.0f} %) waiting for back ends")
    for call in report["calls"][:TOP_CALLS]:
        per_call = f"{1e6 * call['seconds'] / call['count']:8.0f} us each" if call["seconds"] else ""
        say(f"  {call['count']:>8} {call['name']:<28} {call['owner']:<18}{per_call}".rstrip())
