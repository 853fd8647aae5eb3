# SPDX-License-Identifier: GPL-2.0-or-later
"""GUID partition tables (UEFI 2.10 chapter 5.3): a header in block 1 and its table, both again at the end of the medium."""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass
from struct import Struct

from of_client_service.volumes.source import Extent, MediumError, Source, VolumeError

SIGNATURE = b"EFI PART"
PREP = uuid.UUID("9e1a2d38-c612-4316-aa26-8b49521e5a8b")
MAX_TABLE_BYTES = 1 << 20
"""Of the table; the usual one has 16 KiB."""
MAX_ENTRY_BYTES = 4096
MIN_HEADER_BYTES, MIN_ENTRY_BYTES = 92, 128
_HEADER = Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = Struct("<16s16sQQ")
_UNUSED = bytes(16)


class GptError(VolumeError):
    """A table cannot be used."""


class NoGptError(GptError):
    """Neither place has the signature."""


@dataclass(frozen=True)
class GptEntry:
    """A partition."""

    number: int
    kind: uuid.UUID
    extent: Extent


async def read_gpt(source: Source) -> tuple[tuple[GptEntry, ...], str]:
    """Read the table of a medium, the second one when the first is broken.

    Returns its partitions, and what is wrong with the first table; empty: nothing. Raises GptError when neither can be used.
    """
    last = source.size // source.block_bytes - 1
    try:
        return await _read_table(source, 1, last), ""
    except (GptError, MediumError) as error:
        first = error
    try:
        entries = await _read_table(source, last, last)
    except (GptError, MediumError) as second:
        if isinstance(first, NoGptError) and isinstance(second, NoGptError):
            raise NoGptError("its MBR protects a GPT that is not there") from None
        raise GptError(f"both of its GPTs are broken: the first {first}, the second {second}") from None
    return entries, f"its first GPT {first}; the second is used"


async def _read_table(source: Source, block: int, last: int) -> tuple[GptEntry, ...]:
    size = source.block_bytes
    if not 1 <= block <= last:
        raise NoGptError("is not there")
    data = await source.read(block * size, size)
    signature, revision, header_bytes, checksum, _, own, _, first, end, _, table, count, entry_bytes, table_checksum = (
        _HEADER.unpack_from(data)
    )
    if signature != SIGNATURE:
        raise NoGptError("has no signature")
    if revision >> 16 != 1 or not MIN_HEADER_BYTES <= header_bytes <= size:
        raise GptError("has a header of another version")
    if zlib.crc32(data[:16] + bytes(4) + data[20:header_bytes]) != checksum:
        raise GptError("has a wrong header checksum")
    if own != block:
        raise GptError("is not where its header says")
    power_of_two = MIN_ENTRY_BYTES <= entry_bytes <= MAX_ENTRY_BYTES and not entry_bytes & (entry_bytes - 1)
    table_bytes = count * entry_bytes
    if not power_of_two or not 0 < table_bytes <= MAX_TABLE_BYTES:
        raise GptError(f"has {count} entries of {entry_bytes} bytes")
    if table < 2 or table * size + table_bytes > source.size or not table <= last or first > end or end > last:
        raise GptError("has a header that points outside of the medium")
    entries = await source.read(table * size, table_bytes)
    if zlib.crc32(entries) != table_checksum:
        raise GptError("has a wrong table checksum")
    return _partitions(entries, entry_bytes, size, first, end)


def _partitions(entries: bytes, entry_bytes: int, size: int, first: int, end: int) -> tuple[GptEntry, ...]:
    """Return the used entries of a table. Those outside of what the header calls usable are none."""
    found = []
    for number, offset in enumerate(range(0, len(entries), entry_bytes), 1):
        kind, _, start, stop = _ENTRY.unpack_from(entries, offset)
        if kind != _UNUSED and first <= start <= stop <= end:
            found.append(GptEntry(number, uuid.UUID(bytes_le=kind), Extent(start * size, (stop + 1 - start) * size)))
    return tuple(found)
