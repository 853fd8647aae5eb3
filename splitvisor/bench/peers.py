# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs that benches run in turn with Splitvisor: the machine's own, and others by their paths."""

from __future__ import annotations

import re
import shlex
import shutil
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROGRAM = "qemu-system-ppc64"
OURS = "splitvisor"
_VERSION = re.compile(r"version (\d+\.\d+)")
_VERSION_S = 30.0
_OPTIONS = shlex.split("-accel tcg,thread=single -smp 1 -nodefaults -display none -vga none -cpu power8")
_MACHINE = "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"


class BenchError(Exception):
    """A run did not end as it must, or something that it needs is not there."""


@dataclass(frozen=True)
class Peer:
    """A QEMU.

    Attributes:
        name: how figures name it; "qemu" is the machine's own.
        program: its path, or a name in PATH.
    """

    name: str
    program: str

    def command(self, serial: str = "stdio", machine: Sequence[str] = ("x-vof=on",)) -> list[str]:
        """Return the fair peer: one vCPU in one thread, without a monitor.

        Args:
            serial: where its spapr-vty goes.
            machine: further options of the machine; VOF is firmware without a boot time of its own.
        """
        options = ["-serial", serial, "-monitor", "none", "-M", ",".join((_MACHINE, *machine))]
        return [self.program, *_OPTIONS, *options]


OWN = Peer("qemu", PROGRAM)
"""The machine's."""


def find(vs_qemu: bool, programs: Sequence[str] = ()) -> tuple[Peer, ...]:
    """Return the peers that a command asks for, each once. Raises BenchError when one is not there.

    Args:
        vs_qemu: the machine's own.
        programs: paths of others, which tell their version.
    """
    peers: dict[str, Peer] = {}
    for program in (*([PROGRAM] if vs_qemu else []), *programs):
        if shutil.which(program) is None:
            remedy = (
                "install the package qemu-system-ppc" if program == PROGRAM else "`./dev qemu10` makes QEMU 10.0 of Debian 13"
            )
            raise BenchError(f"there is no program {program}; {remedy}")
        name = OWN.name if program == PROGRAM else f"qemu {_version(program)}"
        while name in peers and peers[name].program != program:
            name += "'"
        peers[name] = Peer(name, program)
    return tuple(peers.values())


def _version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{program} does not run: {error}") from None
    found = _VERSION.search(done.stdout)
    if done.returncode or found is None:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise BenchError(f"{program} is no QEMU: --version gives {said}")
    return found[1]


def compare(ours: Sequence[float], theirs: Mapping[str, Sequence[float]], say: Callable[[str], None]) -> dict[str, Any]:
    """Print and return each peer's seconds, and how many times as long ours took: of the best runs, and of the medians.

    The first peer's ratios have names of their own too, which is where the history of figures has always had them.
    """
    figures: dict[str, Any] = {}
    for name, seconds in theirs.items():
        of_best = min(ours) / min(seconds)
        of_medians = statistics.median(ours) / statistics.median(seconds)
        say(f"{name + ':':<12}best {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s")
        say(f"{'ratio:':<12}{of_best:.2f} of the best, {of_medians:.2f} of the medians")
        peer = {"seconds": list(seconds), "ratio": of_best, "ratio_of_medians": of_medians}
        if not figures:
            figures = {"qemu_seconds": peer["seconds"], "ratio": of_best, "ratio_of_medians": of_medians, "peers": {}}
        figures["peers"][name] = peer
    return figures


def latest(seconds: Mapping[str, Sequence[float]]) -> str:
    """Return the last run of each, for people."""
    return ", ".join(f"{name} {runs[-1]:.2f} s" for name, runs in seconds.items())
