# SPDX-License-Identifier: GPL-2.0-or-later
"""NVRAM: the two RTAS calls and the file behind them."""

from __future__ import annotations

import asyncio
import os
import resource
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from splitvisor.backend import Call, Result
from splitvisor.backend.vio import BusError, VioSession
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.codes import RtasStatus
from splitvisor.rpc import trap_pb2
from splitvisor.trap.offer import mirror_messages
from tests.fake_vm import FakeVm, make_call
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.nvram import Nvram
from vio_service.devices.nvram.calls import nvram_fetch, nvram_store
from vio_service.session import vio_session

SIZE = 65536


def make_session(**options: str) -> tuple[VioSession[VmConsoles], FakeVm]:
    vm = FakeVm(devices=[trap_pb2.DeviceSpec(kind="nvram", options=options)])
    return vio_session(vm), vm


def store(session: VioSession[VmConsoles], offset: int, address: int, length: int) -> list[int]:
    result, _ = make_call(session, nvram_store, offset, address, length, returns=2)
    assert isinstance(result, Result)
    return list(result.returns)


def fetch(session: VioSession[VmConsoles], offset: int, address: int, length: int) -> list[int]:
    result, _ = make_call(session, nvram_fetch, offset, address, length, returns=2)
    assert isinstance(result, Result)
    return list(result.returns)


def test_what_is_stored_is_fetched() -> None:
    session, vm = make_session()
    vm.ram.data[0x1000:0x1005] = b"hello"
    assert store(session, SIZE - 5, 0x1000, 5) == [RtasStatus.SUCCESS, 5]
    assert fetch(session, SIZE - 6, 0x2000, 6) == [RtasStatus.SUCCESS, 6]
    assert vm.ram.data[0x2000:0x2006] == b"\0hello"


@pytest.mark.parametrize(("offset", "length"), [(SIZE - 5, 6), (SIZE, 1), (0, SIZE + 1), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_a_range_outside_is_a_bad_parameter_and_changes_nothing(offset: int, length: int) -> None:
    session, vm = make_session()
    vm.ram.data[0x1000:0x1010] = b"x" * 16
    assert store(session, offset, 0x1000, length) == [RtasStatus.PARAMETER_ERROR, 0]
    assert fetch(session, offset, 0x1000, length) == [RtasStatus.PARAMETER_ERROR, 0]
    assert vm.ram.data[0x1000:0x1010] == b"x" * 16
    fetch(session, 0, 0x10000, SIZE)
    assert not any(vm.ram.data[0x10000 : 0x10000 + SIZE])


def test_a_buffer_outside_ram_is_refused_and_changes_nothing() -> None:
    session, vm = make_session()
    with pytest.raises(GuestAddressError):
        store(session, 0, vm.memory.size - 4, 8)
    with pytest.raises(GuestAddressError):
        fetch(session, 0, vm.memory.size - 4, 8)
    fetch(session, 0, 0, 8)
    assert not any(vm.ram.data[:8])


def test_without_nvram_both_calls_report_the_missing_hardware() -> None:
    session = vio_session(FakeVm())
    assert store(session, 0, 0, 1) == [RtasStatus.HARDWARE_ERROR, 0]
    assert fetch(session, 0, 0, 1) == [RtasStatus.HARDWARE_ERROR, 0]


def test_a_store_is_in_the_file_when_it_returns_and_is_there_for_the_next_life(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    session, vm = make_session(path=str(path), bytes="8192")
    assert path.read_bytes() == bytes(8192), "what speaks against the file is told at the start"
    vm.ram.data[0:4] = b"boot"
    assert store(session, 100, 0, 4) == [RtasStatus.SUCCESS, 4]
    assert path.read_bytes() == bytes(100) + b"boot" + bytes(8192 - 104)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["nvram"], "nothing is left beside it"

    asyncio.run(session.close())
    again, vm = make_session(path=str(path), bytes="8192")
    assert fetch(again, 100, 0x100, 4) == [RtasStatus.SUCCESS, 4]
    assert vm.ram.data[0x100:0x104] == b"boot"


def test_every_later_store_is_in_the_same_file_and_a_closed_device_lets_go_of_it(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    before = len(list(Path("/proc/self/fd").iterdir()))
    session, vm = make_session(path=str(path), bytes="8192")
    [nvram] = session.bus.all(Nvram)
    for offset in range(100):
        vm.ram.data[0] = offset + 1
        assert store(session, offset, 0, 1) == [RtasStatus.SUCCESS, 1]
        assert path.read_bytes()[offset] == offset + 1
    nvram.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert path.read_bytes() == bytes(range(1, 101)) + bytes(8192 - 100)


def test_a_store_changes_what_fetch_is_answered_from() -> None:
    session, vm = make_session()
    vm.ram.data[0x1000:0x1005] = b"hello"
    _, call = make_call(session, nvram_store, 7, 0x1000, 5, returns=2)
    assert [effect.mirror_write for effect in call.effects] == [trap_pb2.MirrorWrite(name="nvram-fetch", offset=7, data=b"hello")]
    _, call = make_call(session, nvram_store, SIZE, 0x1000, 5, returns=2)
    assert call.effects == []
    [mirror] = mirror_messages(session.calls, session)
    assert (mirror.name, mirror.contents[:12]) == ("nvram-fetch", bytes(7) + b"hello")
    assert mirror_messages(session.calls, vio_session(FakeVm())) == []


def test_a_store_that_cannot_be_written_fails_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    session, vm = make_session(path=str(path))
    vm.ram.data[0:4] = b"boot"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE - 4, limits[1]))
    try:
        assert store(session, SIZE - 4, 0, 4) == [RtasStatus.HARDWARE_ERROR, 0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert fetch(session, SIZE - 4, 0, 4) == [RtasStatus.SUCCESS, 4]
    assert vm.ram.data[0:4] == bytes(4)
    assert path.read_bytes() == bytes(SIZE)


@pytest.mark.parametrize("size", ["8191", "1048577", "-1", "64K", "", "9" * 5000, "٨١٩٢"])
def test_a_bad_size_is_refused(size: str) -> None:
    with pytest.raises(BusError, match="must be a number from 8192 to 1048576"):
        make_session(bytes=size)


def test_a_file_of_another_size_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "important"
    path.write_bytes(b"not an nvram image")
    with pytest.raises(BusError, match="it has 18 bytes, not 65536"):
        make_session(path=str(path))
    assert path.read_bytes() == b"not an nvram image"


def test_the_second_vm_with_a_file_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    first, vm = make_session(path=str(path))
    with pytest.raises(BusError, match=f"it is in use by process {os.getpid()}; give each VM a file of its own"):
        make_session(path=str(path))
    vm.ram.data[0:4] = b"boot"
    assert store(first, 0, 0, 4) == [RtasStatus.SUCCESS, 4]
    assert path.read_bytes()[:4] == b"boot"
    asyncio.run(first.close())
    make_session(path=str(path))


def test_two_devices_of_one_vm_with_a_file_are_refused_and_let_go_of_it(tmp_path: Path) -> None:
    path = str(tmp_path / "nvram")
    with pytest.raises(BusError, match="it is in use"):
        vio_session(FakeVm(devices=[trap_pb2.DeviceSpec(kind="nvram", options={"path": path})] * 2))
    make_session(path=path)


def test_another_process_finds_the_file_in_use_until_this_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    script = f"""
import sys
from tests.unit.test_vio_nvram import make_session
session, vm = make_session(path={str(path)!r})
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        try:
            with pytest.raises(BusError, match=f"it is in use by process {holder.pid}"):
                make_session(path=str(path))
        finally:
            holder.kill()
    make_session(path=str(path))


def test_a_link_stays_one_and_its_target_gets_the_stores(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    link, target = tmp_path / "nvram", tmp_path / "kept" / "real"
    link.symlink_to(target)
    session, vm = make_session(path=str(link))
    vm.ram.data[0:4] = b"boot"
    assert store(session, 0, 0, 4) == [RtasStatus.SUCCESS, 4]
    assert link.is_symlink()
    assert target.read_bytes()[:4] == b"boot"
    with pytest.raises(BusError, match="it is in use"):
        make_session(path=str(target))


def test_names_mode_and_owner_of_a_file_stay(tmp_path: Path) -> None:
    path, other = tmp_path / "nvram", tmp_path / "other"
    path.write_bytes(bytes(SIZE))
    path.chmod(0o644)
    other.hardlink_to(path)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    session, vm = make_session(path=str(path))
    vm.ram.data[0:4] = b"boot"
    assert store(session, 0, 0, 4) == [RtasStatus.SUCCESS, 4]
    after = path.stat()
    kept = ("st_ino", "st_mode", "st_uid", "st_gid", "st_nlink")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert other.read_bytes()[:4] == b"boot"
    with pytest.raises(BusError, match="it is in use"):
        make_session(path=str(other))


def test_an_empty_file_becomes_an_nvram(tmp_path: Path) -> None:
    """A container engine mounts only what is there: its user makes an empty file."""
    path = tmp_path / "nvram"
    path.touch(0o640)
    make_session(path=str(path))
    assert path.read_bytes() == bytes(SIZE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_fifo, "is not a regular file but a pipe"),
        (_socket, "is not a regular file but a socket"),
        (_device, "is not a regular file but a character device"),
        (Path.mkdir, "is not a regular file but a directory"),
        (_link_to_itself, "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(make: Callable[[Path], None], words: str, short_path: Path) -> None:
    path = short_path / "nvram"
    make(path)
    with pytest.raises(BusError, match=words):
        make_session(path=str(path))


def test_a_directory_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BusError, match="No such file or directory"):
        make_session(path=str(tmp_path / "gone" / "nvram"))


def test_a_disk_without_room_is_told_at_the_start_and_nothing_is_left(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(BusError, match="File too large"):
            make_session(path=str(tmp_path / "nvram"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setup", "answer"),
    [
        # As a container engine mounts a single file.
        ("touch real nvram; mount --bind real nvram", "stored"),
        (
            "truncate -s 65536 nvram; mount --bind nvram nvram; mount -o remount,bind,ro nvram",
            "nvram: nvram: Read-only file system",
        ),
        ("mount -t tmpfs -o size=16k none .; cd $PWD; touch nvram", "nvram: nvram: No space left on device"),
    ],
)
def test_a_file_on_a_mount_of_its_own_is_written_and_one_that_cannot_be_is_told_at_the_start(
    setup: str, answer: str, private_mounts: Callable[[str], str]
) -> None:
    script = """
from tests.unit.test_vio_nvram import BusError, make_session, store
try:
    session, vm = make_session(path="nvram")
except BusError as error:
    print(error.problem.what)
else:
    vm.ram.data[0:4] = b"boot"
    assert store(session, 0, 0, 4) == [0, 4]
    print("stored" if open("real", "rb").read(4) == b"boot" else "lost")
"""
    assert private_mounts(f"{setup}\n{shlex.join([sys.executable, '-c', script])}") == answer


def moved_session(path: Path) -> tuple[VioSession[VmConsoles], FakeVm]:
    vm = FakeVm(devices=[trap_pb2.DeviceSpec(kind="nvram", options={"path": str(path)})])
    vm.moved = True
    return vio_session(vm), vm


def test_a_machine_that_moves_takes_over_its_file_when_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    first, vm = make_session(path=str(path))
    vm.ram.data[0:4] = b"boot"
    assert store(first, 0, 0, 4) == [RtasStatus.SUCCESS, 4]

    async def move() -> None:
        second, there = moved_session(path)
        await second.restore(await first.save())
        assert path.read_bytes()[:4] == b"boot"
        await second.resumed()
        there.ram.data[0:4] = b"more"
        call = asyncio.ensure_future(nvram_store(second, Call(vcpu=0, arguments=(4, 0, 4), returns=2)))
        await asyncio.sleep(0)
        assert not call.done(), "the machine that it comes from has not ended"
        await first.close()
        assert (await call).returns == (RtasStatus.SUCCESS, 4)
        assert path.read_bytes()[:8] == b"bootmore"
        await second.close()

    asyncio.run(move())


def test_a_machine_that_moves_back_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    first, vm = make_session(path=str(path))

    async def move() -> None:
        second, _ = moved_session(path)
        await second.restore(await first.save())
        await second.close()

    asyncio.run(move())
    vm.ram.data[0:4] = b"boot"
    assert store(first, 0, 0, 4) == [RtasStatus.SUCCESS, 4]
    assert path.read_bytes()[:4] == b"boot"
