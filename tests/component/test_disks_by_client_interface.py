# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest reads and writes a disk by the client interface; the disk's process moves the bytes, into mapped RAM and by streams."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from splitvisor.machine.config import Device
from splitvisor.testing import SCRIPTED, RunningMachine, ScriptedGuest, StartMachine

pytest_plugins = ["splitvisor.testing"]

SIZE = 6 << 20
MIB = 1 << 20
FAILED = 0xFFFF_FFFF


@pytest.fixture(name="disk")
def make_disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(5).randbytes(SIZE))
    return path


@pytest.fixture(name="machine", params=[True, False], ids=["mapped", "streams"])
def start(request: pytest.FixtureRequest, start_machine: StartMachine, disk: Path) -> RunningMachine:
    devices = (*SCRIPTED.devices, Device("v-scsi", options={"disk0": str(disk)}))
    return start_machine((), replace(SCRIPTED, devices=devices, shared_memory=request.param))


def read(guest: ScriptedGuest, disk: int, offset: int, length: int, buffer: int) -> bytes:
    assert guest.client("seek", disk, offset >> 32, offset & 0xFFFF_FFFF) == (0,)
    assert guest.client("read", disk, buffer, length) == (length,)
    return guest.memory[buffer : buffer + length]


def test_what_is_read_is_the_files_and_what_is_written_is_in_it(machine: RunningMachine, disk: Path) -> None:
    guest = machine.guest
    data = disk.read_bytes()
    [ihandle] = guest.client("open", "disk")
    assert ihandle
    assert guest.client("call-method", "block-size", ihandle, returns=2) == (0, 512)
    assert guest.client("call-method", "#blocks", ihandle, returns=2) == (0, SIZE // 512)
    buffer = guest.allocate(2 * MIB, 4096)
    dice = random.Random(6)
    lengths = (1, 512, 1000, 65_536, MIB, 2 * MIB - 7)
    for length in lengths:
        offset = dice.randrange(SIZE - length)
        at = buffer + dice.randrange(8) if length < MIB else buffer
        assert read(guest, ihandle, offset, length, at) == data[offset : offset + length]

    new = dice.randbytes(8192)
    guest.memory[buffer : buffer + len(new)] = new
    guest.client("seek", ihandle, 0, 4096)
    assert guest.client("write", ihandle, buffer, len(new)) == (len(new),)
    assert disk.read_bytes() == data[:4096] + new + data[4096 + len(new) :]
    assert read(guest, ihandle, 4000, 9000, buffer) == data[4000:4096] + new + data[4096 + len(new) : 13_000]

    guest.client("seek", ihandle, 0, SIZE - 100)
    assert guest.client("read", ihandle, buffer, 512) == (100,)
    assert guest.client("read", ihandle, buffer, 512) == (0,)
    assert guest.client("seek", ihandle, 1, 0) == (FAILED,)


def test_the_adapter_lists_its_units_in_guest_memory(machine: RunningMachine) -> None:
    guest = machine.guest
    [root] = guest.client("finddevice", "/vdevice")
    [child] = guest.client("child", root)
    adapters = []
    while child:
        length = guest.client("getprop", child, "device_type", buffer := guest.allocate(64), 64)[0]
        if guest.memory[buffer : buffer + length] == b"vscsi\0":
            adapters.append(child)
        [child] = guest.client("peer", child)
    [adapter] = adapters
    path = guest.allocate(256)
    [length] = guest.client("package-to-path", adapter, path, 256)
    name = guest.memory[path : path + length].decode()
    [ihandle] = guest.client("open", name)
    catch, count, table = guest.client("call-method", "vscsi-report-luns", ihandle, returns=3)
    assert (catch, count) == (0, 1)
    pointer = int.from_bytes(guest.memory[table : table + 8], "big")
    luns = guest.memory[pointer : pointer + 16]
    assert luns == bytes.fromhex("80000000000000000000000000000000")
    assert guest.client("finddevice", f"{name}/disk@8000000000000000") != (FAILED,)
    alias = guest.property("/aliases", "disk")
    assert alias == f"{name}/disk@8000000000000000\0".encode()
