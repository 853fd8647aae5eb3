# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench memory`: what cpu_service needs beyond guest RAM at Debian's prompt, and QEMU when wanted.

Memory is the proportional set size: pages that processes share count for each of them in part. The mapping of guest RAM is left
out.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from splitvisor.bench.peers import BenchError, Peer
from splitvisor.bench.shell import QEMU_RAM, Shell, guests_at_hand, own_shell, qemu_shell, ready_shells

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$")
_OWN_RAM = ".ram"


def measure(peers: Sequence[Peer], say: Callable[[str], None], memory: str = "512M") -> dict[str, Any]:
    """Boot, print the figures, return them, in bytes. Raises BenchError."""
    guests_at_hand(say)
    figures: dict[str, Any] = {"memory": memory}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv-bench-")))
        ours = stack.enter_context(own_shell(directory, memory))
        theirs: dict[str, Shell] = {}
        for peer in peers:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv-bench-")))
            theirs[peer.name] = stack.enter_context(qemu_shell(place, peer, memory))
        ready_shells([ours, *theirs.values()])
        services = {name: beyond_ram(pid, _OWN_RAM) for name, pid in ours.pids().items()}
        figures["services_bytes"] = services
        figures["splitvisor_bytes"] = services["cpu"]
        for name, size in services.items():
            say(f"{name + ':':<12}{size / 1e6:6.1f} MB")
        for name, shell in theirs.items():
            size = beyond_ram(shell.pids()["qemu"], QEMU_RAM)
            ratio = figures["splitvisor_bytes"] / size
            figures.setdefault("qemu_bytes", size)
            figures.setdefault("ratio", ratio)
            figures.setdefault("peers", {})[name] = {"bytes": size, "ratio": ratio}
            say(f"{name + ':':<12}{size / 1e6:6.1f} MB")
            say(f"ratio:      {ratio:.2f} of cpu_service, 1.0 allowed")
    return figures


def beyond_ram(pid: int, ram: str) -> int:
    """Return the proportional set size of a process, without files whose names end in ram, in bytes. Raises BenchError."""
    total, counts = 0, True
    try:
        text = Path(f"/proc/{pid}/smaps").read_text()
    except OSError as error:
        raise BenchError(f"the memory of process {pid} cannot be read: {error.strerror}") from error
    for line in text.splitlines():
        mapping = _MAPPING.match(line)
        if mapping is not None:
            counts = not mapping[1].removesuffix(" (deleted)").endswith(ram)
        elif counts and line.startswith("Pss:"):
            total += 1024 * int(line.split()[1])
    return total
