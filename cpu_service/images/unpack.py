# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacks kernels that distributions ship compressed: gzip, xz and zstd, one or more streams of it one after the other.

The unpacked file is in memory without a name (memfd) and is gone when it is closed. Nothing in the packed one is believed: it is
read and unpacked in pieces, what comes out is counted against a limit, and so is the memory that a stream's window asks for.
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol

from splitvisor.errors.problem import ProblemError

WINDOW_BYTES: Final = 128 << 20
"""What unpacking may take besides its result; `xz -9` and `zstd --ultra -22` need less."""
PIECE: Final = 256 << 10
"""Bytes to read, and to unpack, at a time."""
ZSTD_PIECE: Final = 1 << 10
"""Bytes to read at a time where the library unpacks them all at once: 4 bytes can stand for a block of 128 KiB."""


class UnpackError(ProblemError):
    """A packed file is damaged or too large; the message says which."""


class _Unpacker(Protocol):
    """Unpacks one stream."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def unused_data(self) -> bytes:
        """What follows the stream in the data."""

    def feed(self, data: bytes) -> bytes:
        """Return more of the stream. No data and no result: it wants more data. Raises ValueError."""


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def feed(self, data: bytes) -> bytes:
        try:
            return self._stream.decompress(self._stream.unconsumed_tail + data, PIECE)
        except zlib.error as error:
            raise ValueError(str(error)) from error


class _Xz:
    def __init__(self) -> None:
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_BYTES)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def feed(self, data: bytes) -> bytes:
        try:
            return self._stream.decompress(data, PIECE)
        except lzma.LZMAError as error:
            raise ValueError(str(error)) from error


class _Zstd:
    def __init__(self) -> None:
        import zstandard  # slow to load, and few kernels are packed with it

        self._stream: Any = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()
        self._failure = zstandard.ZstdError

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)

    def feed(self, data: bytes) -> bytes:
        try:
            return bytes(self._stream.decompress(data)) if data else b""
        except self._failure as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True)
class Packing:
    """A way to pack."""

    name: str
    """Also that of the program, whose -dc unpacks."""
    magic: bytes
    make: Callable[[], _Unpacker]
    piece: int
    """Bytes to read at a time."""


PACKINGS: Final = (
    Packing("gzip", b"\x1f\x8b\x08", _Gzip, PIECE),
    Packing("xz", b"\xfd7zXZ\0", _Xz, PIECE),
    Packing("zstd", b"\x28\xb5\x2f\xfd", _Zstd, ZSTD_PIECE),
)


def packing_of(file: BinaryIO) -> Packing | None:
    """Return how a seekable file is packed; None when it is not packed in a way known here. Raises OSError."""
    file.seek(0)
    head = file.read(max(len(each.magic) for each in PACKINGS))
    return next((each for each in PACKINGS if head.startswith(each.magic)), None)


def unpack(file: BinaryIO, packing: Packing, limit: int) -> BinaryIO:
    """Return what is packed in a file, as a file of at most limit bytes; the caller closes it. Raises UnpackError, OSError."""
    unpacked = os.fdopen(os.memfd_create("kernel", os.MFD_CLOEXEC), "w+b")
    try:
        file.seek(0)
        _unpack(file, packing, limit, unpacked)
    except BaseException:
        unpacked.close()
        raise
    return unpacked


def _unpack(file: BinaryIO, packing: Packing, limit: int, unpacked: BinaryIO) -> None:
    room = limit
    data = file.read(packing.piece)
    while data:
        stream = packing.make()
        while not stream.eof:
            try:
                piece = stream.feed(data)
            except ValueError as error:
                raise UnpackError(f"cannot be unpacked ({packing.name}: {error})", _remedy(packing)) from error
            room -= len(piece)
            if room < 0:
                remedy = f"strip it, give the machine more --memory, or unpack it first: {packing.name} -dc FILE > OUT"
                raise UnpackError(f"has more than {limit >> 20} MiB when it is unpacked ({packing.name})", remedy)
            unpacked.write(piece)
            data = b"" if piece or stream.eof else file.read(packing.piece)
            if not data and not piece and not stream.eof:
                raise UnpackError(f"ends within its {packing.name} data", "fetch or build it again")
        data = _next_stream(file, stream.unused_data, packing)


def _next_stream(file: BinaryIO, data: bytes, packing: Packing) -> bytes:
    """Return the start of the stream that follows one; empty at the end. Zeros between them are padding. Raises UnpackError."""
    while not (data := data.lstrip(b"\0")):
        data = file.read(packing.piece)
        if not data:
            return b""
    data += file.read(packing.piece)
    if not data.startswith(packing.magic):
        raise UnpackError(f"has something else after its {packing.name} data", _remedy(packing))
    return data


def _remedy(packing: Packing) -> str:
    return f"fetch it again, or unpack it first: {packing.name} -dc FILE > OUT"
