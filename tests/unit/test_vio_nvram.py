# SPDX-License-Identifier: GPL-2.0-or-later
"""NVRAM: the two RTAS calls and the file behind them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from splitvisor.backend import Result
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
    assert not path.exists()
    vm.ram.data[0:4] = b"boot"
    assert store(session, 100, 0, 4) == [RtasStatus.SUCCESS, 4]
    assert path.read_bytes() == bytes(100) + b"boot" + bytes(8192 - 104)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["nvram"], "nothing is left beside it"

    again, vm = make_session(path=str(path), bytes="8192")
    assert fetch(again, 100, 0x100, 4) == [RtasStatus.SUCCESS, 4]
    assert vm.ram.data[0x100:0x104] == b"boot"


def test_every_later_store_is_in_the_same_file_and_a_closed_device_lets_go_of_it(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    session, vm = make_session(path=str(path), bytes="8192")
    [nvram] = session.bus.all(Nvram)
    before = len(list(Path("/proc/self/fd").iterdir()))
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
    directory = tmp_path / "gone"
    session, vm = make_session(path=str(directory / "nvram"))
    vm.ram.data[0:4] = b"boot"
    assert store(session, 0, 0, 4) == [RtasStatus.HARDWARE_ERROR, 0]
    assert fetch(session, 0, 0, 4) == [RtasStatus.SUCCESS, 4]
    assert vm.ram.data[0:4] == bytes(4)


@pytest.mark.parametrize("size", ["8191", "1048577", "-1", "64K", "", "9" * 5000, "٨١٩٢"])
def test_a_bad_size_is_refused(size: str) -> None:
    with pytest.raises(BusError, match="must be a number from 8192 to 1048576"):
        make_session(bytes=size)


def test_a_file_of_another_size_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "important"
    path.write_bytes(b"not an nvram image")
    with pytest.raises(BusError, match="is not 65536 bytes long"):
        make_session(path=str(path))
    assert path.read_bytes() == b"not an nvram image"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BusError, match="cannot read"):
        make_session(path=str(tmp_path))
