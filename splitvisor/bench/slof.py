# SPDX-License-Identifier: GPL-2.0-or-later
"""SLOF from the start of the process to its Forth prompt, in turn with QEMU when wanted: the same image, the same bytes."""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from splitvisor.bench.peers import OURS, BenchError, Peer, compare, latest
from splitvisor.guests.fetch import GuestError, fetch, resolve

PROMPT = b"\n0 > "
RUN_SECONDS = 120.0
LIMIT = 1.3
"""How much longer than QEMU the prompt may take."""


def qemu_command(program: str) -> list[str]:
    """A QEMU for firmware; memory and firmware image are still to be added."""
    return Peer(program, program).command(machine=())


def measure(runs: int, peers: Sequence[Peer], memory: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all. Raises BenchError."""
    try:
        fetch(say)
    except GuestError as error:
        raise BenchError(str(error)) from error
    slof = str(resolve("firmware", "slof"))
    commands = {OURS: [sys.executable, "-m", "splitvisor", "run", "--firmware", slof, "--memory", memory]}
    commands |= {peer.name: [*qemu_command(peer.program), "-m", memory, "-bios", slof] for peer in peers}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(1, runs + 1):
        for name, command in commands.items():
            seconds[name].append(_seconds_to_prompt(command))
        say(f"run {number}: {latest(seconds)}")
    ours = seconds.pop(OURS)
    figures: dict[str, Any] = {"memory": memory, "splitvisor_seconds": ours}
    say(f"splitvisor: best {min(ours):.2f} s, median {statistics.median(ours):.2f} s to SLOF's prompt")
    if seconds:
        figures |= {**compare(ours, seconds, say), "limit": LIMIT}
        say(f"{LIMIT} times the first one's is allowed")
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
