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
from splitvisor.guests.commands import Commands

OURS, THEIRS = "splitvisor", "qemu"
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

    def ratio(self, ours: float, theirs: float) -> float:
        """Return how many times as good as QEMU's ours is."""
        return theirs / ours if self.less_is_better else ours / theirs


def machine_file(directory: Path, kind: str, option: str, value: str) -> Path:
    """Write a machine of Splitvisor with a terminal and one device, which has an option."""
    path = directory / "machine.toml"
    device = f'[[device]]\nkind = "{kind}"\n{option} = "{value}"\n'
    path.write_text(f'[[device]]\nkind = "vty"\n\n[[device]]\nkind = "nvram"\n\n{device}')
    return path


def guests(own_options: Sequence[str], qemu_options: Sequence[str] | None) -> dict[str, Boot]:
    """Return how the guests are booted; qemu_options: None for ours alone."""
    ours = partial(own_commands, options=own_options)
    return {OURS: ours} if qemu_options is None else {OURS: ours, THEIRS: partial(qemu_commands, options=qemu_options)}


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
            line = ", ".join(f"{name} {median:,.0f} {figure.unit}" for name, median in medians.items())
            if medians.keys() >= {OURS, THEIRS}:
                ratio = found[figure.name]["ratio"] = figure.ratio(medians[OURS], medians[THEIRS])
                line += f"; {ratio:.2f} times as good, {figure.target} wanted"
            say(f"{figure.meaning + ':':<34}{line}")
    return found
