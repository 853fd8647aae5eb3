# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder: nothing is lost, order is kept, and a disk that fails costs the recording only."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cpu_service.observe.recorder import PENDING_BYTES, Recorder
from cpu_service.routing.router import CallCount
from splitvisor.recording import RecordingError
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import trap_pb2 as pb
from tests.component.trap_client import wait_until
from tests.unit.recordings import read

CONFIG = mpb.MachineConfig(name="vm", backends=[mpb.BackendAddress(name=name, address="unix:/secret") for name in ("one", "two")])


def _result(number: int, data: bytes = b"") -> pb.AttachRequest:
    return pb.AttachRequest(memory_result=pb.MemoryResult(id=number, data=data))


def test_messages_of_several_threads_are_all_there_each_in_its_order(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r", CONFIG)
    taps = [recorder.tap(index) for index in range(2)]

    def send(link: int) -> None:
        for number in range(2000):
            taps[link].sent(_result(number))

    threads = [threading.Thread(target=send, args=(link,)) for link in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close("over", [CallCount("H_ENTER", "local", 3, 0.0)])
    first, *records, last = read(tmp_path / "r")[0]
    assert list(first.start.backends) == ["one", "two"]
    assert not any(backend.address for backend in first.start.config.backends)
    for link in range(2):
        assert [record.request.memory_result.id for record in records if record.link == link + 1] == list(range(2000))
    assert (last.end.reason, last.end.calls[0].name, last.end.waits) == ("over", "H_ENTER", 0)


def test_a_stream_waits_when_the_disk_cannot_keep_up_and_loses_nothing(tmp_path: Path) -> None:
    """Each message is as large as what may wait, so every one but the first has to."""
    recorder = Recorder(tmp_path / "r", CONFIG)
    data = os.urandom(4 << 20)
    count = 3 * PENDING_BYTES // len(data)
    tap = recorder.tap(0)
    for number in range(count):
        tap.sent(_result(number, data))
    recorder.close("over", ())
    records, _ = read(tmp_path / "r")
    assert [record.request.memory_result.id for record in records[1:-1]] == list(range(count))
    assert records[-1].HasField("end")


@contextmanager
def _file_size_limit(limit: int) -> Iterator[None]:
    """Writes past limit bytes of a file fail, as on a full disk; Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_from_the_start_is_told_with_the_file(tmp_path: Path) -> None:
    with (
        _file_size_limit(0),
        pytest.raises(RecordingError, match=f"{tmp_path}/r cannot be written: File too large; give another"),
    ):
        Recorder(tmp_path / "r", CONFIG)


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(tmp_path / "r", CONFIG)
    tap = recorder.tap(0)
    tap.sent(_result(0))
    wait_until(lambda: len(read(tmp_path / "r")[0]) == 2, "the first message is in the file")
    assert recorder.failure == ""
    with _file_size_limit(64 << 10):
        tap.sent(_result(1, os.urandom(1 << 20)))
        wait_until(lambda: bool(recorder.failure), "the recorder says so")
    for number in range(20):
        tap.sent(_result(number, bytes(1 << 20)))  # Must not wait for a writer that is not there.
    recorder.close("over", ())
    records, cut = read(tmp_path / "r")
    assert [record.WhichOneof("event") for record in records] == ["start", "request"]
    assert cut
    assert recorder.failure == f"the recording {tmp_path}/r ends at {records[-1].time_ns / 1e9:.3f} s: File too large"
    assert capsys.readouterr().out.count(recorder.failure) == 1


@pytest.mark.usefixtures("capsys")  # Else the limit is one of the log, too.
def test_a_disk_that_is_full_at_the_end_is_told_too(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r", CONFIG)
    with _file_size_limit((tmp_path / "r").stat().st_size):
        recorder.close("over", ())
    assert recorder.failure == f"the recording {tmp_path}/r ends at 0.000 s: File too large"


def test_a_recorder_that_fails_of_itself_is_told_and_holds_nobody_up(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r", CONFIG)
    recorder.put(0, pb.Hello())  # type: ignore[arg-type]  # It has no place in a recording.
    wait_until(lambda: bool(recorder.failure), "the recorder says so")
    assert recorder.failure.startswith(f"the recording {tmp_path}/r ends at 0.000 s: KeyError: ")
    recorder.tap(0).sent(_result(1, bytes(PENDING_BYTES)))
    recorder.tap(0).sent(_result(2))
    recorder.close("over", ())


def test_a_whole_recording_has_no_failure(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r", CONFIG)
    recorder.tap(0).sent(_result(1))
    recorder.close("over", ())
    assert recorder.failure == ""
