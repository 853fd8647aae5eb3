# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench guest`: work that keeps a guest's processor busy and asks nothing of devices, in turn with QEMUs.

Each guest is booted once; each does the same work with the same data and must come to the same result. CPU time is that of all
processes that run the guest, for hosts that are busy: then it says more than the time that passed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitvisor.bench.boot import RUN_SECONDS
from splitvisor.bench.command_shell import GUEST, commands_of
from splitvisor.bench.peers import OURS, BenchError, Peer
from splitvisor.bench.shell import Shell, guests_at_hand, own_shell, qemu_shell
from splitvisor.guests.commands import CommandError, Commands

LIMIT = 1.0
"""How much longer than a QEMU a work may take."""
_SLOWEST_S = 60.0
"""That a work of scale 1 may take on a host that is busy."""
_DATA, _LARGE = "/tmp/data", "/tmp/large"
_PREPARE = f"busybox head -c 262144 /bin/busybox >{_DATA}; busybox cat $(busybox yes {_DATA} | busybox head -n 32) >{_LARGE}"
"""Machine code, the same in every guest: 256 KiB, and 8 MiB."""


@dataclass(frozen=True)
class Work:
    """What a guest does.

    Attributes:
        name: of its figures.
        meaning: for people.
        command: shell commands, with {count} for how often, whose output is the same on every processor.
        count: that takes about a second.
    """

    name: str
    meaning: str
    command: str
    count: int

    def commands(self, scale: float) -> str:
        """Return the commands for a part of the work, or more of it."""
        return self.command.format(count=max(1, round(self.count * scale)))


def _times(command: str) -> str:
    return f"i=0; while [ $i -lt {{count}} ]; do {command}; i=$((i + 1)); done; echo $i"


WORKS = (
    Work("sha256", "sha256", f"busybox sha256sum $(busybox yes {_DATA} | busybox head -n {{count}}) | busybox sha256sum", 40),
    Work("gzip", "gzip", f"busybox gzip -c $(busybox yes {_DATA} | busybox head -n {{count}}) | busybox sha256sum", 8),
    Work("shell_loop", "a loop of the shell", _times(":"), 100_000),
    Work("fork", "fork and exit", _times("(:)"), 600),
    Work("fork_exec", "fork, exec and exit", _times("/bin/busybox true"), 250),
    Work("copy", "copies of memory", _times(f"busybox dd if={_LARGE} of=/tmp/copy bs=1M conv=notrunc 2>/dev/null"), 25),
    Work(
        "floating_point", "floating point",
        "busybox awk 'BEGIN {{ for (i = 1; i <= {count}; i++) s = s / 1.0001 + i * 1.5 / (i + 0.25);"
        " printf \"%.9f\\n\", s }}'",
        150_000,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class _Guest:
    shell: Shell
    commands: Commands


def measure(
    runs: int, peers: Sequence[Peer], say: Callable[[str], None], only: Collection[str] = (), scale: float = 1.0
) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all: by the work's name, and in each by the guest's.

    Args:
        runs: of each work.
        peers: in turn with these.
        say: gets each line.
        only: names of works; empty: all.
        scale: how much of each work is done.

    Raises BenchError.
    """
    guests_at_hand(say)
    works = [work for work in WORKS if not only or work.name in only]
    life_s = RUN_SECONDS + round(_SLOWEST_S * max(1.0, scale)) * len(works) * runs * (1 + len(peers))
    with ExitStack() as stack:
        guests: dict[str, _Guest] = {}
        for name, peer in ((OURS, None), *((peer.name, peer) for peer in peers)):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv-bench-")))
            boot = own_shell(place, initrd=GUEST, life_s=life_s) if peer is None else qemu_shell(place, peer, initrd=GUEST)
            shell = stack.enter_context(boot)
            guests[name] = _Guest(shell, commands_of(shell))
            try:
                guests[name].commands.ok(_PREPARE)
            except CommandError as error:
                raise BenchError(str(error)) from error
        return {work.name: _compare(work, guests, runs, scale, say) for work in works}


def _compare(work: Work, guests: dict[str, _Guest], runs: int, scale: float, say: Callable[[str], None]) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in guests}
    cpu: dict[str, list[float]] = {name: [] for name in guests}
    results: dict[str, str] = {}
    for _ in range(runs):
        for name, guest in guests.items():
            used, began = guest.shell.cpu_seconds(), time.monotonic()
            try:
                results[name] = guest.commands.ok(work.commands(scale), RUN_SECONDS)
            except CommandError as error:
                raise BenchError(f"{name}: {error}") from error
            seconds[name].append(time.monotonic() - began)
            cpu[name].append(guest.shell.cpu_seconds() - used)
    for name, result in results.items():
        if result != results[OURS]:
            raise BenchError(f"{work.meaning}: {name} comes to {result!r}, {OURS} to {results[OURS]!r}")
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    cpu_medians = {name: statistics.median(each) for name, each in cpu.items()}
    ratios = {name: medians[OURS] / median for name, median in medians.items() if name != OURS}
    cpu_ratios = {name: cpu_medians[OURS] / max(median, 0.01) for name, median in cpu_medians.items() if name != OURS}
    line = ", ".join(f"{name} {median:.2f} s ({cpu_medians[name]:.2f} s of CPU)" for name, median in medians.items())
    say(f"{work.meaning + ':':<22}{line}")
    for name, ratio in ratios.items():
        say(f"{'':<22}{ratio:.2f} times {name}, {cpu_ratios[name]:.2f} in CPU time; {LIMIT} allowed")
    figures: dict[str, Any] = {"seconds": seconds, "cpu_seconds": cpu, "medians": medians}
    if ratios:
        figures |= {"ratio": next(iter(ratios.values())), "ratios": ratios, "cpu_ratios": cpu_ratios}
    return figures
