# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks as a client program has them: nodes and aliases, open with a partition and a file, reads at any alignment."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest

from of_client_service import interface_state
from of_client_service.disks.disk import MAX_TRANSFER, DiskArguments
from of_client_service.disks.scratch import LUN_TABLE_AT
from of_client_service.session import ClientInterfaceSession
from splitvisor.papr.block_access import CD_ROM, BlockOperation
from splitvisor.papr.codes import H
from tests.unit.of_drives import ADAPTER_PATH, SECTOR, Drive, disk_path, lun_of, machine_with
from tests.unit.of_machine import BUFFER, RAM_BYTES, Client

DATA = random.Random(1).randbytes(300 * SECTOR)


def call_method(client: Client, name: str, ihandle: int, *arguments: int, returns: int = 2) -> tuple[int, ...]:
    return client.call_all("call-method", name, ihandle, *arguments, returns=returns)


def test_every_logical_unit_has_a_path_and_an_alias_in_the_order_of_paths() -> None:
    client, _ = machine_with(Drive(bytearray(DATA)), Drive(bytearray(DATA), 2048, CD_ROM), Drive(bytearray(DATA), 4096))
    node = client.find(f"{ADAPTER_PATH}/disk")
    assert node > 0
    for target in (1, 2, 3):
        assert client.find(disk_path(target)) == node
        assert (
            client.find(disk_path(target).upper().replace("/VDEVICE/V-SCSI", "/vdevice/v-scsi").replace("/DISK", "/disk")) == node
        )
    assert client.call("getprop", node, "device_type", BUFFER, 16) == 6
    assert client.peek(BUFFER, 6) == b"block\0"
    aliases = {alias: client.read_property("/aliases", alias).rstrip(b"\0").decode() for alias in ("disk", "disk1", "cdrom")}
    assert aliases == {"disk": disk_path(1), "disk1": disk_path(3), "cdrom": disk_path(2)}
    assert client.find("disk1") == node
    assert client.find(f"{ADAPTER_PATH}/disk@nonsense") == -1


def test_a_machine_without_an_adapter_asks_nobody_and_has_no_node() -> None:
    client = Client()
    assert client.find("/vdevice") > 0
    assert client.vm.invoked == []


def test_an_adapter_whose_back_end_knows_no_such_call_has_no_units() -> None:
    client, _ = machine_with()
    client.vm.answer = lambda token, arguments: (H.FUNCTION, ())
    assert client.find("disk") == -1
    assert call_method(client, "vscsi-report-luns", client.call("open", ADAPTER_PATH), returns=3)[:2] == (0, 0)


def test_report_luns_leaves_its_list_in_guest_memory() -> None:
    client, _ = machine_with(Drive(bytearray(DATA)), Drive(bytearray(DATA)))
    adapter = client.call("open", ADAPTER_PATH)
    catch, count, table = call_method(client, "vscsi-report-luns", adapter, returns=3)
    assert (catch, count, table) == (0, 1, LUN_TABLE_AT)
    assert client.call_all("close", adapter, returns=0) == ()
    [pointer] = struct.unpack(">4xI", client.peek(table, 8))
    assert struct.unpack(">3Q", client.peek(pointer, 24)) == (lun_of(1), lun_of(2), 0)
    disk = client.call("open", disk_path(1))
    assert call_method(client, "vscsi-report-luns", disk, returns=3)[0] != 0


def test_open_says_where_it_is_and_what_it_is() -> None:
    client, _ = machine_with(Drive(bytearray(DATA), 512))
    ihandle = client.call("open", f"{disk_path(1)}:0")
    assert ihandle > 0
    length = client.call("instance-to-path", ihandle, BUFFER, 256)
    assert client.peek(BUFFER, length).decode() == disk_path(1)
    assert client.call("instance-to-package", ihandle) == client.find(f"{ADAPTER_PATH}/disk")
    assert call_method(client, "block-size", ihandle) == (0, 512)
    assert call_method(client, "#blocks", ihandle) == (0, 300)
    assert call_method(client, "max-transfer", ihandle) == (0, 64 << 10)
    assert client.call("test-method", client.find(disk_path(1)), "block-size") == 0
    assert client.call("test-method", client.find("/vdevice/vty"), "block-size") == -1


@pytest.mark.parametrize("path", ["disk@8900000000000000", "disk", "disk@1:x"])
def test_what_is_not_there_cannot_be_opened(path: str) -> None:
    client, _ = machine_with(Drive(bytearray(DATA)))
    assert client.call("open", f"{ADAPTER_PATH}/{path}") == 0


def test_an_empty_drive_cannot_be_opened() -> None:
    client, drives = machine_with(Drive(bytearray(), 2048, CD_ROM, has_medium=False))
    assert client.find("cdrom") > 0
    assert client.call("open", "cdrom") == 0
    drives.drives[lun_of(1)] = Drive(bytearray(DATA), 2048, CD_ROM)
    assert client.call("open", "cdrom") > 0


@pytest.mark.parametrize("block_bytes", [512, 2048, 4096])
def test_reads_at_any_alignment_are_the_mediums_bytes(block_bytes: int) -> None:
    size = 50 * 4096
    data = DATA[: size % len(DATA)].ljust(size, b"x")
    client, drives = machine_with(Drive(bytearray(data), block_bytes))
    ihandle = client.call("open", "disk")
    dice = random.Random(2)
    for _ in range(150):
        start = dice.randrange(size)
        length = min(dice.choice((1, 511, 512, 513, 4096, 70_000)), size - start)
        client.poke(BUFFER - 1, b"\xee" * (length + 2))
        assert client.call("seek", ihandle, start >> 32, start & 0xFFFF_FFFF) == 0
        assert client.call("read", ihandle, BUFFER, length) == length
        assert client.peek(BUFFER - 1, length + 2) == b"\xee" + data[start : start + length] + b"\xee"
    assert max(each.length for each in drives.requests) == 64 << 10


def test_a_read_ends_at_the_end_and_goes_on_where_the_last_one_ended() -> None:
    client, _ = machine_with(Drive(bytearray(DATA)))
    ihandle = client.call("open", "disk")
    assert client.call("read", ihandle, BUFFER, 1000) == 1000
    assert client.call("read", ihandle, BUFFER, 1000) == 1000
    assert client.peek(BUFFER, 1000) == DATA[1000:2000]
    assert client.call("seek", ihandle, 0, len(DATA) - 10) == 0
    assert client.call("read", ihandle, BUFFER, 512) == 10
    assert client.peek(BUFFER, 10) == DATA[-10:]
    assert client.call("read", ihandle, BUFFER, 512) == 0
    assert client.call("seek", ihandle, 0, len(DATA) + 1) == -1
    assert client.call("seek", ihandle, 1, 0) == -1
    assert call_method(client, "seek", ihandle, 0, 0x200) == (0, 0)
    assert call_method(client, "read", ihandle, 4, BUFFER) == (0, 4)
    assert client.peek(BUFFER, 4) == DATA[0x200:0x204]


def test_a_read_outside_of_ram_fails_and_the_position_stays() -> None:
    client, drives = machine_with(Drive(bytearray(DATA)))
    ihandle = client.call("open", "disk")
    drives.requests.clear()
    assert client.call("read", ihandle, RAM_BYTES - 100, 512) == -1
    assert drives.requests == []
    assert client.call("read", ihandle, 0xFFFF_FF00, 512) == -1
    assert client.call("read", ihandle, BUFFER, 4) == 4
    assert client.peek(BUFFER, 4) == DATA[:4]


def test_a_medium_that_fails_is_minus_1_and_the_position_stays() -> None:
    client, _ = machine_with(Drive(bytearray(DATA), broken=range(1024, 1536)))
    ihandle = client.call("open", "disk")
    assert client.call("read", ihandle, BUFFER, 2048) == -1
    assert client.call("read", ihandle, BUFFER, 1024) == 1024
    assert client.call("read", ihandle, BUFFER, 1) == -1


def test_writes_are_whole_blocks() -> None:
    client, drives = machine_with(Drive(bytearray(DATA)), Drive(bytearray(DATA), 2048, CD_ROM))
    ihandle = client.call("open", "disk")
    client.poke(BUFFER, b"w" * 1024)
    assert client.call("write", ihandle, BUFFER, 1024) == 1024
    assert client.call("write", ihandle, BUFFER, 100) == -1
    assert client.call("seek", ihandle, 0, 100) == 0
    assert client.call("write", ihandle, BUFFER, 512) == -1
    assert bytes(drives.drives[lun_of(1)].data) == b"w" * 1024 + DATA[1024:]
    assert client.call("write", client.call("open", "cdrom"), BUFFER, 2048) == -1
    assert bytes(drives.drives[lun_of(2)].data) == DATA


def test_a_transfer_is_bounded() -> None:
    client, drives = machine_with(Drive(bytearray(32 << 20)))
    ihandle = client.call("open", "disk")
    assert client.call("read", ihandle, 0x100000, 0x7FFF_FFFF) == -1, "not even 16 MiB fit there"
    assert client.call("read", ihandle, 0x100000, 8 << 20) == 8 << 20
    assert MAX_TRANSFER == 16 << 20
    assert all(each.length <= 64 << 10 for each in drives.requests if each.operation is BlockOperation.READ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DiskArguments(0, "")),
        ("0", DiskArguments(0, "")),
        ("nolabel", DiskArguments(0, "")),
        ("2", DiskArguments(2, "")),
        ("2,\\boot\\grub.elf", DiskArguments(2, "\\boot\\grub.elf")),
        (",\\boot\\grub.elf", DiskArguments(0, "\\boot\\grub.elf")),
        ("\\boot\\grub.elf", DiskArguments(0, "\\boot\\grub.elf")),
        ("x", None),
        ("1234", None),
        ("-1", None),
        ("²", None),
    ],
)
def test_arguments_name_a_partition_and_a_file(text: str, expected: DiskArguments | None) -> None:
    assert DiskArguments.parse(text) == expected


def test_open_disks_are_in_a_snapshot() -> None:
    client, drives = machine_with(Drive(bytearray(DATA)))
    ihandle = client.call("open", "disk")
    assert client.call("read", ihandle, BUFFER, 700) == 700
    state = asyncio.run(client.session.save())

    restored = ClientInterfaceSession(client.vm, client.store)
    asyncio.run(restored.restore(state))
    client.session, client.of = restored, restored.interface
    assert client.call("read", ihandle, BUFFER, 100) == 100
    assert client.peek(BUFFER, 100) == DATA[700:800]
    length = client.call("instance-to-path", ihandle, BUFFER, 256)
    assert client.peek(BUFFER, length).decode() == disk_path(1)
    assert interface_state.save(restored.interface)
    assert drives.requests
