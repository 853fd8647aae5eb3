# SPDX-License-Identifier: GPL-2.0-or-later
"""Transcripts: rotation, what a successor finds, full disks."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from splitvisor.backend import Call
from splitvisor.backend.vio import BusError
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2
from splitvisor.service.serve import SettingError
from tests.fake_vm import FakeVm, make_call
from vio_service.console.console import Console
from vio_service.console.transcript import TranscriptDirectory
from vio_service.console.transcript_journal import SLOT_BYTES, Journal
from vio_service.console.vm_consoles import ConsoleSettings
from vio_service.devices.vty import Vty
from vio_service.devices.vty import calls as vty
from vio_service.session import vio_session

UNIT = 0x71000000


class Process:
    """One vio_service's journal of one VM with one console; what it does not close, a kill leaves as it is."""

    def __init__(self, directory: TranscriptDirectory, incarnation: int = 1) -> None:
        self.journal = Journal(directory, "vm", incarnation)
        self.console = Console("vm", UNIT, on_input=lambda: None)
        self.journal.add(self.console)
        self._sequence = 0

    def say(self, text: bytes, sequence: int | None = None, vcpu: int = 0) -> None:
        self._sequence = self._sequence + 1 if sequence is None else sequence
        self.journal.append(vcpu, self._sequence, self.console, text)

    def shown(self) -> bytes:
        return self.console.output.read(self.console.output.start, 1 << 30)


@pytest.fixture
def directory(tmp_path: Path) -> TranscriptDirectory:
    return TranscriptDirectory(tmp_path, file_bytes=4096, kept_files=2)


def path(directory: TranscriptDirectory) -> Path:
    return directory.file("vm", UNIT)


def everything(directory: TranscriptDirectory, limit: int = 0) -> bytes:
    return b"".join(directory.newest("vm", UNIT, limit))


def test_output_is_shown_once_it_is_in_the_file(directory: TranscriptDirectory) -> None:
    process = Process(directory)
    process.say(b"a")
    process.say(b"b", vcpu=1)
    assert (process.shown(), path(directory).read_bytes()) == (b"", b"")
    process.journal.commit()
    assert (process.shown(), path(directory).read_bytes()) == (b"ab", b"ab")


def test_a_successor_goes_on_at_the_byte_and_leaves_out_what_it_has(directory: TranscriptDirectory) -> None:
    process = Process(directory)
    process.say(b"one ")
    process.say(b"two ")
    process.console.push_input(b"typed")
    process.journal.commit()
    with path(directory).open("ab") as file:
        file.write(b"written and not comm")  # It was killed here.
    successor = Process(directory)
    assert (successor.console.instance, successor.shown()) == (process.console.instance, b"one two ")
    assert successor.console.input_received == 5
    successor.say(b"two ", 2)
    successor.say(b"three ", 3)
    successor.say(b"other", 1, vcpu=1)
    successor.journal.commit()
    assert successor.shown() == everything(directory) == b"one two three other"
    assert successor.console.output.end == 19


def test_another_life_of_the_vm_begins_a_new_file(directory: TranscriptDirectory) -> None:
    process = Process(directory)
    process.say(b"old")
    process.journal.close()
    process.journal.close()
    successor = Process(directory, incarnation=2)
    assert successor.console.instance != process.console.instance
    assert successor.shown() == b""
    successor.say(b"new", 1)
    successor.journal.commit()
    assert path(directory).read_bytes() == b"new"
    assert path(directory).with_name("vm-71000000.log.1").read_bytes() == b"old"
    assert (everything(directory), everything(directory, 4), everything(directory, 2)) == (b"oldnew", b"dnew", b"ew")


def test_files_are_rotated_by_size_and_the_oldest_goes(directory: TranscriptDirectory, tmp_path: Path) -> None:
    process = Process(directory)
    for number in range(5):
        process.say(bytes((65 + number,)) * 4096)
        process.journal.commit()
    process.say(b"end")
    process.journal.commit()
    kept = {each.name: each.read_bytes()[:3] for each in tmp_path.glob("vm-71000000.log*")}
    assert kept == {"vm-71000000.log": b"end", "vm-71000000.log.1": b"EEE", "vm-71000000.log.2": b"DDD"}
    successor = Process(directory)
    assert successor.shown() == b"E" * 4096 + b"end", "the file before is part of the replay"
    assert (successor.console.output.start, successor.console.output.end) == (4 * 4096, 5 * 4096 + 3)


def test_a_kill_between_a_rotation_and_its_record_loses_nothing(directory: TranscriptDirectory) -> None:
    process = Process(directory)
    process.say(b"all")
    process.journal.commit()
    path(directory).rename(path(directory).with_name("vm-71000000.log.1"))
    successor = Process(directory)
    assert successor.shown() == b"all"
    successor.say(b"more", 2)
    successor.journal.commit()
    assert (successor.shown(), path(directory).read_bytes()) == (b"allmore", b"more")


def test_a_file_that_somebody_cut_is_put_away(directory: TranscriptDirectory) -> None:
    process = Process(directory)
    process.say(b"everything")
    process.journal.commit()
    os.truncate(path(directory), 5)
    successor = Process(directory)
    assert (successor.shown(), successor.console.output.end) == (b"", 10)
    successor.say(b"new", 2)
    successor.journal.commit()
    assert everything(directory) == b"everynew"


@pytest.mark.parametrize("damage", [0, 40, 100])
def test_a_torn_record_is_none_and_the_one_before_counts(directory: TranscriptDirectory, tmp_path: Path, damage: int) -> None:
    process = Process(directory)
    process.say(b"a")
    process.journal.commit()
    before = (tmp_path / "vm.positions").read_bytes()
    process.say(b"b")
    process.journal.commit()
    after = bytearray((tmp_path / "vm.positions").read_bytes())
    slot = 0 if before[:SLOT_BYTES] != after[:SLOT_BYTES] else SLOT_BYTES
    after[slot + damage] ^= 0xFF
    (tmp_path / "vm.positions").write_bytes(after)
    successor = Process(directory)
    assert successor.shown() == b"a"
    successor.say(b"b", 2)
    successor.journal.commit()
    assert everything(directory) == b"ab"


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_neither_guest_nor_readers_and_the_gap_is_between_files(tmp_path: Path) -> None:
    directory = TranscriptDirectory(tmp_path)
    process = Process(directory)
    size = 2 * SLOT_BYTES  # So that the limit is the transcript's alone.
    process.say(b"b" * size)
    process.journal.commit()
    with full_disk(size + 3):
        process.say(b"lost ")
        process.journal.commit()
        process.say(b"t" * (size + 4))
        process.journal.commit()
    process.say(b"after")
    process.journal.commit()
    assert process.shown() == b"b" * size + b"lost " + b"t" * (size + 4) + b"after"
    assert path(directory).read_bytes() == b"after"
    assert everything(directory) == b"b" * size + b"after"
    successor = Process(directory)
    assert (successor.shown(), successor.console.output.start) == (b"after", 2 * size + 9)


@pytest.mark.parametrize("name", ["../vm", "", "VM", "a" * 64, "a/b", "a\n"])
def test_a_name_that_is_none_never_becomes_a_path(directory: TranscriptDirectory, name: str) -> None:
    with pytest.raises(BusError, match="not a name"):
        Journal(directory, name, 1)


def test_one_directory_has_one_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vio_service.console.transcript.LOCK_SECONDS", 0.0)
    directory = TranscriptDirectory(tmp_path / "log")
    lock = directory.lock()
    with pytest.raises(SettingError, match="another vio_service writes there"):
        directory.lock()
    os.close(lock)
    os.close(directory.lock())


@pytest.mark.parametrize(
    ("directory", "text"),
    [
        (TranscriptDirectory(Path("/dev/null/x")), "give a directory"),
        (TranscriptDirectory(Path("/tmp"), file_bytes=10), "at least 4096"),
        (TranscriptDirectory(Path("/tmp"), kept_files=0), "give 1 to 99"),
    ],
)
def test_bad_settings_are_refused(directory: TranscriptDirectory, text: str) -> None:
    with pytest.raises(SettingError, match=text):
        directory.lock()


def test_a_terminal_that_is_plugged_in_has_a_transcript_too(directory: TranscriptDirectory) -> None:
    vm = FakeVm(devices=[trap_pb2.DeviceSpec(kind="vty")], name="vm")
    session = vio_session(vm, None, ConsoleSettings(transcripts=directory))
    connector = session.bus.connectors.at(UNIT + 1)
    assert connector is not None
    device = Vty(vm, UNIT + 1, {})
    session.plug(connector, device, session.bus.node(device))
    call = Call(vcpu=0, arguments=(UNIT + 1, 7, int.from_bytes(b"plugged\0"), 0), sequence=1)
    assert vty.put_term_char(session, call) == H.SUCCESS
    assert session.uncommitted
    session.commit()
    assert not session.uncommitted
    session.unplug(connector)
    session.host.close()
    assert directory.file("vm", UNIT + 1).read_bytes() == b"plugged"


def test_without_transcripts_nothing_is_to_be_committed() -> None:
    session = vio_session(FakeVm(devices=[trap_pb2.DeviceSpec(kind="vty")]))
    make_call(session, vty.put_term_char, UNIT, 1, 0x41 << 56, 0)
    assert session.uncommitted is False
    assert session.host.all()[0].output.end == 1


@pytest.mark.parametrize("name", ["vm.positions", f"vm-{UNIT:08x}.log", f"vm-{UNIT:08x}.log.1"])
def test_a_pipe_in_the_directory_is_not_waited_for(directory: TranscriptDirectory, name: str) -> None:
    os.mkfifo(directory.path / name)
    if name.endswith(".1"):
        assert everything(directory) == b""
    else:
        with pytest.raises(BusError, match=f"{name}: is not a regular file but a pipe"):
            Process(directory)
