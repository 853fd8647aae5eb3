# SPDX-License-Identifier: GPL-2.0-or-later
"""SLOF from the start of the process to its Forth prompt, in turn with QEMU when wanted: the same image, the same bytes."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from splitvisor.bench.boot import BenchError
from splitvisor.guests.fetch import GuestError, fetch, resolve

PROMPT = b"\n0 > "
RUN_SECONDS = 120.0
LIMIT = 1.3
"""How much longer than QEMU the prompt may take."""

QEMU = "qemu-system-ppc64"
_QEMU_OPTIONS = shlex.split(
    "-accel tcg,thread=single -smp 1 -nodefaults -display none -vga none -serial stdio -monitor none "
    "-M pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off -cpu power8"
)


def qemu_command(program: str = QEMU) -> list[str]:
    """The fair peer for firmware; memory and firmware image are still to be added."""
    return [program, *_QEMU_OPTIONS]


def measure(runs: int, vs_qemu: bool, memory: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all. Raises BenchError."""
    if vs_qemu and shutil.which(QEMU) is None:
        raise BenchError(f"there is no {QEMU}; install the package qemu-system-ppc")
    try:
        fetch(say)
    except GuestError as error:
        raise BenchError(str(error)) from error
    slof = str(resolve("firmware", "slof"))
    own_command = [sys.executable, "-m", "splitvisor", "run", "--firmware", slof, "--memory", memory]
    their_command = [*qemu_command(), "-m", memory, "-bios", slof]
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(1, runs + 1):
        ours.append(_seconds_to_prompt(own_command))
        if vs_qemu:
            theirs.append(_seconds_to_prompt(their_command))
        say(f"run {number}: splitvisor {ours[-1]:.2f} s" + (f", qemu {theirs[-1]:.2f} s" if vs_qemu else ""))
    figures: dict[str, Any] = {"memory": memory, "splitvisor_seconds": ours}
    say(f"splitvisor: best {min(ours):.2f} s, median {statistics.median(ours):.2f} s to SLOF's prompt")
    if vs_qemu:
        figures["qemu_seconds"] = theirs
        figures["ratio"] = min(ours) / min(theirs)
        figures["ratio_of_medians"] = statistics.median(ours) / statistics.median(theirs)
        figures["limit"] = LIMIT
        say(f"qemu:       best {min(theirs):.2f} s, median {statistics.median(theirs):.2f} s")
        say(f"ratio:      {figures['ratio']:.2f} of the best, {figures['ratio_of_medians']:.2f} of the medians, {LIMIT} allowed")
    return figures


def _seconds_to_prompt(command: list[str]) -> float:
    """Start a machine, wait for the prompt, end it."""
    started = time.perf_counter()
    # Its standard input stays open: an end of input is a key press for a guest.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        shown = b""
        try:
            while PROMPT not in shown:
                left = started + RUN_SECONDS - time.perf_counter()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    raise BenchError(f"{command[0]} shows no prompt after {RUN_SECONDS:.0f} s: {shown[-200:]!r}")
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    raise BenchError(f"{command[0]} ended with {process.wait()} before a prompt: {shown[-200:]!r}")
                shown += data
            return time.perf_counter() - started
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
