# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames in a stream of bytes, as QEMU's `-netdev stream` and passt have them: the length in 32 bits, big-endian, then the frame.

What arrives goes into one buffer, and only as much of it as the device takes becomes frames; the rest waits there. So the buffer
is the bound of what a peer can make this process keep.
"""

from __future__ import annotations

import struct

from splitvisor.lan.wire import MAX_FRAME, MIN_FRAME

LENGTH = struct.Struct(">I")
"""What precedes each frame."""
BUFFER_BYTES = 512 << 10
"""Several of the largest frames. A unix socket of Linux holds less, so one read takes all that is there."""
SKIPPED_BYTES = 1 << 20
"""A longer frame is not one to be left out: the peer speaks something else."""


class FramingError(ValueError):
    """The stream is not in this framing."""


class FrameBuffer:
    """Bytes of a stream, in any portions, that become frames.

    To add bytes: write into space() and call written(). A frame that is too short or too long is left out and counted.
    """

    def __init__(self, size: int = BUFFER_BYTES) -> None:
        if size < MAX_FRAME + LENGTH.size:
            raise ValueError(f"a buffer of {size} bytes has no room for a frame")
        self._memory = bytearray(size)
        self._view = memoryview(self._memory)
        self._start = self._end = 0
        self._left_out = 0
        """Bytes of a frame that is too long and has not arrived yet."""
        self.dropped = 0
        """Frames that were left out."""

    def space(self) -> memoryview:
        """Return where the next bytes belong; empty: no room, until frames are taken."""
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._memory) - self._end < MAX_FRAME and self._start:
            count = self._end - self._start
            self._view[:count] = self._view[self._start : self._end]
            self._start, self._end = 0, count
        return self._view[self._end :]

    def written(self, count: int) -> None:
        """Take note of bytes that were written into space()."""
        self._end += count

    def take(self) -> bytes | None:
        """Return the next frame and remove it; None: it is not all there yet. Raises FramingError."""
        while True:
            if self._left_out:
                count = min(self._left_out, self._end - self._start)
                self._start += count
                self._left_out -= count
                if self._left_out:
                    return None
            first = self._start + LENGTH.size
            if first > self._end:
                return None
            (length,) = LENGTH.unpack_from(self._memory, self._start)
            if MIN_FRAME <= length <= MAX_FRAME:
                last = first + length
                if last > self._end:
                    return None
                self._start = last
                return bytes(self._view[first:last])
            if length > SKIPPED_BYTES:
                raise FramingError(f"a frame of {length} bytes is announced")
            self.dropped += 1
            self._start, self._left_out = first, length
