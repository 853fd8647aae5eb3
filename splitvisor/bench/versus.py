# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest "debian-io" with a device, ours and QEMU's, each booted once and measured in turn."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from splitvisor.bench.command_shell import own_commands, qemu_commands
from splitvisor.bench.peers import OURS, Peer
from splitvisor.guests.commands import Commands

Boot = Callable[[Path], AbstractContextManager[Commands]]
"""Boots a guest, whose sockets are in a directory."""


@dataclass(frozen=True)
class Figure:
    """What is measured of a guest."""

    name: str
    meaning: str
    unit: str
    measure: Callable[[Commands], float]
    """Raises CommandError."""
    target: float
    """How many times as good as QEMU's it is to be."""
    less_is_better: bool = False
    decimals: int = 0
    """Of the figure as it is printed."""

    def ratio(self, ours: float, theirs: float) -> float:
        """Return how many times as good as QEMU's ours is."""
        return theirs / ours if self.less_is_better else ours / theirs


def machine_file(directory: Path, kind: str, option: str, value: str) -> Path:
    """Write a machine of Splitvisor with a terminal and one device, which has an option."""
    path = directory / "machine.toml"
    device = f'[[device]]\nkind = "{kind}"\n{option} = "{value}"\n'
    path.write_text(f'[[device]]\nkind = "vty"\n\n[[device]]\nkind = "nvram"\n\n{device}')
    return path


def guests(own_options: Sequence[str], peers: Mapping[Peer, Sequence[str]]) -> dict[str, Boot]:
    """Return how the guests are booted, ours first. peers: with the options of each, such as its device."""
    theirs = {peer.name: partial(qemu_commands, peer=peer, options=options) for peer, options in peers.items()}
    return {OURS: partial(own_commands, options=own_options), **theirs}


def compare(
    boots: Mapping[str, Boot],
    prepare: Callable[[Commands], None],
    figures: Sequence[Figure],
    runs: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Boot the guests, measure each figure in turn, print and return them: values of each run, medians and their ratio.

    Args:
        boots: by the guest's name.
        prepare: makes a guest ready.
        figures: what is measured.
        runs: of each.
        say: gets each line.

    Raises BenchError and CommandError.
    """
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        booted: dict[str, Commands] = {}
        for name, boot in boots.items():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv-bench-")))
            booted[name] = stack.enter_context(boot(directory))
            prepare(booted[name])
        for figure in figures:
            values: dict[str, list[float]] = {name: [] for name in booted}
            for _ in range(runs):
                for name, commands in booted.items():
                    values[name].append(figure.measure(commands))
            medians = {name: statistics.median(each) for name, each in values.items()}
            found[figure.name] = {"runs": values, "medians": medians, "unit": figure.unit}
            line = ", ".join(f"{name} {median:,.{figure.decimals}f} {figure.unit}" for name, median in medians.items())
            if OURS in medians and len(medians) > 1:
                ratios = {name: figure.ratio(medians[OURS], theirs) for name, theirs in medians.items() if name != OURS}
                found[figure.name] |= {"ratio": next(iter(ratios.values())), "ratios": ratios}
                line += f"; {', '.join(f'{ratio:.2f}' for ratio in ratios.values())} times as good, {figure.target} wanted"
            say(f"{figure.meaning + ':':<34}{line}")
    return found
