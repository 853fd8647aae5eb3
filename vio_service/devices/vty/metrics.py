# SPDX-License-Identifier: GPL-2.0-or-later
"""The metrics of VTYs: what their consoles count anyway."""

from __future__ import annotations

from collections.abc import Iterator

from splitvisor.observe import metrics
from splitvisor.observe.metrics import Sample
from splitvisor.trap.server import TrapServicer
from vio_service.console.directory import consoles_of


def console_samples(traps: TrapServicer) -> Iterator[Sample]:
    """Yield the samples of every console of every VM."""
    for console in consoles_of(traps):
        labels, state = (console.vm, f"{console.unit_address:#x}"), console.describe()
        yield Sample(metrics.CONSOLE_OUTPUT, labels, state.output_bytes)
        yield Sample(metrics.CONSOLE_INPUT, labels, console.input_received)
        yield Sample(metrics.CONSOLE_DROPPED, labels, console.dropped_bytes)
        yield Sample(metrics.CONSOLE_READERS, labels, state.readers)
