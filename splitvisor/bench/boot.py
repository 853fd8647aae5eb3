# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots of Debian's kernel to a marker in user space and to power-off, in turn with QEMU when wanted."""

from __future__ import annotations

import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splitvisor.guests.fetch import MARKER, GuestError, fetch, resolve

SAME_WORK = "mitigations=off"
"""What QEMU's firmware says of the processor has Linux flush caches and wait at barriers, what ours says has it not; this tells
both guests not to."""
_CONSOLE = "console=hvc0 panic=-1"
APPEND = f"{_CONSOLE} {SAME_WORK}"
RUN_SECONDS = 300
TOP_CALLS = 12

_QEMU = shlex.split("qemu-system-ppc64 -accel tcg,thread=single -smp 1 -nodefaults -display none -vga none -cpu power8")
_QEMU_MACHINE = "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"


def qemu_command(serial: str = "stdio", machine: Sequence[str] = ()) -> list[str]:
    """The peer: one vCPU in one thread, firmware without its own boot time.

    Args:
        serial: where its spapr-vty goes.
        machine: further options of the machine.
    """
    return [*_QEMU, "-serial", serial, "-M", ",".join((_QEMU_MACHINE, *machine))]


def poweroff_command(memory: str, append: str = SAME_WORK) -> list[str]:
    """QEMU with the guest that powers off. append: to the kernel's command line."""
    kernel, initrd = resolve("kernel", "debian"), resolve("initrd", "debian-poweroff")
    files = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", f"{_CONSOLE} {append}"]
    return [*qemu_command(), "-monitor", "none", "-m", memory, *files]


class BenchError(Exception):
    """A run did not end as it must."""


def poweroff_run(memory: str, append: str = SAME_WORK) -> list[str]:
    """Splitvisor with the guest that powers off."""
    kernel, initrd = resolve("kernel", "debian"), resolve("initrd", "debian-poweroff")
    files = ["--kernel", str(kernel), "--initrd", str(initrd), "--append", f"{_CONSOLE} {append}"]
    return [sys.executable, "-m", "splitvisor", "run", *files, "--memory", memory]


def measure(runs: int, vs_qemu: bool, memory: str, say: Callable[[str], None], *, append: str = SAME_WORK) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all.

    Args:
        runs: of each.
        vs_qemu: in turn with QEMU.
        memory: of the guest.
        say: gets each line.
        append: to the command line of the kernel, here and there.

    Raises BenchError.
    """
    if vs_qemu and shutil.which(_QEMU[0]) is None:
        raise BenchError(f"there is no {_QEMU[0]}; install the package qemu-system-ppc")
    try:
        fetch(say)
    except GuestError as error:
        raise BenchError(str(error)) from error
    ours: list[float] = []
    theirs: list[float] = []
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="splitvisor-bench-") as directory:
        report_file = Path(directory) / "report.json"
        own_command = [*poweroff_run(memory, append), "--report", str(report_file)]
        their_command = poweroff_command(memory, append)
        for number in range(1, runs + 1):
            ours.append(wall_seconds(own_command))
            report = json.loads(report_file.read_text())
            if vs_qemu:
                theirs.append(wall_seconds(their_command))
            say(f"run {number}: splitvisor {ours[-1]:.2f} s" + (f", qemu {theirs[-1]:.2f} s" if vs_qemu else ""))
    figures: dict[str, Any] = {"memory": memory, "append": append, "splitvisor_seconds": ours, "last_run": report}
    say(f"splitvisor: best {min(ours):.2f} s, median {statistics.median(ours):.2f} s")
    if vs_qemu:
        figures["qemu_seconds"] = theirs
        figures["ratio"] = min(ours) / min(theirs)
        figures["ratio_of_medians"] = statistics.median(ours) / statistics.median(theirs)
        say(f"qemu:       best {min(theirs):.2f} s, median {statistics.median(theirs):.2f} s")
        say(f"ratio:      {figures['ratio']:.2f} of the best, {figures['ratio_of_medians']:.2f} of the medians")
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
