# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames in a stream: any portions of the stream make the same frames, and no stream makes the buffer grow."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitvisor.lan.framing import SKIPPED_BYTES, FrameBuffer, FramingError
from splitvisor.lan.wire import MAX_FRAME, MIN_FRAME

SMALLEST = MAX_FRAME + 4
FRAMES = st.lists(st.one_of(st.binary(max_size=200), st.integers(1000, MAX_FRAME + 2000).map(bytes)), max_size=12)


def stream_of(frames: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)


def fitting(frames: list[bytes]) -> list[bytes]:
    return [frame for frame in frames if MIN_FRAME <= len(frame) <= MAX_FRAME]


def feed(buffer: FrameBuffer, data: bytes, most: int) -> int:
    """Write what there is room for, at most so much; return how much that was."""
    space = buffer.space()
    count = min(len(space), len(data), most)
    space[:count] = data[:count]
    buffer.written(count)
    return count


@given(FRAMES, st.lists(st.integers(1, 100_000), min_size=1, max_size=20), st.data())
def test_any_split_of_a_stream_makes_the_frames_that_fit(frames: list[bytes], portions: list[int], data: st.DataObject) -> None:
    buffer, stream, found, turn = FrameBuffer(SMALLEST), stream_of(frames), [], 0
    while stream:
        written = feed(buffer, stream, portions[turn % len(portions)])
        turn += 1
        stream = stream[written:]
        # A device that has no room leaves frames where they are, as long as there is room for more.
        if not written or not stream or data.draw(st.booleans()):
            while (frame := buffer.take()) is not None:
                found.append(frame)
    assert found == fitting(frames)
    assert buffer.dropped == len(frames) - len(fitting(frames))


@given(st.binary(max_size=4000), st.integers(1, 50))
def test_any_bytes_are_frames_or_an_error(data: bytes, portion: int) -> None:
    buffer = FrameBuffer(SMALLEST)
    try:
        while data:
            data = data[feed(buffer, data, portion) :]
            while (frame := buffer.take()) is not None:
                assert MIN_FRAME <= len(frame) <= MAX_FRAME
    except FramingError:
        pass


def test_a_length_that_no_peer_of_this_framing_has_is_an_error() -> None:
    buffer = FrameBuffer()
    feed(buffer, struct.pack(">I", SKIPPED_BYTES + 1), 4)
    with pytest.raises(FramingError, match=str(SKIPPED_BYTES + 1)):
        buffer.take()


def test_a_frame_that_is_too_long_is_left_out_without_being_kept() -> None:
    buffer, frame = FrameBuffer(SMALLEST), b"after it is fine"
    stream = stream_of([bytes(SKIPPED_BYTES), frame])
    found = []
    while stream:
        written = feed(buffer, stream, len(stream))
        assert written
        stream = stream[written:]
        if (taken := buffer.take()) is not None:
            found.append(taken)
    assert found == [frame]
    assert buffer.dropped == 1


def test_a_buffer_has_room_for_a_frame() -> None:
    with pytest.raises(ValueError, match="no room"):
        FrameBuffer(MAX_FRAME)
