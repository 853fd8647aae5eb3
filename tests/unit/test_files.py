# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of users: what may be read, what may be replaced, and what stays as it is."""

from __future__ import annotations

import os
import shlex
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from splitvisor.process.appended import AppendedFile
from splitvisor.process.files import WrongFileError, is_mounted_alone, own_descriptor
from splitvisor.process.inputs import Pipes, open_input, read_input
from splitvisor.process.locks import InUseError, lock
from splitvisor.process.outputs import PRIVATE, SHARED, Content, Output


def _is_letter(file: BinaryIO) -> bool:
    return file.read(4) == b"Dear"


LETTER = Content("a letter", _is_letter)
OLD, NEW = b"Dear old", b"Dear new, more of it"


def output(path: Path, mode: int = PRIVATE) -> Output:
    return Output(path, LETTER, mode)


# Outputs.


def test_an_output_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with output(path).written() as file:
        file.write(NEW)
        file.flush()
        assert path.read_bytes() == OLD
    assert path.read_bytes() == NEW
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", [PRIVATE, SHARED])
def test_a_new_file_has_the_mode_that_it_is_to_have(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    checked = output(path, mode)
    assert os.listdir(tmp_path) == [], "an output that is not written leaves nothing"
    checked.write(NEW)
    umask = os.umask(0o22)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == mode & ~umask
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with suppress(ZeroDivisionError), output(path).written() as file:
        file.write(NEW)
        raise ZeroDivisionError
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_only_its_like_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\x7fELF, a kernel perhaps")
    with pytest.raises(WrongFileError, match="it is there and is not a letter, so it is not replaced"):
        output(path)
    assert path.read_bytes() == b"\x7fELF, a kernel perhaps"
    path.write_bytes(b"")
    output(path).write(NEW)
    assert path.read_bytes() == NEW


def test_what_came_while_it_was_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write() -> None:
        with output(path).written() as file:
            file.write(NEW)
            path.write_bytes(b"a kernel")

    with pytest.raises(WrongFileError, match="is not a letter"):
        write()
    assert path.read_bytes() == b"a kernel"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_one_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for target in (tmp_path / "elsewhere" / "there", tmp_path / "elsewhere" / "new"):
        link = tmp_path / f"link-to-{target.name}"
        link.symlink_to(target)
        if target.name == "there":
            target.write_bytes(OLD)
        output(link).write(NEW)
        assert link.is_symlink()
        assert target.read_bytes() == NEW
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["new", "there"]


def test_mode_and_owner_of_a_replaced_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    output(path).write(NEW)
    after = path.stat()
    assert path.read_bytes() == NEW
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_further_names_of_a_file_have_what_was_written(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(OLD + bytes(100))
    other.hardlink_to(path)
    output(path).write(NEW)
    assert other.read_bytes() == NEW
    assert path.samefile(other)
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


@pytest.mark.parametrize(
    ("setup", "answer"),
    [
        ("touch real file; mount --bind real file", "Dear new, more of it"),
        # A container's file in an image that cannot be written.
        ("touch real; mkdir d; touch d/file; mount --bind -o ro d d; mount --bind real d/file; cd d", "Dear new, more of it"),
        ("mount -t tmpfs -o size=16k none .; cd $PWD; mount -o remount,ro .", "Read-only file system"),
    ],
)
def test_a_file_on_a_mount_of_its_own_is_written(setup: str, answer: str, private_mounts: Callable[[str], str]) -> None:
    script = """
from pathlib import Path
from tests.unit.test_files import NEW, output
try:
    output(Path("file")).write(NEW)
except OSError as error:
    print(error.strerror)
else:
    print(Path("file").read_text())
"""
    assert private_mounts(f"{setup}\n{shlex.join([sys.executable, '-c', script])}") == answer


def test_a_device_and_a_pipe_get_what_is_written_and_stay(tmp_path: Path) -> None:
    output(Path("/dev/null")).write(NEW)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(WrongFileError, match="nobody reads this pipe"):
        output(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    written = output(pipe)
    assert written.streams
    written.write(NEW)
    assert os.read(reader, 100) == NEW
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)


def test_a_descriptor_of_this_process_is_written_where_it_stands(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"before ")
        output(Path(f"/dev/fd/{file.fileno()}")).write(NEW)
        file.write(b" after")
    assert (tmp_path / "file").read_bytes() == b"before " + NEW + b" after"


def _directory(path: Path) -> None:
    path.mkdir()


def _nowhere(path: Path) -> None:
    path.symlink_to("gone/file")


def _block_device(path: Path) -> None:
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 200))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_directory, "is not a regular file but a directory"),
        (_block_device, "is not a regular file but a block device"),
        (_nowhere, "No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_told_before(make: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    try:
        make(tmp_path / "file")
    except PermissionError:
        pytest.skip("this user may not make it")
    with pytest.raises(OSError, match=words):
        output(tmp_path / "file")


def test_what_a_killed_writer_left_is_used_again_and_one_that_writes_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / ".file.splitvisor-part").write_bytes(b"left by a process that was killed")
    with output(path).written() as file:
        file.write(NEW)
        with pytest.raises(WrongFileError, match="another process is writing it"):
            output(path)
    assert path.read_bytes() == NEW
    assert os.listdir(tmp_path) == ["file"]


# Appended files.


def test_lines_are_added_to_texts_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in (b"one\n", b"two\n"):
        log = AppendedFile(path)
        log.write(line)
        log.close()
        log.close()
    assert path.read_bytes() == b"one\ntwo\n"
    path.write_bytes(b"\x7fELF\0\0")
    with pytest.raises(WrongFileError, match="it is there and is not a text, so nothing is added to it"):
        AppendedFile(path)
    assert path.read_bytes() == b"\x7fELF\0\0"


def test_a_log_without_room_or_a_slow_reader_loses_lines_and_says_how_many(tmp_path: Path) -> None:
    full = AppendedFile(Path("/dev/full"))
    full.write(b"line\n")
    assert (full.lost_bytes, full.failure) == (5, "No space left on device")
    full.close()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(WrongFileError, match="nobody reads this pipe"):
        AppendedFile(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    slow = AppendedFile(pipe)
    slow.write(bytes(1 << 20))
    assert 0 < slow.lost_bytes < 1 << 20
    assert slow.failure == "Resource temporarily unavailable"
    slow.close()
    os.close(reader)


# Inputs.


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_regular_file_is_not_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "file")
    with pytest.raises(WrongFileError, match="not a regular file"):
        open_input(tmp_path / "file")
    with pytest.raises(WrongFileError, match="but a character device"):
        open_input(Path("/dev/zero"))


def test_what_is_read_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_input(path, 5) == b"12345"
    with pytest.raises(WrongFileError, match="it is larger than 4 bytes"):
        read_input(path, 4)


def test_a_pipe_becomes_a_file_for_every_process(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    contents = bytes(range(256)) * 1000
    writer = threading.Thread(target=pipe.write_bytes, args=(contents,))
    writer.start()
    said: list[str] = []
    pipes = Pipes(time.monotonic() + 30, said.append)
    file = pipes.file(pipe)
    writer.join()
    assert file != pipe
    assert read_input(file, 1 << 20) == read_input(file, 1 << 20) == contents
    assert pipes.gave(file)
    assert pipes.named(f"{file}: no kernel") == f"{pipe}: no kernel"
    assert said == [f"reading {pipe}", ""]


def test_an_ordinary_file_and_nothing_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pipes = Pipes()
    assert pipes.file(path) == path
    path.write_bytes(b"x")
    assert pipes.file(path) == path
    assert not pipes.gave(path)


def test_a_pipe_that_nobody_writes_to_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="the pipe's end did not come in time"):
        Pipes(began + 0.2).file(pipe)
    assert time.monotonic() - began >= 0.2


def test_a_descriptor_of_this_process_is_a_file_for_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    with path.open("rb") as file:
        named = Path(f"/dev/fd/{file.fileno()}")
        assert own_descriptor(named) == file.fileno()
        given = Pipes().file(named)
    path.unlink()
    assert read_input(given, 100) == b"contents"


@pytest.mark.parametrize(
    ("path", "descriptor"),
    [("/dev/stdin", 0), ("/proc/self/fd/7", 7), ("/dev/../dev/fd/63", 63), ("/proc/1/fd/3", None), ("/dev/null", None)],
)
def test_descriptors_are_known_by_their_paths(path: str, descriptor: int | None) -> None:
    assert own_descriptor(Path(path)) == descriptor


# Locks and mounts.


def test_a_file_is_one_holders_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open("r+b") as first, path.open("r+b") as second:
        lock(first.fileno(), path)
        with pytest.raises(InUseError, match=f"it is in use by process {os.getpid()}"):
            lock(second.fileno(), path)
        first.close()
        lock(second.fileno(), path)


def test_a_file_that_is_mounted_alone_is_known(tmp_path: Path, private_mounts: Callable[[str], str]) -> None:
    path = tmp_path / "ordinary"
    path.touch()
    assert not is_mounted_alone(path)
    script = (
        "from pathlib import Path; from splitvisor.process.files import is_mounted_alone; print(is_mounted_alone(Path('file')))"
    )
    assert private_mounts(f"touch real file; mount --bind real file; {shlex.join([sys.executable, '-c', script])}") == "True"
