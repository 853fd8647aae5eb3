# SPDX-License-Identifier: GPL-2.0-or-later
"""What disks and drives are and have done, for VioBusService."""

from __future__ import annotations

from collections.abc import Iterator

from splitvisor.block.statistics import DiskStatistics
from splitvisor.net.times import duration
from splitvisor.rpc import vio_bus_pb2
from splitvisor.scsi.cd_unit import CdUnit
from splitvisor.scsi.target import Target
from vio_service.devices.vscsi.luns import BUS_BITS, UNIT_BITS
from vio_service.devices.vscsi.units import Units


def describe_disks(units: Units, target: Target) -> Iterator[vio_bus_pb2.Disk]:
    """Yield the disks and drives of an adapter, by target."""
    for place in units.places:
        image, unit = units.images.get(place.number), target.units.get(place.number)
        disk = vio_bus_pb2.Disk(
            name=place.key,
            target=place.number >> UNIT_BITS + BUS_BITS,
            serial=place.options.serial,
            read_only=True if image is None else image.read_only,
        )
        if image is not None:
            disk.place, disk.size = place.options.name, image.size
            disk.counters.CopyFrom(_counters(image.statistics))
        if isinstance(unit, CdUnit):
            disk.drive.tray_open, disk.drive.locked = unit.tray_open, bool(unit.locks)
        yield disk


def _counters(found: DiskStatistics) -> vio_bus_pb2.DiskCounters:
    def operations(count: int, length: int, seconds: float) -> vio_bus_pb2.DiskOperations:
        return vio_bus_pb2.DiskOperations(count=count, bytes=length, time=duration(seconds))

    return vio_bus_pb2.DiskCounters(
        reads=operations(found.reads, found.read_bytes, found.read_times.seconds),
        writes=operations(found.writes, found.written_bytes, found.write_times.seconds),
        flushes=operations(found.flushes, 0, found.flush_times.seconds),
        discards=operations(found.discards, 0, found.discard_times.seconds),
        errors=found.errors,
        depth=found.depth,
        deepest=found.deepest,
    )
