# SPDX-License-Identifier: GPL-2.0-or-later
"""An opened disk, partition or file: what open, read, seek and write do with "disk@8100000000000000:2,\\boot\\grub.cfg".

Arguments are those of IEEE 1275's disk-label package: a partition's number, 0 or none for the whole medium, and a file on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from of_client_service.device_tree import Package
from of_client_service.disks.medium import Medium, open_medium
from of_client_service.instances import Instance
from of_client_service.volumes.files import find_file
from of_client_service.volumes.partitions import read_partitions
from of_client_service.volumes.source import Extent, Part, Source, VolumeError
from splitvisor.backend import Call, Vm
from splitvisor.papr.block_access import BlockUnit
from splitvisor.rpc import state_pb2 as pb

MAX_TRANSFER = 16 << 20
"""Bytes of one read or write; the client gets a short count and goes on from there."""
MAX_SAVED_EXTENTS = 1 << 17
"""Of an instance in a snapshot: a file of the largest size in clusters of 512 bytes."""
WHOLE_MEDIUM = ("", "0", "nolabel")

log = structlog.get_logger()


@dataclass(frozen=True)
class DiskArguments:
    """The arguments of a disk's path."""

    partition: int
    """0: the whole medium."""
    file: str
    """Empty: all of it."""

    @classmethod
    def parse(cls, text: str) -> DiskArguments | None:
        """Take them apart; None when they mean nothing."""
        label, comma, file = text.partition(",")
        if not comma and "\\" in label:
            label, file = "", label
        if label in WHOLE_MEDIUM:
            return cls(0, file)
        if not label.isascii() or not label.isdecimal() or len(label) > 3:
            return None
        return cls(int(label), file)


async def select(medium: Source, arguments: DiskArguments) -> Source:
    """Return the part of a medium that arguments name. Raises VolumeError when it is not there, MediumError.

    A CD without a table has its file system in "partition 1", as firmware has it.
    """
    selected: Source = medium
    if arguments.partition:
        partitions = await read_partitions(medium)
        partition = partitions.get(arguments.partition)
        if partition is not None:
            selected = Part(medium, [partition.extent])
        elif partitions.kind and not arguments.file:
            raise VolumeError(f"has no partition {arguments.partition}")
    if not arguments.file:
        return selected
    for source in (selected, medium):
        if (file := await find_file(source, arguments.file)) is not None:
            return file
    raise VolumeError(f"has no file {arguments.file}")


async def open_disk(vm: Vm, adapter: int, lun: int, arguments: str) -> tuple[Medium, tuple[Extent, ...]]:
    """Open what a disk's path names. Returns its medium, and which bytes of it. Raises VolumeError, MediumError."""
    parsed = DiskArguments.parse(arguments)
    if parsed is None:
        raise VolumeError(f"has nothing called {arguments!r}")
    medium = await open_medium(vm, adapter, lun)
    selected = await select(medium, parsed)
    return medium, tuple(selected.extents(0, selected.size))


class DiskInstance(Instance):
    """An opened part of a medium, with a position.

    Args:
        package: the wildcard node of its adapter.
        path: see Instance.
        medium: the medium.
        extents: which bytes of it, in order. Raises VolumeError when the medium does not have them.
        position: where it is read next, in bytes.
    """

    def __init__(self, package: Package, path: str, medium: Medium, extents: Sequence[Extent], position: int = 0) -> None:
        super().__init__(package, path)
        self.medium = medium
        self._extents = tuple(extents)
        self._part = Part(medium, self._extents)
        self._position = min(position, self._part.size)

    @property
    def blocks(self) -> int:
        """Whole blocks of the part."""
        return self._part.size // self.medium.block_bytes

    def seek(self, position: int) -> bool:
        """See Instance."""
        if position > self._part.size:
            return False
        self._position = position
        return True

    async def read(self, vm: Vm, buffer: int, length: int) -> int | None:
        """Read up to the part's end; None at a medium that fails, and the position stays."""
        return await self._transfer(buffer, length, self.medium.load)

    async def write(self, vm: Vm, call: Call, buffer: int, length: int) -> int | None:
        """Write whole blocks up to the part's end; None at a medium that fails, and the position stays."""
        return await self._transfer(buffer, length, self.medium.store)

    async def _transfer(self, buffer: int, length: int, move: Callable[[int, int, int], Awaitable[None]]) -> int | None:
        wanted = min(length, MAX_TRANSFER, self._part.size - self._position)
        moved = 0
        try:
            for extent in self._part.extents(self._position, wanted):
                await move(extent.start, buffer + moved, extent.length)
                moved += extent.length
        except VolumeError as error:
            log.debug("a client could not use a disk", disk=self.path, reason=str(error))
            return None
        self._position += moved
        return moved

    def save(self, state: pb.InstanceState) -> None:
        """See Instance."""
        unit = self.medium.unit
        state.disk.CopyFrom(
            pb.DiskInstanceState(
                adapter=self.medium.adapter,
                lun=self.medium.lun,
                unit=unit.outputs(),
                extents=[edge for extent in self._extents for edge in (extent.start, extent.length)],
                position=self._position,
            )
        )


def restored_disk(vm: Vm, package: Package, path: str, state: pb.DiskInstanceState) -> DiskInstance:
    """Return a saved instance. Raises ValueError when there cannot be one like it."""
    unit = BlockUnit.parse(state.unit)
    if unit is None or len(state.extents) % 2 or len(state.extents) > 2 * MAX_SAVED_EXTENTS:
        raise ValueError("a disk that cannot be")
    extents = [Extent(start, length) for start, length in zip(state.extents[::2], state.extents[1::2], strict=True)]
    try:
        return DiskInstance(package, path, Medium(vm, state.adapter, state.lun, unit), extents, state.position)
    except VolumeError as error:
        raise ValueError(f"a disk that {error}") from error
