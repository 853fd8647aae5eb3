# SPDX-License-Identifier: GPL-2.0-or-later
"""Records a machine: takes the messages of its trap streams as they pass, and writes them on a thread of its own.

The vCPU thread never comes here. What a stream's threads hand over is kept as it is, and serialised when the writer, which sleeps
most of the time so that it does not take the interpreter from the guest, gets to it. Nothing is lost: when the disk cannot keep
up, the streams wait, and so does the guest; the recording tells how often. When the disk takes no more, the recording ends, the
guest goes on, and `Recorder.failure` says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from cpu_service.routing.router import CallCount
from splitvisor import __version__
from splitvisor.recording import RecordingError
from splitvisor.recording.file import RecordingWriter
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import recording_pb2 as rpb
from splitvisor.rpc import trap_pb2 as pb

GATHER_S = 0.2
"""How long records wait for more of their kind: what a kill of cpu_service can lose."""
WAKE_BYTES = 512 << 10
"""Waiting messages at which the writer does not go on waiting for more."""
PENDING_BYTES = 16 << 20
"""Waiting messages at which streams have to wait for the writer."""
STALL_S = 30.0
"""How long a stream waits for a disk before the recording is given up."""
SLICE = 32
"""Records after which other threads get their turn."""
CLOSE_S = 10.0

log = structlog.get_logger()

_Event = pb.AttachRequest | pb.AttachResponse | rpb.SeedTree | rpb.RecordingEnd
_FIELDS: dict[type[_Event], str] = {
    pb.AttachRequest: "request",
    pb.AttachResponse: "response",
    rpb.SeedTree: "seed_tree",
    rpb.RecordingEnd: "end",
}


class Recorder:
    """The recording of one machine.

    Args:
        path: the file; see RecordingWriter.
        config: the machine.

    Raises RecordingError when the file cannot be written.
    """

    def __init__(self, path: Path, config: mpb.MachineConfig) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._wake, self._room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._pending: list[tuple[int, int, _Event]] = []
        self._pending_bytes = 0
        self._waits = 0
        self._closing = False
        self.failure = ""
        """Why and where the recording ends before the machine does, in one line; empty: it does not."""
        self._began = time.monotonic_ns()
        without_addresses = mpb.MachineConfig()
        without_addresses.CopyFrom(config)
        without_addresses.ClearField("record_file")
        for backend in without_addresses.backends:
            backend.ClearField("address")
        start = rpb.RecordingStart(
            config=without_addresses,
            began_ns=time.time_ns(),
            splitvisor_version=__version__,
            backends=[backend.name for backend in config.backends],
        )
        try:
            self._writer = RecordingWriter(path)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            self._writer.append(rpb.Record(start=start).SerializeToString())
            self._writer.flush()
        except OSError as error:
            self._writer.abandon()
            raise _unwritable(path, error) from error
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def tap(self, index: int) -> LinkTap:
        """What the link at a place in the configuration's back ends tells its messages."""
        return LinkTap(self, index + 1)

    def seed_tree(self, request: dt.BuildTreeRequest, response: dt.BuildTreeResponse) -> None:
        """The machine has a new tree."""
        self.put(0, rpb.SeedTree(request=request, response=response))

    def close(self, reason: str, calls: Sequence[CallCount]) -> None:
        """End the recording in order; waits for the disk, CLOSE_S at most. More than once does nothing."""
        if self._closing:
            return
        counts = [mpb.CallCount(name=row.name, owner=row.owner, count=row.count, seconds=row.seconds) for row in calls]
        self.put(0, rpb.RecordingEnd(reason=reason, calls=counts, waits=self._waits))
        with self._lock:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            with self._lock:
                self._give_up(f"the disk did not take the rest within {CLOSE_S:g} s")

    def put(self, link: int, event: _Event) -> None:
        """Hand an event over, which must not change any more."""
        size = event.ByteSize()
        with self._lock:
            if self._pending_bytes >= PENDING_BYTES:
                self._waits += 1
                if not self._room.wait_for(lambda: self._pending_bytes < PENDING_BYTES or self.failure, STALL_S):
                    self._give_up(f"the disk took nothing for {STALL_S:g} s")
            if self.failure or self._closing:
                return
            # The time is taken in here, so that times never go back.
            self._pending.append((time.monotonic_ns() - self._began, link, event))
            before, self._pending_bytes = self._pending_bytes, self._pending_bytes + size
            if not before or before < WAKE_BYTES <= self._pending_bytes:
                self._wake.notify()

    def _write(self) -> None:
        closing = False
        try:
            while not closing and not self.failure:
                with self._lock:
                    self._wake.wait_for(lambda: self._pending or self._closing)
                    self._wake.wait_for(lambda: self._pending_bytes >= WAKE_BYTES or self._closing, GATHER_S)
                    closing = self._closing
                    pending, self._pending, self._pending_bytes = self._pending, [], 0
                    self._room.notify_all()
                for number, (time_ns, link, event) in enumerate(pending, 1):
                    record = rpb.Record(time_ns=time_ns, link=link, **{_FIELDS[type(event)]: event})  # type: ignore[arg-type]
                    self._writer.append(record.SerializeToString(), time_ns)
                    if number % SLICE == 0:
                        time.sleep(0)
                self._writer.flush()
            self._writer.close()
        except OSError as error:
            self._abandon(error.strerror or str(error))
        except Exception as error:
            log.exception("the recorder failed")
            self._abandon(f"{type(error).__name__}: {error}".partition("\n")[0])

    def _abandon(self, reason: str) -> None:
        self._writer.abandon()
        with self._lock:
            self._pending.clear()
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """Say why the recording ends here, with the lock held; the first of several reasons counts."""
        if not self.failure:
            # Path and time as `record show` knows them.
            self.failure = f"the recording {self._path} ends at {self._writer.kept_ns / 1e9:.3f} s: {reason}"
            self._room.notify_all()
            log.error("recording failed", reason=self.failure)


def _unwritable(path: Path, error: OSError) -> RecordingError:
    return RecordingError(f"{path} cannot be written: {error.strerror or error}", "give another file")


class LinkTap:
    """Where one link's messages go; any thread."""

    def __init__(self, recorder: Recorder, link: int) -> None:
        self._recorder, self._link = recorder, link

    def sent(self, message: pb.AttachRequest) -> None:
        """A message is about to be sent."""
        self._recorder.put(self._link, message)

    def received(self, message: pb.AttachResponse) -> None:
        """A message has come, and nothing was done about it yet."""
        self._recorder.put(self._link, message)
