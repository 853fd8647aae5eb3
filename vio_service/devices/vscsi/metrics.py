# SPDX-License-Identifier: GPL-2.0-or-later
"""The metrics of disks and drives: what they count anyway."""

from __future__ import annotations

from collections.abc import Iterator

from splitvisor.backend.vio import VioSession
from splitvisor.block.statistics import DiskStatistics
from splitvisor.observe import metrics
from splitvisor.observe.metrics import Sample
from splitvisor.trap.server import TrapServicer
from vio_service.devices.vscsi.device import VScsi


def disk_samples(traps: TrapServicer) -> Iterator[Sample]:
    """Yield the samples of every disk and drive of every VM."""
    for vm, session in traps.sessions().items():
        if isinstance(session, VioSession):
            for device in session.bus.all(VScsi):
                yield from samples_of(vm, device)


def samples_of(vm: str, device: VScsi) -> Iterator[Sample]:
    """Yield the samples of an adapter's disks and drives; one without a medium has none."""
    for place in device.units.places:
        image = device.units.images.get(place.number)
        if image is not None:
            yield from _samples((vm, f"{device.unit_address:#x}", place.key), image.statistics)


def _samples(labels: tuple[str, str, str], found: DiskStatistics) -> Iterator[Sample]:
    yield Sample(metrics.DISK_TIME, (*labels, "read"), found.read_times)
    yield Sample(metrics.DISK_TIME, (*labels, "write"), found.write_times)
    yield Sample(metrics.DISK_TIME, (*labels, "flush"), found.flush_times)
    yield Sample(metrics.DISK_TIME, (*labels, "discard"), found.discard_times)
    yield Sample(metrics.DISK_BYTES, (*labels, "read"), found.read_bytes)
    yield Sample(metrics.DISK_BYTES, (*labels, "write"), found.written_bytes)
    yield Sample(metrics.DISK_ERRORS, labels, found.errors)
    yield Sample(metrics.DISK_DEPTH, labels, found.depth)
