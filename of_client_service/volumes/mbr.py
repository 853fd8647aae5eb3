# SPDX-License-Identifier: GPL-2.0-or-later
"""Master boot records: four primary partitions, and logical ones in a chain of extended boot records.

At byte 446 of a block there are four entries of 16 bytes: flag, 3 bytes, type, 3 bytes, then little-endian first block and number
of blocks; at byte 510 the signature 55 AA. Of an extended boot record, one entry is a logical partition, relative to that record,
and another the next record, relative to the extended partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from of_client_service.volumes.source import Extent, Source

SIGNATURE = b"\x55\xaa"
SIGNATURE_AT = 510
PREP, PROTECTIVE = 0x41, 0xEE
EXTENDED = (0x05, 0x0F, 0x85)
FIRST_LOGICAL = 5
MAX_LOGICAL = 128
"""Records of a chain that are followed. Linux's limit for a disk is 256 partitions."""
_TABLE_AT, _ENTRIES = 446, 4
_ENTRY = Struct("<B3xB3xII")
_RECORD_BYTES = 512


@dataclass(frozen=True)
class MbrEntry:
    """A partition."""

    number: int
    kind: int
    """The type byte."""
    extent: Extent


@dataclass(frozen=True)
class Mbr:
    """The table of a medium."""

    entries: tuple[MbrEntry, ...]
    trouble: str = ""
    """What is wrong with the chain of logical partitions."""


async def read_mbr(source: Source) -> Mbr | None:
    """Read the table at the start of a medium and its logical partitions; None when there is none.

    Of the chain, what is whole counts. Raises VolumeError for a medium of less than a block, MediumError.
    """
    if source.size < _RECORD_BYTES:
        return None
    record = await source.read(0, _RECORD_BYTES)
    raw = _raw_entries(record)
    # The first block of a FAT file system has the signature, too, and something else where the table would be.
    if raw is None or any(flag & 0x7F for flag, *_ in raw):
        return None
    entries = [
        MbrEntry(number, kind, _extent(source, first, blocks))
        for number, (_, kind, first, blocks) in enumerate(raw, 1)
        if kind and blocks and kind not in EXTENDED
    ]
    trouble = ""
    for _, kind, first, blocks in raw:
        if kind in EXTENDED and blocks:
            logical, trouble = await _logical(source, first, blocks)
            entries += logical
            break
    return Mbr(tuple(entries), trouble)


async def _logical(source: Source, start: int, blocks: int) -> tuple[list[MbrEntry], str]:
    """Follow the chain of an extended partition. Returns what it has, and why it ended early."""
    entries: list[MbrEntry] = []
    record_at, seen = start, set[int]()
    while True:
        if record_at in seen or len(seen) >= MAX_LOGICAL:
            return entries, "its chain of logical partitions does not end"
        seen.add(record_at)
        offset = record_at * source.block_bytes
        if not start <= record_at < start + blocks or offset + _RECORD_BYTES > source.size:
            return entries, "its chain of logical partitions leaves the extended partition"
        raw = _raw_entries(await source.read(offset, _RECORD_BYTES))
        if raw is None:
            return entries, "its chain of logical partitions ends in something else"
        for _, kind, first, length in raw[:2]:
            if kind and length and kind not in EXTENDED:
                extent = _extent(source, record_at + first, length)
                entries.append(MbrEntry(FIRST_LOGICAL + len(entries), kind, extent))
                break
        following = next((first for _, kind, first, length in raw[:2] if kind in EXTENDED and length), None)
        if following is None:
            return entries, ""
        record_at = start + following


def _raw_entries(record: bytes) -> list[tuple[int, int, int, int]] | None:
    """Return (flag, type, first block, blocks) of each entry; None without the signature."""
    if record[SIGNATURE_AT : SIGNATURE_AT + 2] != SIGNATURE:
        return None
    return [_ENTRY.unpack_from(record, _TABLE_AT + _ENTRY.size * number) for number in range(_ENTRIES)]


def _extent(source: Source, first: int, blocks: int) -> Extent:
    return Extent(first * source.block_bytes, blocks * source.block_bytes)
