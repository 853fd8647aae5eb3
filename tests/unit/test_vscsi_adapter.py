# SPDX-License-Identifier: GPL-2.0-or-later
"""The v-scsi adapter: greeting, login, datagrams, task management, targets, and what becomes of requests that are no good."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cpu_service.machine.machine import RESET_TIMEOUT_S
from splitvisor.backend.vio import BusError, Piece, crq
from splitvisor.block.buffers import Buffers
from splitvisor.block.outlast import outlast
from splitvisor.declarations.dma import Scatter
from splitvisor.declarations.state import StateError
from splitvisor.scsi.cdrom import CdRom
from splitvisor.scsi.disk import Disk
from splitvisor.scsi.unit import Identity
from tests.disk_images import raw_image
from tests.fake_vm import FakeVm
from tests.memory_disk import MemoryDisk
from tests.scsi_host import run, until
from tests.vscsi_guest import (
    IU_AT,
    LUN_0,
    MAD,
    NO_DATA,
    PAGE,
    READ,
    SRP,
    UNIT,
    Data,
    Guest,
    Response,
    command,
    datagram,
    entry,
    login,
    lun,
    new_tag,
    task,
)
from vio_service.devices.vscsi.device import MAX_UNDER_WAY, REQUESTS, VScsi
from vio_service.devices.vscsi.luns import ABSENT, lun_of, number_of, reported

BUFFER = 0x2_0000
SOON_S = 5.0
"""What ends at once ends within that, on a busy machine too."""
REPORT_LUNS = "a0 00 00 000000 {:08x} 00 00"
WELL_KNOWN = 0xC101 << 48


def disk(size: int = 1 << 20, serial: str = "D") -> Disk:
    return Disk(MemoryDisk(size), Identity(serial))


async def answered(guest: Guest, kind: int, buffer: int = BUFFER, length: int = 148) -> int:
    """Have a datagram answered as Linux sends it; return its status."""
    tag = new_tag()
    told, answer = await guest.ask(datagram(kind, tag, buffer, length), MAD)
    assert told.fields["tag"] == int.from_bytes(tag, "big")
    assert (told.fields["valid"], told.fields["format"], told.fields["status"]) == (0x80, MAD, 0)
    sent = datagram(kind, tag, buffer, length)
    assert answer[: len(sent)] == sent[:4] + answer[4:6] + sent[6:], "only the status changes"
    return int.from_bytes(answer[4:6], "big")


def test_a_greeting_is_answered() -> None:
    async def test() -> None:
        told = await Guest().queue(bytes((0xC0, 1)) + bytes(14))
        assert told.raw == bytes((0xC0, 2)) + bytes(14)

    run(test())


@pytest.mark.parametrize(
    "raw", [bytes((0xC0, 2)) + bytes(14), bytes(16), bytes((0x80, 3)) + bytes(14), bytes((0xFF, 1)) + bytes(14), b"\xff" * 16]
)
def test_entries_of_other_kinds_are_ignored(raw: bytes) -> None:
    async def test() -> None:
        guest = Guest()
        guest.adapter.received(raw)
        await asyncio.sleep(0)
        assert guest.told() == []

    run(test())


@pytest.mark.parametrize("formats", [6, 3, 0], ids=["Linux", "FreeBSD", "none"])
def test_a_login_allows_requests_and_both_formats_of_descriptors(formats: int) -> None:
    async def test() -> None:
        tag = new_tag()
        told, answer = await Guest().ask(login(tag, formats))
        assert told.fields["length"] == 52
        assert answer[0] == 0xC0
        assert int.from_bytes(answer[4:8], "big") == REQUESTS
        assert answer[8:16] == tag
        assert struct.unpack(">IIH", answer[16:26]) == (256, 256, 6)
        assert answer[26:52] == bytes(26)

    run(test())


def test_a_request_gives_its_credit_back_whatever_its_end() -> None:
    async def test() -> None:
        guest = await Guest(units={0: disk()}).ready()
        for cdb in ("00 0000000000", "ff 0000000000", "28 00 ffffffff 00 0001 00"):
            assert (await guest.run(cdb)).credit == 1
        assert (await guest.run("00 0000000000", unit=lun(9))).credit == 1
        _, answer = await guest.ask(task(1, LUN_0, new_tag()))
        assert Response(answer).credit == 1

    run(test())


def test_commands_need_no_login() -> None:
    async def test() -> None:
        assert (await (await Guest(units={0: disk()}).ready()).run("00 0000000000")).status == 0

    run(test())


def test_a_logout_has_no_answer_and_forgets_what_an_initiator_has() -> None:
    async def test() -> None:
        guest = await Guest(units={0: disk()}).ready()
        guest.put(IU_AT, bytes((3,)) + bytes(15))
        guest.adapter.received(entry(SRP, IU_AT, 16))
        await until(lambda: not guest.adapter.target.units[0].attentions)
        assert len(guest.told()) == 1
        await guest.ready()

    run(test())


# Datagrams.


def test_the_adapter_describes_itself() -> None:
    async def test() -> None:
        guest = Guest()
        guest.put(BUFFER, b"\xee" * 256)
        assert await answered(guest, 3) == 0
        data = guest.memory(BUFFER, 256)
        version, name, number, mad_version, system = struct.unpack_from(">8s96sIII", data)
        assert (version.rstrip(b"\0"), name.rstrip(b"\0"), number, mad_version, system) == (b"16.a", b"test", 0, 1, 2)
        assert struct.unpack_from(">8I", data, 116) == (2 << 20, 0, 0, 0, 0, 0, 0, 0)
        assert data[148:] == b"\xee" * 108

    run(test())


@pytest.mark.parametrize("length", [0, 1, 100, 147, 148, 149, 0xFFFF])
def test_a_description_is_as_long_as_the_guest_has_room_and_no_longer(length: int) -> None:
    async def test() -> None:
        guest = Guest()
        guest.put(BUFFER, b"\xee" * 1024)
        assert await answered(guest, 3, length=length) == 0
        stored = min(length, 148)
        assert guest.memory(BUFFER, 1024)[stored:] == b"\xee" * (1024 - stored)
        assert guest.memory(BUFFER, min(stored, 4)) == b"16.a"[: min(stored, 4)]

    run(test())


@pytest.mark.parametrize("buffer", [PAGE - 100, 0x1000_0000 - 8, 0x1000_0000, 1 << 63, (1 << 64) - 1])
def test_a_description_has_to_have_its_place_in_mapped_memory(buffer: int) -> None:
    async def test() -> None:
        guest = Guest()
        guest.tces[1] = 0
        assert await answered(guest, 3, buffer) == 0xF7
        assert guest.memory(PAGE - 100, 200) == bytes(200), "not a part of it"

    run(test())


def test_memory_that_may_only_be_read_has_no_description() -> None:
    async def test() -> None:
        guest = Guest()
        guest.map(BUFFER // PAGE, 1, READ)
        assert await answered(guest, 3) == 0xF7
        assert guest.memory(BUFFER, 148) == bytes(148)

    run(test())


def test_no_capability_is_supported() -> None:
    async def test() -> None:
        guest = Guest()
        asked = struct.pack(">I32s32s", 0x0000000F, b"client", b"place") + struct.pack(">IHHI", 1, 24, 1, 1) * 2
        guest.put(BUFFER, asked + b"\xee" * 8)
        assert await answered(guest, 5, length=len(asked)) == 0
        data = guest.memory(BUFFER, len(asked) + 8)
        assert int.from_bytes(data[:4], "big") & 0xC == 0
        assert data[4:68] == asked[4:68]
        assert data[68:] == bytes(len(asked) - 68) + b"\xee" * 8
        assert await answered(guest, 5, length=len(asked) - 1) == 0xF1
        assert await answered(guest, 5, buffer=1 << 40, length=len(asked)) == 0xF7

    run(test())


@pytest.mark.parametrize("kind", [0, 1, 2, 4, 6, 7, 8, 9, 0xFFFFFFFF])
def test_other_datagrams_are_not_supported(kind: int) -> None:
    async def test() -> None:
        assert await answered(Guest(), kind) == 0xF1

    run(test())


def test_a_datagram_that_is_cut_off_fails() -> None:
    async def test() -> None:
        guest = Guest()
        told, answer = await guest.ask(datagram(3, new_tag(), BUFFER, 148), MAD, length=23)
        assert told.fields["status"] == 0
        assert answer[4:6] == b"\0\xf7"

    run(test())


# Information units.


@pytest.mark.parametrize("kind", [SRP, MAD])
@pytest.mark.parametrize("ioba", [0x1000_0000 - 8, 0x1000_0000, (1 << 64) - 256, (1 << 64) - 1, 0x80_0000])
def test_a_request_that_cannot_be_read_is_told_of(kind: int, ioba: int) -> None:
    async def test() -> None:
        told = await Guest().queue(entry(kind, ioba))
        assert told.fields == {"valid": 0x80, "format": kind, "reserved": 0, "status": 0x10, "timeout": 0, "length": 0, "tag": 0}

    run(test())


@pytest.mark.parametrize("room", [48, 52, 60, 128, 255])
def test_a_request_at_the_end_of_what_is_mapped_is_served(room: int) -> None:
    async def test() -> None:
        guest = await Guest(units={0: disk()}).ready()
        guest.tces[IU_AT // PAGE] = 0
        guest.map(IU_AT // PAGE, 1)
        guest.tces[IU_AT // PAGE + 1] = 0
        assert (await guest.run("00 0000000000", ioba=IU_AT + PAGE - room)).status == 0

    run(test())


@pytest.mark.parametrize("length", range(0, 48))
def test_a_command_that_is_cut_off_is_refused(length: int) -> None:
    async def test() -> None:
        guest = await Guest(units={0: disk()}).ready()
        tag = new_tag()
        told, answer = await guest.ask(command(bytes(16), LUN_0, tag), length=length)
        if length:
            assert (told.fields["status"], answer[0], answer[19]) == (0, 0xC1, 2)
            assert told.fields["tag"] == int.from_bytes(tag[: max(0, length - 8)].ljust(8, b"\0"), "big")
        else:
            assert told.fields["status"] == 0x10

    run(test())


def test_an_iu_that_there_is_not_is_refused() -> None:
    async def test() -> None:
        for opcode in (0x04, 0x41, 0x42, 0x80, 0xC0, 0xC1, 0xFF):
            tag = new_tag()
            _, answer = await Guest().ask(bytes((opcode,)) + bytes(7) + tag + bytes(240))
            assert (answer[0], answer[8:16], answer[19]) == (0xC1, tag, 2)

    run(test())


def test_a_response_that_cannot_be_written_is_told_of() -> None:
    async def test() -> None:
        guest = Guest(units={0: disk()})
        guest.map(IU_AT // PAGE, 1, READ)
        tag = new_tag()
        told, _ = await guest.ask(command(bytes(16), LUN_0, tag))
        assert (told.fields["status"], told.fields["tag"]) == (0x10, int.from_bytes(tag, "big"))

    run(test())


def test_a_flood_of_requests_is_bounded_and_each_is_answered() -> None:
    async def test() -> None:
        device = MemoryDisk(1 << 20)
        device.gate = asyncio.Event()
        guest = await Guest(units={0: Disk(device, Identity("D"))}).ready()
        await asyncio.sleep(0)  # What was answered is over then.
        guest.vm.entries.clear()
        count = MAX_UNDER_WAY + 40
        for number in range(count):
            read = command(
                bytes.fromhex("28 00 00000000 00 0001 00 000000000000"), LUN_0, new_tag(), into=Data.direct(BUFFER, 512)
            )
            guest.put(0x4_0000 + 256 * number, read)
            guest.adapter.received(entry(SRP, 0x4_0000 + 256 * number))
        await until(guest.told)
        refused = guest.told()
        assert len(refused) == 40
        assert {each.fields["status"] for each in refused} == {0x10}
        device.gate.set()
        await until(lambda: len(guest.told()) == count)

    run(test())


# Task management.


def waiting_read(guest: Guest, tag: bytes, unit: int = LUN_0, ioba: int = IU_AT + 0x1000) -> None:
    """Begin a read."""
    cdb = bytes.fromhex("28 00 00000000 00 0001 00 000000000000")
    guest.put(ioba, command(cdb, unit, tag, into=Data.direct(BUFFER, 512)))
    guest.adapter.received(entry(SRP, ioba))


def gated(*, size: int = 1 << 20) -> MemoryDisk:
    device = MemoryDisk(size)
    device.gate = asyncio.Event()
    return device


async def managed(guest: Guest, function: int, unit: int = LUN_0, task_tag: bytes = bytes(8)) -> int:
    tag = new_tag()
    told, answer = await guest.ask(task(function, unit, tag, task_tag))
    assert told.fields["tag"] == int.from_bytes(tag, "big")
    assert told.fields["length"] == 40
    return Response(answer).response_code


@pytest.mark.parametrize(
    ("function", "attention"), [(1, False), (2, False), (4, False), (8, True)], ids=["abort", "abort set", "clear set", "reset"]
)
def test_an_aborted_command_is_never_answered(function: int, attention: bool) -> None:
    async def test() -> None:
        device = gated()
        guest = await Guest(units={0: Disk(device, Identity("D"))}).ready()
        tag = new_tag()
        waiting_read(guest, tag)
        await until(lambda: device.waiting == 1)
        assert await managed(guest, function, task_tag=tag) == 0
        assert device.waiting == 0
        assert device.gate is not None
        device.gate.set()
        answer = await guest.run("00 0000000000")
        assert [each.fields["tag"] for each in guest.told()].count(int.from_bytes(tag, "big")) == 0
        assert answer.sense == (6, 0x29, 3) if attention else answer.status == 0

    run(test())


@pytest.mark.parametrize("function", [1, 2, 4, 8])
@pytest.mark.parametrize("step", ["gather", "commit"])
def test_a_command_whose_data_is_on_its_way_is_aborted(monkeypatch: pytest.MonkeyPatch, function: int, step: str) -> None:
    async def test() -> None:
        device = MemoryDisk(1 << 20)
        guest = await Guest(units={0: Disk(device, Identity("D"))}).ready()
        window, gate, waiting = guest.adapter.window, asyncio.Event(), asyncio.Event()
        assert window is not None
        gather, scatter = window.gather, window.scatter

        async def wait() -> None:
            waiting.set()
            await gate.wait()

        async def slow_gather(pieces: Sequence[Piece]) -> Buffers:
            if step == "gather" and pieces[0].ioba == BUFFER:
                await wait()
            return await gather(pieces)

        async def slow_scatter(pieces: Sequence[Piece]) -> Scatter:
            made = await scatter(pieces)

            async def commit(length: int) -> None:
                await wait()

            return Scatter(made.buffers, commit) if pieces[0].ioba == BUFFER else made

        monkeypatch.setattr(window, "gather", slow_gather)
        monkeypatch.setattr(window, "scatter", slow_scatter)
        tag, buffer = new_tag(), Data.direct(BUFFER, 512)
        guest.put(BUFFER, b"\x77" * 512)
        cdb = bytes.fromhex("2a" if step == "gather" else "28") + bytes.fromhex("00 00000000 00 0001 00 000000000000")
        out, into = (buffer, NO_DATA) if step == "gather" else (NO_DATA, buffer)
        guest.put(IU_AT + 0x1000, command(cdb, LUN_0, tag, out, into))
        guest.adapter.received(entry(SRP, IU_AT + 0x1000))
        await waiting.wait()
        assert await managed(guest, function, task_tag=tag) == 0
        gate.set()
        await guest.run("12 00 00 0024 00", into=Data.direct(BUFFER + PAGE, 36))
        assert int.from_bytes(tag, "big") not in {each.fields["tag"] for each in guest.told()}
        assert bytes(device.data[:512]) == bytes(512)

    run(test())


def test_only_the_command_of_the_tag_is_aborted() -> None:
    async def test() -> None:
        device = gated()
        guest = await Guest(units={0: Disk(device, Identity("D"))}).ready()
        first, second = new_tag(), new_tag()
        waiting_read(guest, first)
        waiting_read(guest, second, ioba=IU_AT + 0x2000)
        await until(lambda: device.waiting == 2)
        assert await managed(guest, 1, task_tag=first) == 0
        assert device.gate is not None
        device.gate.set()
        await until(lambda: int.from_bytes(second, "big") in {each.fields["tag"] for each in guest.told()})
        assert int.from_bytes(first, "big") not in {each.fields["tag"] for each in guest.told()}

    run(test())


def test_other_ends_of_task_management() -> None:
    async def test() -> None:
        guest = await Guest(units={0: disk()}).ready()
        assert await managed(guest, 1, task_tag=b"no such!") == 0, "it has ended"
        assert await managed(guest, 8, lun(5)) == 2
        for function in (0, 3, 0x10, 0x20, 0x40, 0xFF):
            assert await managed(guest, function) == 4
        told, answer = await guest.ask(task(8, LUN_0, new_tag()), length=39)
        assert (told.fields["status"], answer[0], answer[19]) == (0, 0xC1, 2)

    run(test())


# Targets and units.


@pytest.mark.parametrize(
    ("first", "number"),
    [
        (0x8000, 0),  # SAM-5 table 23: logical unit addressing; target 0, bus 0, unit 0.
        (0x8001, 1),
        (0x8100, 0x100),
        (0x8520, 0x520),
        (0xBFFF, 0x3FFF),
        (0x0000, 0),  # Table 20: peripheral device addressing, bus 0.
        (0x0007, 7),
        (0x001F, 31),
        (0x0020, ABSENT),  # 32 units are what a target can have.
        (0x0100, ABSENT),  # Peripheral device addressing with a bus.
        (0x4000, ABSENT),  # Table 22: flat space.
        (0xC101, 0xC101),  # Table 33: REPORT LUNS.
        (0xC001, ABSENT),
        (0xC102, ABSENT),  # The well-known unit ACCESS CONTROLS.
        (0xFFFF, ABSENT),
    ],
)
def test_the_forms_of_a_lun(first: int, number: int) -> None:
    assert number_of(first << 48) == number
    if first != 0xC101:
        assert number_of(first << 48 | 1) == ABSENT, "no unit has a second level"


def test_luns_go_both_ways() -> None:
    assert {number_of(lun_of(number)) for number in range(0x4000)} == set(range(0x4000))
    assert all(
        number_of(lun(target, bus, unit)) == target << 8 | bus << 5 | unit for target, bus, unit in [(1, 0, 0), (63, 7, 31)]
    )


def test_a_target_reports_its_own_units() -> None:
    numbers = [0, 3, 0x100, 0x101, 0x520, 0x3F00]
    assert reported(0, numbers) == [0, 3 << 48]
    assert reported(0x100, numbers) == [0, 1 << 48]
    assert reported(0x520, numbers) == [0]
    assert reported(0x200, numbers) == []
    assert reported(0xC101, numbers) == [lun_of(each) for each in numbers]


async def luns(guest: Guest, unit: int, allocation: int = 512) -> list[int]:
    response = await guest.run(REPORT_LUNS.format(allocation), into=Data.direct(BUFFER, allocation), unit=unit)
    assert response.status == 0
    data = guest.memory(BUFFER, allocation)
    length = int.from_bytes(data[:4], "big")
    assert response.residual == allocation - 8 - length
    return [int.from_bytes(data[at : at + 8], "big") for at in range(8, 8 + length, 8)]


def test_slof_and_linux_find_each_disk_once() -> None:
    async def test() -> None:
        guest = Guest(units={each << 8: disk(serial=f"D{each}") for each in (0, 1, 7, 63)})
        found, listing = [], []
        for target in range(64):
            for bus in range(8):
                listed = await luns(guest, lun(target, bus))
                if listed:
                    assert listed == [0], "SLOF takes entries whose first byte is of the forms 0 and 0x40"
                    listing.append((target, bus))
                await guest.run("12 00 00 0024 00", into=Data.direct(BUFFER, 36), unit=lun(target, bus))
                if guest.memory(BUFFER, 1)[0] != 0x7F:
                    found.append((target, bus))
        assert found == listing == [(0, 0), (1, 0), (7, 0), (63, 0)], "GRUB on SLOF tries to open all that are reported"
        assert await luns(guest, WELL_KNOWN) == [lun(0), lun(1), lun(7), lun(63)]

    run(test())


def test_a_target_that_there_is_not_says_so_at_once() -> None:
    async def test() -> None:
        guest = Guest(units={0: disk()})
        response = await guest.run("12 00 00 0024 00", into=Data.direct(BUFFER, 36), unit=lun(3))
        assert (response.status, guest.memory(BUFFER, 1)) == (0, b"\x7f")
        assert (await guest.run("00 0000000000", unit=lun(3))).sense == (5, 0x25, 0)

    run(test())


def test_disks_and_drives_have_targets_in_their_order(tmp_path: Path) -> None:
    async def test() -> None:
        for name in ("a", "b", "c"):
            with (tmp_path / name).open("wb") as file:
                file.truncate(1 << 20)
        options = {"cdrom0": f"{tmp_path}/c", "disk10": f"{tmp_path}/b,serial=TEN", "disk2": f"{tmp_path}/a"}
        guest = Guest(options)
        await guest.adapter.begin()
        try:
            units = guest.adapter.target.units
            assert sorted(units) == [0, 0x100, 0x200]
            assert isinstance(units[0x200], CdRom)
            assert units[0x100].identity.serial == "TEN"
            serial = units[0].identity.serial
        finally:
            await guest.adapter.finish()
        again = Guest(options)
        await again.adapter.begin()
        assert again.adapter.target.units[0].identity.serial == serial, "by which guests know a disk again"
        await again.adapter.finish()

    run(test())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"disc0": "x"}, "no option 'disc0'"),
        ({"disk64": "x"}, "no option 'disk64'"),
        ({"disk0": "x,readnoly"}, "disk0: 'readnoly' is not an option of a disk"),
        ({f"{kind}{n}": "x" for kind in ("disk", "cdrom") for n in range(33)}, "66 disks and CDs are too many"),
    ],
)
def test_options_that_are_no_disks_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(BusError, match=message):
        VScsi(FakeVm(), UNIT, options)


def test_an_image_that_is_missing_is_told_of_and_none_stays_open(tmp_path: Path) -> None:
    async def test() -> None:
        guest = Guest({"disk0": f"{tmp_path}/missing.img"})
        with pytest.raises(BusError, match=r"missing\.img: No such file"):
            await guest.adapter.begin()
        await guest.adapter.finish()

    run(test())


def test_an_image_that_is_given_twice_is_told_of_by_both_names(tmp_path: Path) -> None:
    raw_image(tmp_path / "a", 1 << 20)
    (tmp_path / "link").symlink_to("a")

    async def test() -> None:
        guest = Guest({"disk0": f"{tmp_path}/a", "disk1": f"{tmp_path}/link,serial=D2"})
        line = f"{tmp_path}/link: disk0 and disk1 both have it; give each its own image, or readonly to both"
        with pytest.raises(BusError, match=f"^{line}$"):
            await guest.adapter.begin()
        await guest.adapter.finish()
        guest = Guest({"disk0": f"{tmp_path}/a,readonly", "disk1": f"{tmp_path}/link,readonly"})
        await guest.adapter.begin()
        await guest.adapter.finish()

    run(test())


def test_a_disk_that_cannot_be_handed_over_leaves_the_others_here(tmp_path: Path) -> None:
    async def test() -> None:
        for name in ("a", "b"):
            raw_image(tmp_path / name, 1 << 20)
        guest = Guest({"disk0": f"{tmp_path}/a", "disk1": f"{tmp_path}/b,snapshot", "cdrom0": "empty"})
        await guest.adapter.begin()
        await guest.ready()
        with pytest.raises(StateError, match="its disks cannot be flushed"):
            await guest.adapter.drain()
        guest.adapter.resumed()
        guest.put(BUFFER, b"w" * 512)
        assert (await guest.run("2a 00 00000000 00 0001 00", out=Data.direct(BUFFER, 512))).status == 0
        assert (tmp_path / "a").read_bytes()[:512] == b"w" * 512
        with pytest.raises(BusError, match="No such file"):  # Not: it is being saved.
            await guest.adapter.change_medium("cdrom0", f"{tmp_path}/missing.iso", force=False)
        await guest.adapter.finish()

    run(test())


# The queue's life.


@pytest.mark.parametrize(
    "end", [lambda guest: guest.adapter.close_queue(SOON_S), lambda guest: guest.adapter.stop()], ids=["free", "reset"]
)
def test_nothing_is_moved_once_the_queue_has_ended(end: Callable[[Guest], object]) -> None:
    async def test() -> None:
        device = gated()
        guest = await Guest(units={0: Disk(device, Identity("D"))}).ready()
        device.data[:512] = b"\x77" * 512
        waiting_read(guest, new_tag())
        await until(lambda: device.waiting == 1)
        entries = len(guest.told())
        ending = end(guest)
        assert asyncio.iscoroutine(ending)
        await ending
        assert device.waiting == 0
        guest.adapter.open_queue()
        assert device.gate is not None
        device.gate.set()
        await guest.run("12 00 00 0024 00", into=Data.direct(BUFFER + PAGE, 36))
        assert len(guest.told()) == entries + 1
        assert guest.memory(BUFFER, 512) == bytes(512)

    run(test())


class StuckDisk(MemoryDisk):
    """One whose transfers nobody can call back, as none that the kernel of the host has begun."""

    async def read(self, offset: int, into: Buffers) -> None:
        reading = asyncio.ensure_future(super().read(offset, into))
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            await outlast(reading)
            raise


def test_a_queue_has_not_ended_while_a_transfer_is_under_way() -> None:
    async def test() -> None:
        device = StuckDisk(1 << 20)
        guest = await Guest(units={0: Disk(device, Identity("D"))}).ready()
        device.gate = asyncio.Event()
        waiting_read(guest, new_tag())
        await until(lambda: device.waiting == 1)
        entries = len(guest.told())
        assert not await guest.adapter.close_queue(0.01)
        assert not await guest.adapter.close_queue(0.01)
        device.gate.set()
        assert await guest.adapter.close_queue(SOON_S)
        assert device.waiting == 0
        assert len(guest.told()) == entries

    run(test())


def test_a_transfer_that_never_ends_does_not_hold_up_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crq, "STOP_S", 0.05)

    async def test() -> None:
        device = StuckDisk(1 << 20)
        guest = await Guest(units={0: Disk(device, Identity("D")), 0x100: disk()}).ready()
        await guest.ready(lun(1))
        device.gate = asyncio.Event()
        waiting_read(guest, new_tag())
        await until(lambda: device.waiting == 1)
        for _ in range(2):
            async with asyncio.timeout(SOON_S):
                await guest.adapter.stop()
            guest.adapter.reset()
        guest.adapter.open_queue()
        entries = len(guest.told())
        for unit in (lun(0), lun(1)):
            assert (await guest.run("00 0000000000", unit=unit)).sense == (6, 0x29, 2), "every unit was reset"
            assert (await guest.run("00 0000000000", unit=unit)).status == 0
        device.gate.set()
        await until(lambda: device.waiting == 0)
        assert (await guest.run("28 00 00000000 00 0001 00", into=Data.direct(BUFFER, 512))).status == 0
        assert len(guest.told()) == entries + 5, "what was under way is not answered"

    run(test())


def test_the_end_of_queues_is_well_within_a_reset() -> None:
    assert 2 * crq.STOP_S <= RESET_TIMEOUT_S


def test_a_saved_adapter_goes_on() -> None:
    async def test() -> None:
        device = gated()
        guest = await Guest(units={0: disk(), 0x100: Disk(device, Identity("E"))}).ready()
        await guest.ask(login(new_tag()))
        await guest.ready(lun(1))
        waiting_read(guest, new_tag(), lun(1))
        draining = asyncio.create_task(guest.adapter.drain())
        await asyncio.sleep(0)
        assert not draining.done(), "a request is under way"
        assert device.gate is not None
        device.gate.set()
        await draining
        state = guest.adapter.save()
        other = Guest()
        other.adapter.restore(state)
        other.adapter.target.add(0, disk())
        other.adapter.target.add(0x100, Disk(MemoryDisk(1 << 20), Identity("E")))
        await other.adapter.begin()
        assert (await other.run("00 0000000000")).status == 0, "its attention has been taken"

    run(test())
