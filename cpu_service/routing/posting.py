# SPDX-License-Identifier: GPL-2.0-or-later
"""Which calls of a route the guest need not wait for, and what of guest memory goes along with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cpu_service.engine.ram import GuestRam
from cpu_service.link.events import LinkStatus
from splitvisor.declarations.dma import DmaError, Piece
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.tce_file import TCE_READ, TceWindow

FindWindow = Callable[[LinkStatus, int], TceWindow | None]
"""Returns the DMA window of one of a back end's devices by its unit address; None: there is none."""

_VALID = 1 << 63
_LENGTH_SHIFT, _LENGTH_MASK, _ADDRESS_MASK = 32, 0xFF_FFFF, 0xFFFF_FFFF


class Posted(NamedTuple):
    """A call that may be posted."""

    size: int
    """Bytes, as credit counts it."""
    buffers: bytes | None
    """What travels of its buffers; None: the route has none."""


class _Buffers(NamedTuple):
    """DescribedBuffers, decoded."""

    first: int
    end: int
    min_each: int
    alignment: int
    min_bytes: int
    max_bytes: int


class Posting:
    """How calls of one route are posted.

    Args:
        link: to the back end whose route it is.
        route: has a PostedPolicy.
    """

    def __init__(self, link: LinkStatus, route: pb.Route) -> None:
        self._link, policy = link, route.posted
        self.at_once = policy.at_once
        """A call goes with everything posted before it."""
        self.waits_for_credit = policy.without_credit == pb.WITHOUT_CREDIT_WAIT
        """A call without credit is made the synchronous way."""
        self._key_argument, self._size_argument = policy.key_argument, policy.size_argument
        self._max_size, self._call_bytes = policy.max_size, policy.call_bytes
        described = route.buffers
        self._buffers: _Buffers | None = None
        if route.HasField("buffers"):
            self._buffers = _Buffers(
                described.first,
                described.first + described.count,
                described.min_each,
                described.alignment or 1,
                described.min_bytes,
                described.max_bytes,
            )

    def posted(self, arguments: Sequence[int], keys: frozenset[int], ram: GuestRam, window: FindWindow) -> Posted | None:
        """Return a call as it may be posted; None: it may not.

        Args:
            arguments: of the call, from r4.
            keys: whose calls may be posted now.
            ram: guest RAM.
            window: finds the window that buffers are in.
        """
        key = arguments[self._key_argument]
        if key not in keys:
            return None
        if self._buffers is None:
            size = self._call_bytes or arguments[self._size_argument]
            return Posted(size, None) if self._call_bytes or size <= self._max_size else None
        found = window(self._link, key)
        data = None if found is None else _read(self._buffers, arguments, ram, found)
        return None if data is None else Posted(self._call_bytes + len(data), data)


def _read(buffers: _Buffers, arguments: Sequence[int], ram: GuestRam, window: TceWindow) -> bytes | None:
    """Return what buffers hold, as far as it travels; None: they are not as they have to be."""
    pieces = list(_pieces(arguments[buffers.first : buffers.end]))
    total = sum(piece.length for piece in pieces)
    if total < buffers.min_bytes or total > (buffers.max_bytes or total):
        return None
    if any(piece.length < buffers.min_each or piece.ioba % buffers.alignment for piece in pieces):
        return None
    if not buffers.max_bytes:
        pieces = [Piece(piece.ioba, buffers.min_each) for piece in pieces]
    try:
        ranges = window.ranges(pieces, TCE_READ, ram.size)
    except DmaError:
        return None
    if not buffers.max_bytes:
        return b""
    memory = ram.map
    if len(ranges) == 1:
        [(address, size)] = ranges
        return memory[address : address + size]
    return b"".join([memory[address : address + size] for address, size in ranges])


def _pieces(words: Sequence[int]) -> Iterator[Piece]:
    """Yield the buffers that descriptors describe, up to the first that describes none."""
    for word in words:
        if not word & _VALID:
            return
        yield Piece(word & _ADDRESS_MASK, word >> _LENGTH_SHIFT & _LENGTH_MASK)
