# SPDX-License-Identifier: GPL-2.0-or-later
"""Files on a FAT file system (Microsoft's FAT specification 1.03), by their short names: FAT12, FAT16 and FAT32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from of_client_service.volumes.source import Extent, Part, Source, VolumeError

MAX_DIRECTORY_BYTES = 1 << 20
MAX_FILE_BYTES = 64 << 20
_BOOT_BYTES = 512
_FAT12_CLUSTERS, _FAT16_CLUSTERS = 4085, 65525
_ENTRY_BYTES = 32
_VOLUME_LABEL, _DIRECTORY, _LONG_NAME = 0x08, 0x10, 0x0F
_FREE, _END = 0xE5, 0x00
_TABLE_PIECE = 4096
"""Bytes of the table that are read at once."""


@dataclass(frozen=True)
class _Geometry:
    """Where everything is, in bytes from the file system's start."""

    cluster_bytes: int
    clusters: int
    table_at: int
    table_bytes: int
    root_at: int
    root_bytes: int
    """Of FAT12 and FAT16."""
    root_cluster: int
    """Of FAT32."""
    data_at: int
    bits: int

    @property
    def last(self) -> int:
        """The highest number of a cluster."""
        return self.clusters + 1


async def find_file(source: Source, path: Sequence[str]) -> Part | None:
    """Return a file by the names of its directories and its own; None when there is none, or no FAT.

    Raises VolumeError when what leads to it is broken, MediumError.
    """
    if source.size < _BOOT_BYTES:
        return None
    geometry = _geometry(await source.read(0, _BOOT_BYTES), source.size)
    if geometry is None:
        return None
    volume = _Volume(source, geometry)
    directory = await volume.root()
    for position, name in enumerate(path):
        entry = _look_up(directory, name)
        if entry is None:
            return None
        is_last = position == len(path) - 1
        if bool(entry.attributes & _DIRECTORY) is is_last:
            return None
        if is_last:
            if entry.size > MAX_FILE_BYTES:
                raise VolumeError(f"has a file {name} of {entry.size} bytes")
            return Part(source, await volume.chain(entry.cluster, entry.size))
        directory = await volume.directory(entry.cluster)
    return None


class _Volume:
    """Reads directories and chains of clusters; each piece of the table that a chain passes is read once."""

    def __init__(self, source: Source, geometry: _Geometry) -> None:
        self._source, self._geometry = source, geometry
        self._piece_at, self._piece = -1, b""

    async def root(self) -> bytes:
        """Return the root directory."""
        geometry = self._geometry
        if geometry.bits == 32:
            return await self.directory(geometry.root_cluster)
        return await self._source.read(geometry.root_at, geometry.root_bytes)

    async def directory(self, cluster: int) -> bytes:
        """Return a directory by its first cluster; 0 is the root."""
        if cluster == 0:
            return await self.root() if self._geometry.bits != 32 or self._geometry.root_cluster else b""
        extents = await self.chain(cluster, None)
        return b"".join([await self._source.read(each.start, each.length) for each in extents])

    async def chain(self, cluster: int, size: int | None) -> list[Extent]:
        """Return where a file of so many bytes is; None: a directory, up to its last cluster. Raises VolumeError."""
        geometry = self._geometry
        limit = MAX_DIRECTORY_BYTES if size is None else size
        found: list[Extent] = []
        covered = 0
        while covered < limit and (size is not None or cluster <= geometry.last):
            if not 2 <= cluster <= geometry.last:
                raise VolumeError("has a FAT file whose chain of clusters is broken")
            start = geometry.data_at + (cluster - 2) * geometry.cluster_bytes
            length = min(geometry.cluster_bytes, limit - covered)
            if found and found[-1].start + found[-1].length == start:
                found[-1] = Extent(found[-1].start, found[-1].length + length)
            else:
                found.append(Extent(start, length))
            covered += length
            cluster = await self._next(cluster) if covered < limit else 0
        return found

    async def _next(self, cluster: int) -> int:
        """Return what the table has for a cluster."""
        bits = self._geometry.bits
        at = cluster * bits // 8
        data = await self._table(at, 2 if bits < 32 else 4)
        value = int.from_bytes(data, "little")
        if bits == 12:
            return value >> 4 if cluster % 2 else value & 0xFFF
        return value & 0x0FFF_FFFF

    async def _table(self, at: int, length: int) -> bytes:
        if at + length > self._geometry.table_bytes:
            raise VolumeError("has a FAT that is smaller than its file system")
        if not self._piece_at <= at <= at + length <= self._piece_at + len(self._piece):
            piece = min(_TABLE_PIECE, self._geometry.table_bytes - at)
            self._piece_at, self._piece = at, await self._source.read(self._geometry.table_at + at, piece)
        offset = at - self._piece_at
        return self._piece[offset : offset + length]


def _geometry(boot: bytes, size: int) -> _Geometry | None:
    """Understand a boot sector; None when it is not that of a FAT file system in so many bytes."""

    def number(at: int, length: int) -> int:
        return int.from_bytes(boot[at : at + length], "little")

    sector, per_cluster, reserved, tables, root_entries = number(11, 2), boot[13], number(14, 2), boot[16], number(17, 2)
    sectors = number(19, 2) or number(32, 4)
    table_sectors = number(22, 2) or number(36, 4)
    is_fat = (
        sector in (512, 1024, 2048, 4096)
        and per_cluster in (1, 2, 4, 8, 16, 32, 64, 128)
        and reserved > 0
        and tables in (1, 2)
        and (boot[21] == 0xF0 or boot[21] >= 0xF8)
        and table_sectors > 0
        and 0 < sectors * sector <= size
    )
    if not is_fat:
        return None
    root_bytes = root_entries * _ENTRY_BYTES
    root_at = (reserved + tables * table_sectors) * sector
    data_at = root_at + -(-root_bytes // sector) * sector
    clusters = (sectors * sector - data_at) // (per_cluster * sector)
    if clusters < 1:
        return None
    bits = 12 if clusters < _FAT12_CLUSTERS else 16 if clusters < _FAT16_CLUSTERS else 32
    if (bits == 32) is not (root_entries == 0):
        return None
    return _Geometry(
        cluster_bytes=per_cluster * sector,
        clusters=clusters,
        table_at=reserved * sector,
        table_bytes=table_sectors * sector,
        root_at=root_at,
        root_bytes=root_bytes,
        root_cluster=number(44, 4) & 0x0FFF_FFFF,
        data_at=data_at,
        bits=bits,
    )


@dataclass(frozen=True)
class _Entry:
    attributes: int
    cluster: int
    size: int


def _look_up(directory: bytes, name: str) -> _Entry | None:
    return next((entry for entry_name, entry in _entries(directory) if entry_name == name.upper()), None)


def _entries(directory: bytes) -> Iterator[tuple[str, _Entry]]:
    for at in range(0, len(directory) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        raw = directory[at : at + _ENTRY_BYTES]
        attributes = raw[11]
        if raw[0] == _END:
            return
        if raw[0] == _FREE or attributes & 0x3F == _LONG_NAME or attributes & _VOLUME_LABEL:
            continue
        stem, extension = (raw[start:stop].decode("latin-1").rstrip() for start, stop in ((0, 8), (8, 11)))
        cluster = int.from_bytes(raw[20:22], "little") << 16 | int.from_bytes(raw[26:28], "little")
        size = int.from_bytes(raw[28:32], "little")
        yield (f"{stem}.{extension}" if extension else stem).upper(), _Entry(attributes, cluster, size)
