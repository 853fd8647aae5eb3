# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory as sections of a snapshot: pages that are not zero, compressed a megabyte at a time, by several threads.

Nothing is held but what is under way: a machine of 16 GiB is saved and restored in some 20 MiB.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import zstandard
from google.protobuf.message import DecodeError

from splitvisor.machine.snapshot_file import SnapshotError
from splitvisor.rpc import state_pb2 as pb

PAGE: Final = 4096
CHUNK: Final = 1 << 20
WORKERS: Final = min(4, os.cpu_count() or 1)
AHEAD: Final = 2 * WORKERS
"""Chunks under way."""
LEVEL: Final = 1
"""zstd's fastest: the machine stands still meanwhile."""

_ZERO_PAGE = bytes(PAGE)
_ZERO_CHUNK = bytes(CHUNK)
_local = threading.local()

Store = Callable[[int, memoryview], None]
"""Stores bytes at an address."""


def packed(area: mmap.mmap, used: Iterable[tuple[int, int]], counted: Callable[[int], None]) -> Iterator[bytes]:
    """Yield SavedPages messages of an area of memory that does not change meanwhile.

    Args:
        area: the memory; its length is a multiple of PAGE.
        used: (start, end) ranges outside of which it is zero, ascending.
        counted: told of the bytes of pages in each message.
    """
    chunks = (
        (start, min(start + CHUNK, end, len(area)))
        for low, high in used
        for end in (-(-high // PAGE) * PAGE,)
        for start in range(low // PAGE * PAGE, end, CHUNK)
    )
    with ThreadPoolExecutor(WORKERS, "pack") as pool:
        running: deque[Future[tuple[int, bytes]]] = deque()
        for start, end in chunks:
            running.append(pool.submit(_pack, area, start, end))
            if len(running) > AHEAD:
                yield from _present(running.popleft(), counted)
        while running:
            yield from _present(running.popleft(), counted)


def _present(chunk: Future[tuple[int, bytes]], counted: Callable[[int], None]) -> Iterator[bytes]:
    size, message = chunk.result()
    if size:
        counted(size)
        yield message


def _pack(area: mmap.mmap, start: int, end: int) -> tuple[int, bytes]:
    """A chunk's bytes that are not zero, and its message."""
    data = area[start:end]
    if data == _ZERO_CHUNK[: len(data)]:
        return 0, b""
    pages = [data[offset : offset + PAGE] for offset in range(0, len(data), PAGE)]
    present = [page != _ZERO_PAGE for page in pages]
    bits = sum(1 << index for index, there in enumerate(present) if there)
    kept = b"".join(page for page, there in zip(pages, present, strict=True) if there)
    message = pb.SavedPages(
        address=start, present=bits.to_bytes(-(-len(pages) // 8), "little"), pages=_compressor().compress(kept)
    )
    return len(kept), message.SerializeToString()


class Unpacker:
    """Stores SavedPages messages, by several threads. A context: its end waits for what is under way.

    Args:
        what: the memory's name, for messages.
        size: its bytes, all zero before.
        store: stores bytes; called from any of the threads.
    """

    def __init__(self, what: str, size: int, store: Store) -> None:
        self._what, self._size, self._store = what, size, store
        self._pool = ThreadPoolExecutor(WORKERS, "unpack")
        self._running: deque[Future[None]] = deque()

    def add(self, payload: bytes) -> None:
        """Take the next message. Raises SnapshotError, also for an earlier one."""
        self._running.append(self._pool.submit(self._unpack, payload))
        if len(self._running) > AHEAD:
            self._running.popleft().result()

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for chunk in self._running:
                chunk.result()

    def _unpack(self, payload: bytes) -> None:
        try:
            message = pb.SavedPages.FromString(payload)
            bits = int.from_bytes(message.present, "little")
            pages = bits.bit_count()
            highest = message.address + bits.bit_length() * PAGE
            if message.address % PAGE or bits.bit_length() > CHUNK // PAGE or highest > self._size or not pages:
                raise SnapshotError(f"the snapshot has pages that {self._what} of {self._size} bytes has not")
            # What a frame states about itself is what would be allocated for it.
            if zstandard.frame_content_size(message.pages) != pages * PAGE:
                raise SnapshotError(f"the snapshot has damaged pages of {self._what}")
            data = _decompressed(message.pages, pages * PAGE)
        except (DecodeError, zstandard.ZstdError) as error:
            raise SnapshotError(f"the snapshot has damaged pages of {self._what}") from error
        position = 0
        for first, count in _runs(bits):
            end = position + count * PAGE
            self._store(message.address + first * PAGE, data[position:end])
            position = end


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """(first, count) of each run of ones."""
    first = 0
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        ones = (~bits & bits + 1).bit_length() - 1
        yield first + zeros, ones
        bits >>= ones
        first += zeros + ones


def _compressor() -> Any:
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=LEVEL)
    return _local.compressor


def _decompressed(frame: bytes, size: int) -> memoryview:
    """Return what a frame holds, valid until this thread's next: memory that was touched before costs no page faults.

    Raises ZstdError, also for a frame that ends early.
    """
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
        _local.buffer = memoryview(bytearray(CHUNK))
    buffer: memoryview = _local.buffer
    room = buffer[:size]
    with _local.decompressor.stream_reader(frame) as reader:
        while room:
            count = reader.readinto(room)
            if not count:
                raise zstandard.ZstdError(f"the frame ends {len(room)} bytes early")
            room = room[count:]
    return buffer[:size]
