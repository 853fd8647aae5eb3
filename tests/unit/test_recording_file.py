# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a recording: what was written is read, whatever a file has costs no more than a line."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from splitvisor.recording import RecordingError
from splitvisor.recording.file import FRAME_BYTES, FULL_FRAME_BYTES, RecordingReader, RecordingWriter
from splitvisor.rpc import recording_pb2 as rpb
from splitvisor.rpc import trap_pb2 as pb
from tests.amounts import examples
from tests.unit.recordings import read, request, some_calls, write

TITLE_BYTES = 8 + len(b"splitvisor recording") + 2


def test_what_was_written_is_read(tmp_path: Path) -> None:
    records = some_calls(50)
    assert read(write(tmp_path / "r", records, flush_each=7)) == (records, "")


def test_records_larger_than_a_frame_waits_for_and_many_of_them(tmp_path: Path) -> None:
    data = os.urandom(4 << 20)
    result = pb.AttachRequest(memory_result=pb.MemoryResult(id=1, ok=True, data=data))
    records = [request(number, result) for number in range(3)]
    path = write(tmp_path / "r", records)
    assert read(path) == (records, "")
    assert len(data) > FULL_FRAME_BYTES


def test_zstd_alone_gives_all_records(tmp_path: Path) -> None:
    records = some_calls(20)
    path = write(tmp_path / "r", records, flush_each=5)
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream:
        contents = stream.read()
    position = 0
    for record in records:
        size = contents[position]
        assert size < 0x80
        assert contents[position + 1 : position + 1 + size] == record.SerializeToString()
        position += 1 + size
    assert position == len(contents)


def test_a_file_that_ends_anywhere_is_read_up_to_its_last_whole_frame(tmp_path: Path) -> None:
    records = some_calls(8)
    whole = write(tmp_path / "whole", records, flush_each=4).read_bytes()
    cut_file = tmp_path / "cut"
    counts = []
    boundaries = _boundaries(whole)
    for size in range(TITLE_BYTES, len(whole)):
        cut_file.write_bytes(whole[:size])
        found, cut = read(cut_file)
        assert found == records[: len(found)]
        assert len(found) % 4 == 0 or len(found) == len(records)
        assert bool(cut) == (size not in boundaries)
        counts.append(len(found))
    assert counts == sorted(counts)


def _boundaries(whole: bytes) -> set[int]:
    """Where frames end."""
    found, position = {TITLE_BYTES}, TITLE_BYTES
    while position < len(whole):
        compressed, _ = struct.unpack_from("<II", whole, position + 8)
        position += 16 + compressed
        found.add(position)
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("small") / "r", some_calls(5), flush_each=3).read_bytes()


@settings(max_examples=examples(150))
@given(data=st.data())
def test_a_mutated_file_is_read_or_refused_with_one_line(small: bytes, data: st.DataObject) -> None:
    contents = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(contents) - 1))
        match data.draw(st.sampled_from(("change", "insert", "delete"))):
            case "change":
                contents[at] = data.draw(st.integers(0, 255))
            case "insert":
                contents[at:at] = data.draw(st.binary(min_size=1, max_size=8))
            case "delete":
                del contents[at : at + data.draw(st.integers(1, 16))]
    try:
        for record in RecordingReader(io.BytesIO(bytes(contents)), "r"):
            assert record.WhichOneof("event")
    except RecordingError as error:
        assert "\n" not in str(error)  # noqa: PT017  # most examples do not raise


def _frame(sizes: tuple[int, int], frame: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A51, 8) + struct.pack("<II", *sizes) + frame


@pytest.mark.parametrize(
    "make",
    [
        lambda bomb, size: _frame((len(bomb), size), bomb),
        lambda bomb, size: _frame((len(bomb), 100), bomb),
        lambda bomb, size: _frame((0xFFFF_FFFF, 100), bomb),
        lambda bomb, size: _frame((len(bomb), FRAME_BYTES), bomb),
    ],
    ids=["says its size", "says less", "a huge frame", "the most that there may be"],
)
def test_a_small_file_cannot_make_a_reader_allocate_much(tmp_path: Path, make: object) -> None:
    size = 256 << 20
    compressor = zstandard.ZstdCompressor().compressobj(size=size)
    block = bytes(1 << 20)
    bomb = b"".join(compressor.compress(block) for _ in range(size >> 20)) + compressor.flush()
    path = write(tmp_path / "r", [])
    path.write_bytes(path.read_bytes() + make(bomb, size))  # type: ignore[operator]  # parametrised
    tracemalloc.start()
    try:
        with pytest.raises(RecordingError, match="damaged"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * FRAME_BYTES
    finally:
        tracemalloc.stop()


def test_what_is_no_recording_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"something else")
    with pytest.raises(RecordingError, match="not a recording; make one with splitvisor run --record"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(RecordingError, match="not a recording"):
        read(path)


def test_a_format_of_the_future_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r", some_calls(1))
    contents = bytearray(path.read_bytes())
    contents[TITLE_BYTES - 2] = 2
    path.write_bytes(contents)
    with pytest.raises(RecordingError, match="version 2 of the format, this splitvisor reads 1"):
        read(path)


def test_times_that_go_back_are_damage(tmp_path: Path) -> None:
    records = [rpb.Record(time_ns=2, end=rpb.RecordingEnd()), rpb.Record(time_ns=1, end=rpb.RecordingEnd())]
    with pytest.raises(RecordingError, match="without a time"):
        read(write(tmp_path / "r", records))


def test_only_recordings_are_replaced_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    path = write(tmp_path / "r", some_calls(50))
    path.chmod(0o644)
    assert read(write(path, some_calls(1))) == (some_calls(1), "")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"\x7fELF, a kernel perhaps")
    with pytest.raises(RecordingError, match="is not a recording, so it is not replaced"):
        RecordingWriter(path)
    assert path.read_bytes() == b"\x7fELF, a kernel perhaps"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be written: No such file or directory; give another file"):
        RecordingWriter(tmp_path / "nowhere" / "r")
