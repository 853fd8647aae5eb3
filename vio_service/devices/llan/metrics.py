# SPDX-License-Identifier: GPL-2.0-or-later
"""The metrics of network devices: what their wires count anyway, and what the guest had no buffer for."""

from __future__ import annotations

from collections.abc import Iterator

from splitvisor.backend.vio import VioSession
from splitvisor.observe import metrics
from splitvisor.observe.metrics import Sample
from splitvisor.trap.server import TrapServicer
from vio_service.devices.llan.device import LogicalLan


def network_samples(traps: TrapServicer) -> Iterator[Sample]:
    """Yield the samples of every network device of every VM."""
    for session in traps.sessions().values():
        if isinstance(session, VioSession):
            for device in session.bus.all(LogicalLan):
                yield from _samples(device)


def _samples(device: LogicalLan) -> Iterator[Sample]:
    counters, name = device.counters, f"{device.unit_address:#x}"
    ways = {
        "sent": (counters.sent, counters.sent_bytes, counters.sent_dropped),
        "received": (counters.received, counters.received_bytes, counters.received_dropped),
    }
    for direction, (frames, data, dropped) in ways.items():
        labels = (device.vm.name, name, direction)
        yield Sample(metrics.NETWORK_FRAMES, labels, frames)
        yield Sample(metrics.NETWORK_BYTES, labels, data)
        yield Sample(metrics.NETWORK_DROPPED, labels, dropped)
    yield Sample(metrics.NETWORK_UNBUFFERED, (device.vm.name, name), device.unbuffered)
