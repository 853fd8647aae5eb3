# SPDX-License-Identifier: GPL-2.0-or-later
"""The data of an SRP command: its descriptors (SRP 5.6.2), and the pieces of the adapter's DMA window that they name."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from splitvisor.backend.vio import DmaError, DmaWindow, Piece
from vio_service.devices.vscsi.information import CommandUnit

MAX_PIECES = 2048
"""Descriptors of one transfer; Linux sends up to 128."""
MAX_TRANSFER = 2 << 20
"""Bytes of one command, as the adapter says of itself; more are not transferred."""
_DESCRIPTOR = struct.Struct(">Q4xI")
_TABLE = struct.Struct(">Q4xII")
_DIRECT, _INDIRECT = 1, 2


class DescriptorError(Exception):
    """The descriptors of a command make no sense, or its memory cannot be reached."""


async def pieces_of(unit: CommandUnit, window: DmaWindow) -> tuple[Sequence[Piece], Sequence[Piece]]:
    """Return the pieces for data out and for data in. Raises DescriptorError."""
    out: Sequence[Piece] = ()
    into: Sequence[Piece] = ()
    rest = unit.descriptors
    if unit.out_format:
        out, rest = await _pieces(unit.out_format, unit.out_count, rest, window)
    if unit.in_format:
        into, _ = await _pieces(unit.in_format, unit.in_count, rest, window)
    return out, into


async def _pieces(kind: int, count: int, descriptors: bytes, window: DmaWindow) -> tuple[Sequence[Piece], bytes]:
    """Return the pieces of one direction, and the descriptors behind its own."""
    if kind == _DIRECT:
        if len(descriptors) < _DESCRIPTOR.size:
            raise DescriptorError("a direct descriptor is cut off")
        return _bounded([Piece(*_DESCRIPTOR.unpack_from(descriptors))]), descriptors[_DESCRIPTOR.size :]
    if kind != _INDIRECT or len(descriptors) < _TABLE.size:
        raise DescriptorError(f"descriptors have format {kind}, or are cut off")
    ioba, table_bytes, _ = _TABLE.unpack_from(descriptors)
    entries = table_bytes // _DESCRIPTOR.size
    inline = descriptors[_TABLE.size :]
    if not 0 < entries <= MAX_PIECES:
        raise DescriptorError(f"a table has {entries} descriptors")
    size = entries * _DESCRIPTOR.size
    # Some or all of the table may be here, too; how many entries that are is not what every guest says.
    if count == entries and len(inline) >= size:
        table = inline[:size]
    else:
        try:
            table = await window.read(ioba, size)
        except DmaError as error:
            raise DescriptorError(str(error)) from error
    return _bounded([Piece(*each) for each in _DESCRIPTOR.iter_unpack(table)]), inline[count * _DESCRIPTOR.size :]


def _bounded(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Return the pieces without empty ones. Raises DescriptorError for more bytes than a command may move."""
    if sum(piece.length for piece in pieces) > MAX_TRANSFER:
        raise DescriptorError(f"descriptors of more than {MAX_TRANSFER} bytes")
    return [piece for piece in pieces if piece.length]
