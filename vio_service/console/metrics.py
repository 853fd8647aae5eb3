# SPDX-License-Identifier: GPL-2.0-or-later
"""The metrics of consoles."""

from __future__ import annotations

from collections.abc import Iterator

from splitvisor.observe import metrics
from splitvisor.observe.metrics import Sample
from splitvisor.trap.server import TrapServicer
from vio_service.bus.session import VioSession


def console_samples(traps: TrapServicer) -> Iterator[Sample]:
    """Yield the samples of every console of every VM."""
    for vm, session in traps.sessions().items():
        if not isinstance(session, VioSession):
            continue
        for console in session.consoles():
            labels, state = (vm, f"{console.unit_address:#x}"), console.describe()
            yield Sample(metrics.CONSOLE_OUTPUT, labels, state.output_bytes)
            yield Sample(metrics.CONSOLE_INPUT, labels, console.input_received)
            yield Sample(metrics.CONSOLE_DROPPED, labels, console.dropped_bytes)
            yield Sample(metrics.CONSOLE_READERS, labels, state.readers)
