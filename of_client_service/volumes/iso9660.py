# SPDX-License-Identifier: GPL-2.0-or-later
"""Files on a CD: the part of ISO 9660 (ECMA-119) that firmware needs, by the names of its first volume descriptor.

Names count without their version ("BOOTINFO.TXT;1") and whatever their case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from of_client_service.volumes.source import Extent, Part, Source, VolumeError

SECTOR_BYTES = 2048
DESCRIPTORS_AT = 16
"""Sector of the first volume descriptor."""
MAX_DESCRIPTORS = 32
MAX_DIRECTORY_BYTES = 1 << 20
"""Of a directory: 10,000 files."""
_IDENTIFIER = b"CD001"
_PRIMARY, _TERMINATOR = 1, 255
_BLOCK_BYTES_AT, _ROOT_AT = 128, 156
_ROOT_BYTES = 34
_DIRECTORY, _ASSOCIATED, _CONTINUED = 0x02, 0x04, 0x80


@dataclass(frozen=True)
class _Record:
    """An entry of a directory."""

    name: str
    start: int
    size: int
    flags: int
    interleaved: bool


async def find_file(source: Source, path: Sequence[str]) -> Part | None:
    """Return a file by the names of its directories and its own; None when there is none, or no ISO 9660.

    Raises VolumeError when what leads to it is broken, MediumError.
    """
    volume = await _primary(source)
    if volume is None:
        return None
    block_bytes = int.from_bytes(volume[_BLOCK_BYTES_AT : _BLOCK_BYTES_AT + 2], "little")
    if block_bytes not in (512, 1024, 2048):
        raise VolumeError(f"has an ISO 9660 file system with blocks of {block_bytes} bytes")
    found: list[_Record] = [_record(volume[_ROOT_AT : _ROOT_AT + _ROOT_BYTES])]
    for name in path:
        [*_, directory] = found
        if not directory.flags & _DIRECTORY:
            return None
        found = await _look_up(source, directory, block_bytes, name)
        if not found:
            return None
    if any(each.flags & _DIRECTORY or each.interleaved for each in found):
        return None
    return Part(source, [Extent(each.start * block_bytes, each.size) for each in found])


async def _primary(source: Source) -> bytes | None:
    for sector in range(DESCRIPTORS_AT, DESCRIPTORS_AT + MAX_DESCRIPTORS):
        if (sector + 1) * SECTOR_BYTES > source.size:
            return None
        descriptor = await source.read(sector * SECTOR_BYTES, SECTOR_BYTES)
        if descriptor[1:6] != _IDENTIFIER or descriptor[0] == _TERMINATOR:
            return None
        if descriptor[0] == _PRIMARY:
            return descriptor
    return None


async def _look_up(source: Source, directory: _Record, block_bytes: int, name: str) -> list[_Record]:
    """Return the records of a name, several when the file has several extents; none when there is no such name."""
    if directory.size > MAX_DIRECTORY_BYTES:
        raise VolumeError(f"has a directory of {directory.size} bytes")
    data = await source.read(directory.start * block_bytes, directory.size)
    wanted = name.upper()
    found: list[_Record] = []
    for record in _records(data):
        if record.name == wanted and not record.flags & _ASSOCIATED:
            found.append(record)
            if not record.flags & _CONTINUED:
                return found
        elif found:
            break
    return []


def _records(data: bytes) -> Iterator[_Record]:
    """Yield the entries of a directory. None crosses a sector's end."""
    for sector in range(0, len(data), SECTOR_BYTES):
        end = min(sector + SECTOR_BYTES, len(data))
        at = sector
        while at < end and (length := data[at]):
            if length < _ROOT_BYTES or at + length > end:
                raise VolumeError("has a broken ISO 9660 directory")
            yield _record(data[at : at + length])
            at += length


def _record(data: bytes) -> _Record:
    name_bytes = data[32]
    if 33 + name_bytes > len(data):
        raise VolumeError("has a broken ISO 9660 directory")
    name = data[33 : 33 + name_bytes].decode("latin-1").partition(";")[0].rstrip(".").upper()
    start = int.from_bytes(data[2:6], "little") + data[1]
    return _Record(name, start, int.from_bytes(data[10:14], "little"), data[25], bool(data[26] or data[27]))
