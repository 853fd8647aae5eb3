# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a recording: records in zstd frames that stand for themselves (see proto/splitvisor/storage/v1/recording.proto).

    skippable frame   "splitvisor recording", version
    skippable frame   sizes of the next frame and of its contents    \\  as often
    zstd frame        records, each after its size                   /   as needed

A reader believes none of the sizes: what it allocates is bounded by FRAME_BYTES, whatever the file says.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

import zstandard
from google.protobuf.message import DecodeError

from splitvisor.process.files import open_regular
from splitvisor.process.locks import lock
from splitvisor.recording import RecordingError
from splitvisor.rpc import recording_pb2 as pb

VERSION = 1
FRAME_BYTES = 8 << 20
"""Records of one frame, at most. A record has one message of a trap stream, which is at most 4 MiB, or a device tree."""
FULL_FRAME_BYTES = 256 << 10
"""Records after which a frame is written without waiting for more."""
LEVEL = 3

_TITLE = b"splitvisor recording"
_TITLE_MAGIC, _SIZES_MAGIC = 0x184D2A50, 0x184D2A51
_SKIPPABLE = struct.Struct("<II")
_VERSION = struct.Struct("<H")
_SIZES = struct.Struct("<II")
_COMPRESSED_BYTES = FRAME_BYTES + (FRAME_BYTES >> 8) + 1024
"""More than zstd makes of FRAME_BYTES that cannot be compressed."""
_VARINT_BYTES = 5


class RecordingWriter:
    """Writes a recording. Not for several threads.

    Args:
        path: rewritten when it is a recording or empty, made when it is not there; readable by its owner only.

    Raises RecordingError when something else is there, when another machine is recorded there, or when it cannot be opened, and
    OSError when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._file = _open_for_writing(path)
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
        self._records = bytearray()
        self._last_ns = 0
        self.kept_ns = 0
        """The time of the last record that is in the file."""
        try:
            self._file.write(_skippable(_TITLE_MAGIC, _TITLE + _VERSION.pack(VERSION)))
            self._file.flush()
        except OSError:
            self.abandon()
            raise

    def append(self, record: bytes, time_ns: int = 0) -> None:
        """Add a serialised Record of a time; it is in the file after flush(), or when a frame is full. Raises OSError."""
        if len(self._records) + len(record) + _VARINT_BYTES > FRAME_BYTES:
            self.flush()
        self._records += _varint(len(record))
        self._records += record
        self._last_ns = time_ns
        if len(self._records) >= FULL_FRAME_BYTES:
            self.flush()

    def flush(self) -> None:
        """Have everything in the file; a kill of this process then loses nothing. Raises OSError."""
        if self._records:
            frame = self._compressor.compress(self._records)
            self._file.write(_skippable(_SIZES_MAGIC, _SIZES.pack(len(frame), len(self._records))) + frame)
            self._records.clear()
        self._file.flush()
        self.kept_ns = self._last_ns

    def close(self) -> None:
        """Flush, have it on the disk, and close. Raises OSError."""
        with self._file:
            self.flush()
            os.fsync(self._file.fileno())

    def abandon(self) -> None:
        """Close as well as possible, after an error."""
        self._records.clear()
        try:
            self._file.close()
        except OSError:
            self._file.raw.close()


class RecordingReader:
    """Reads a recording: iterate over it for its records, from the first one, once.

    Args:
        file: at its beginning; closed by whoever opened it.
        name: for messages.

    Raises RecordingError when it is no recording, or of a version that this reader does not know, and while it is iterated over
    when records are damaged. A file that was cut off is read up to its last whole frame; `cut` then says so.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self.name = file, name
        self._position = 0
        self.cut = ""
        """Once the records have come: how the file ends when it does not end with a whole frame; else empty."""
        title = self._skippable()
        if title is None or title[0] != _TITLE_MAGIC or title[1][: len(_TITLE)] != _TITLE:
            raise RecordingError(f"{name} is not a recording", "make one with splitvisor run --record FILE")
        (version,) = _VERSION.unpack(title[1][len(_TITLE) :].ljust(_VERSION.size, b"\0")[: _VERSION.size])
        if version != VERSION:
            raise RecordingError(f"{name} has version {version} of the format, this splitvisor reads {VERSION}", "use another")

    def __iter__(self) -> Iterator[pb.Record]:
        """Return the records in order."""
        time_ns = 0
        for at, contents in self._frames():
            for record in self._records(at, contents):
                if record.time_ns < time_ns or record.WhichOneof("event") is None:
                    raise self._damaged(at, "a record without a time or an event")
                time_ns = record.time_ns
                yield record

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Each frame's place in the file and its contents."""
        decompressor = zstandard.ZstdDecompressor(max_window_size=FRAME_BYTES)
        while True:
            at = self._position
            sizes = self._skippable()
            if sizes is None:
                if self._position != at:
                    self._cut(at)
                return
            magic, payload = sizes
            if magic != _SIZES_MAGIC or len(payload) != _SIZES.size:
                raise self._damaged(at, "no frame begins here")
            compressed, size = _SIZES.unpack(payload)
            if not compressed or compressed > _COMPRESSED_BYTES or not 0 < size <= FRAME_BYTES:
                raise self._damaged(at, f"a frame of {compressed} bytes with {size} bytes of records")
            frame = self._read(compressed)
            if len(frame) != compressed:
                self._cut(at)
                return
            try:
                if zstandard.get_frame_parameters(frame).content_size != size:
                    raise self._damaged(at, "two sizes for one frame")
                contents = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
            except zstandard.ZstdError as error:
                raise self._damaged(at, str(error)) from error
            yield at, contents

    def _records(self, at: int, contents: bytes) -> Iterator[pb.Record]:
        position = 0
        while position < len(contents):
            size, position = _read_varint(contents, position)
            if size < 0 or position + size > len(contents):
                raise self._damaged(at, "a record that does not end in its frame")
            record = pb.Record()
            try:
                record.ParseFromString(contents[position : position + size])
            except DecodeError as error:
                raise self._damaged(at, "a record that is no protobuf message") from error
            position += size
            yield record

    def _skippable(self) -> tuple[int, bytes] | None:
        """The next skippable frame; None at the end of the file, or when it does not hold all of it."""
        head = self._read(_SKIPPABLE.size)
        if len(head) < _SKIPPABLE.size:
            return None
        magic, size = _SKIPPABLE.unpack(head)
        if magic not in (_TITLE_MAGIC, _SIZES_MAGIC) or size > 64:
            return magic, b""
        payload = self._read(size)
        return (magic, payload) if len(payload) == size else None

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._position += len(data)
        return data

    def _cut(self, at: int) -> None:
        self.cut = f"{self.name} is cut off: what came after byte {at} is not whole, and was left out"

    def _damaged(self, at: int, what: str) -> RecordingError:
        return RecordingError(f"{self.name} is damaged at byte {at}: {what}")


def _open_for_writing(path: Path) -> BufferedRandom:
    head = _skippable(_TITLE_MAGIC, _TITLE + _VERSION.pack(VERSION))[: -_VERSION.size]
    try:
        file = os.fdopen(open_regular(path, os.O_RDWR | os.O_CREAT), "r+b")
        try:
            lock(file.fileno(), path)
            there = file.read(len(head))
            if there and there != head:
                raise RecordingError(f"{path} is there and is not a recording, so it is not replaced", "give another file")
            file.seek(0)
            file.truncate()
            os.fchmod(file.fileno(), 0o600)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}", "give another file") from error
    return file


def _skippable(magic: int, payload: bytes) -> bytes:
    return _SKIPPABLE.pack(magic, len(payload)) + payload


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number and the position after it; -1 when there is none."""
    number = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    return -1, position
