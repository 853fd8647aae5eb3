# SPDX-License-Identifier: GPL-2.0-or-later
"""`pcap=FILE`: a copy of every frame of a wire, as tcpdump and Wireshark read it.

The file is a classic pcap with times in nanoseconds (draft-ietf-opsawg-pcap, 4 and 5). It is written by a thread, so that no disk
holds up the network: frames that come faster than the disk takes them are missing in the file, and counted. A disk that is full
ends the capture, not the network.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from contextlib import suppress
from pathlib import Path

from splitvisor.lan.wire import MAX_FRAME, Counters, Receive, Wire, WireError
from splitvisor.process.files import WrongFileError, open_regular
from splitvisor.process.locks import lock
from splitvisor.process.logging import get_logger

WAITING_BYTES = 4 << 20
"""What waits for the disk."""
WRITE_S = 0.2
"""How long a frame waits for others before it is written."""

_HEADER = struct.Struct("=IHHiIII")
_RECORD = struct.Struct("=IIII")
_MAGIC, _MAGIC_MICROSECONDS = 0xA1B23C4D, 0xA1B2C3D4
_ETHERNET = 1
_NS = 1_000_000_000
_log = get_logger(__name__)


class Capture:
    """A file of frames.

    Args:
        path: rewritten when it is a capture or empty, made when it is not there; readable by its owner only.

    Raises WireError when something else is there, another wire's capture is written there, or it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        """Frames that are missing."""
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._size = _HEADER.size
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        try:
            self._descriptor = _open(path)
        except OSError as error:
            raise WireError(f"pcap: {path}: {error.strerror}", "give another file") from None

    def add(self, frame: bytes) -> None:
        """Have a frame in the file soon."""
        if self._descriptor < 0:
            return
        if self._waiting_bytes > WAITING_BYTES:
            self.lost += 1
            return
        now = time.time_ns()
        self._waiting += (_RECORD.pack(now // _NS, now % _NS, len(frame), len(frame)), frame)
        self._waiting_bytes += len(frame) + _RECORD.size
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_S, self._write)

    async def close(self) -> None:
        """Have everything in the file, and close it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        while self._writing is not None or self._waiting:
            if self._writing is None:
                self._write()
            else:
                await self._writing
        self._end()

    def _write(self) -> None:
        self._timer = None
        if self._descriptor >= 0 and self._waiting:
            self._writing = asyncio.get_running_loop().create_task(self._write_waiting())

    async def _write_waiting(self) -> None:
        data, self._waiting = b"".join(self._waiting), []
        # Until it is written it counts: it is in memory.
        held = self._waiting_bytes
        try:
            await asyncio.to_thread(_write_all, self._descriptor, data)
            self._size += len(data)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)  # A record in part is an error to readers.
            _log.warning("capture ended, the network goes on", file=str(self.path), reason=error.strerror)
            self._end()
        finally:
            self._writing = None
            self._waiting_bytes = max(0, self._waiting_bytes - held)
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_S, self._write)

    def _end(self) -> None:
        self._waiting.clear()
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        if self.lost:
            _log.warning("frames are missing in a capture: the disk was slow", file=str(self.path), frames=self.lost)


class CapturedWire(Wire):
    """A wire whose frames are captured: those that are sent, and those that the device takes."""

    def __init__(self, wire: Wire, path: Path) -> None:
        super().__init__(wire.name)
        self.wire = wire
        self.ends_tcp = wire.ends_tcp
        self._path = path
        self._capture: Capture | None = None

    @property
    def counters(self) -> Counters:
        """What went over the wire so far."""
        return self.wire.counters

    async def open(self, receive: Receive) -> None:
        """Begin the capture, and connect. Raises WireError."""
        capture = Capture(self._path)

        def captured(frame: bytes) -> bool:
            if not receive(frame):
                return False
            capture.add(frame)
            return True

        try:
            await self.wire.open(captured)
        except BaseException:
            await capture.close()
            raise
        self._capture = capture

    def send(self, frame: bytes) -> None:
        """Send a frame, or drop and count it; it is captured either way, as tcpdump would see it on the guest's device."""
        if self._capture is not None and len(frame) <= MAX_FRAME:
            self._capture.add(frame)
        self.wire.send(frame)

    def resume(self) -> None:
        """The device has room again."""
        self.wire.resume()

    async def close(self) -> None:
        """Disconnect, and complete the capture."""
        await self.wire.close()
        if self._capture is not None:
            await self._capture.close()
            self._capture = None


def _open(path: Path) -> int:
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    try:
        lock(descriptor, path)
        start = os.pread(descriptor, 4, 0)
        magics = [struct.pack(f"{order}I", magic) for order in "<>" for magic in (_MAGIC, _MAGIC_MICROSECONDS)]
        if start and start not in magics:
            raise WrongFileError("it is there and is no capture, so it is not replaced", path)
        os.ftruncate(descriptor, 0)
        os.fchmod(descriptor, 0o600)
        _write_all(descriptor, _HEADER.pack(_MAGIC, 2, 4, 0, 0, MAX_FRAME, _ETHERNET))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
