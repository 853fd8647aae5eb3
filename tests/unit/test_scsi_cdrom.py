# SPDX-License-Identifier: GPL-2.0-or-later
"""A SCSI CD-ROM drive: what it reads, what it says about discs, and what happens to its medium."""

from __future__ import annotations

import asyncio

import pytest

from splitvisor.scsi import task_set
from splitvisor.scsi.cd_unit import MediumBusyError, TrayLockedError
from splitvisor.scsi.cdrom import CdRom
from splitvisor.scsi.unit import Identity
from tests.memory_disk import MemoryDisk
from tests.scsi_host import Host, run, target_of, until

READY = "00 00 00 00 00 00"
READ = "28 00 00 00 00 01 00 00 01 00"
EVENT = "4a 01 00 00 10 00 00 00 08 00"
OPEN, CLOSE = "1b 00 00 00 02 00", "1b 00 00 00 03 00"
LOCK, UNLOCK = "1e 00 00 00 01 00", "1e 00 00 00 00 00"


def disc(blocks: int = 512) -> MemoryDisk:
    made = MemoryDisk(blocks * 2048, read_only=True)
    made.data[2048:4096] = b"c" * 2048
    return made


async def drive_and_host(medium: MemoryDisk | None) -> tuple[CdRom, Host]:
    drive = CdRom(medium, Identity("cd"))
    host = Host(target_of(drive))
    assert (await host.send(READY)).sense == (6, 0x29, 0)
    return drive, host


async def event(host: Host) -> tuple[int, int]:
    """The media event and the status."""
    data = (await host.send(EVENT, room=8)).data
    assert data[:4] == bytes((0, 6, 4, 0x10))
    return data[4], data[5]


def test_a_disc_is_read() -> None:
    async def main() -> None:
        _, host = await drive_and_host(disc())
        assert (await host.send(READ, room=2048)).data == b"c" * 2048
        assert (await host.send("a8 00 00 00 00 01 00 00 00 01 00 00", room=2048)).data == b"c" * 2048
        assert (await host.send("25 00 00 00 00 00 00 00 00 00", room=8)).data == bytes.fromhex("000001ff 00000800")
        assert (await host.send("28 00 00 00 02 00 00 00 01 00", room=2048)).sense == (5, 0x21, 0)
        assert (await host.send("2a 00 00 00 00 00 00 00 01 00", bytes(2048))).sense == (5, 0x20, 0)
        assert (await host.send("12 00 00 00 24 00", room=36)).data[:2] == bytes((5, 0x80))

    run(main())


def test_tables_of_contents() -> None:
    async def main() -> None:
        _, host = await drive_and_host(disc())

        async def toc(cdb: str) -> bytes:
            return (await host.send(cdb, room=1024)).data

        tracks = bytes.fromhex("0012 01 01 0014 0100 00000000 0014 aa00 00000200")
        assert await toc("43 00 00 00 00 00 00 04 00 00") == tracks
        assert await toc("43 00 00 00 00 00 01 04 00 00") == tracks
        assert await toc("43 00 00 00 00 00 aa 04 00 00") == bytes.fromhex("000a 01 01 0014 aa00 00000200")
        minutes = bytes.fromhex("0012 01 01 0014 0100 00000200 0014 aa00 0000083e")
        assert await toc("43 02 00 00 00 00 00 04 00 00") == minutes, "512 and 150 frames are 8 s and 62 frames"
        session = bytes.fromhex("000a 01 01 0014 0100 00000000")
        assert await toc("43 00 01 00 00 00 00 04 00 00") == session
        assert await toc("43 00 00 00 00 00 00 04 00 40") == session, "as SFF-8020 has it"
        full = await toc("43 02 02 00 00 00 00 04 00 00")
        assert (len(full), [full[at + 3] for at in range(4, 48, 11)]) == (48, [0xA0, 0xA1, 0xA2, 1])
        assert full[4 + 22 + 8 : 4 + 33] == bytes.fromhex("00083e")
        assert (await host.send("43 00 00 00 00 00 02 04 00 00", room=64)).sense == (5, 0x24, 0)
        assert (await host.send("43 00 05 00 00 00 00 04 00 00", room=64)).sense == (5, 0x24, 0)

    run(main())


@pytest.mark.parametrize(("blocks", "profile"), [(512, 0x0008), (500_000, 0x0010), (0, 0)])
def test_the_configuration_follows_the_medium(blocks: int, profile: int) -> None:
    async def main() -> None:
        medium = disc() if blocks else None
        if medium is not None:
            medium.size = blocks * 2048
        _, host = await drive_and_host(medium)
        data = (await host.send("46 00 00 00 00 00 00 04 00 00", room=1024)).data
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        assert int.from_bytes(data[6:8], "big") == profile
        found, at = {}, 8
        while at < len(data):
            found[int.from_bytes(data[at : at + 2], "big")] = bool(data[at + 2] & 1)
            at += 4 + data[at + 3]
        assert found == {
            0: True, 1: True, 2: True, 3: True, 0x10: profile != 0, 0x1E: profile == 8, 0x1F: profile == 0x10,
            0x100: True, 0x105: True,
        }  # fmt: skip
        only = (await host.send("46 02 00 1e 00 00 00 04 00 00", room=1024)).data
        assert only[8:10] == b"\0\x1e"
        assert len(only) == 16
        current = (await host.send("46 01 00 10 00 00 00 04 00 00", room=1024)).data
        assert (current[8:10] == b"\0\x10") == (profile != 0)

    run(main())


def test_information_about_the_disc_and_its_track() -> None:
    async def main() -> None:
        _, host = await drive_and_host(disc())
        assert (await host.send("51 00 00 00 00 00 00 00 22 00", room=34)).data[:7] == bytes((0, 32, 0x0E, 1, 1, 1, 1))
        track = (await host.send("52 01 00 00 00 01 00 00 24 00", room=36)).data
        assert (track[2:7], track[24:28]) == (bytes((1, 1, 0, 4, 1)), (512).to_bytes(4, "big"))
        assert (await host.send("52 01 00 00 00 02 00 00 24 00", room=36)).sense == (5, 0x24, 0)
        assert (await host.send("bd 00 00 00 00 00 00 00 00 08 00 00", room=8)).data == bytes(8)
        page = (await host.send("5a 08 2a 00 00 00 00 01 00 00", room=256)).data
        assert (page[8:10], page[14]) == (bytes((0x2A, 20)), 0x29)

    run(main())


def test_the_guest_opens_and_closes_the_tray() -> None:
    async def main() -> None:
        drive, host = await drive_and_host(disc())
        other = await Host(host.target, "other").ready()
        assert await event(host) == (0, 2)
        assert (await host.send(OPEN)).good
        assert (await host.send(READY)).sense == (2, 0x3A, 2)
        assert (await host.send(READ, room=2048)).sense == (2, 0x3A, 2)
        assert await event(host) == (3, 1)
        assert await event(host) == (0, 1)
        assert (await host.send("bd 00 00 00 00 00 00 00 00 08 00 00", room=8)).data[1] == 0x10
        assert drive.medium is not None
        assert (await host.send(CLOSE)).good
        assert await event(host) == (2, 2)
        assert (await host.send(READ, room=2048)).good
        assert (await other.send(READY)).sense == (6, 0x28, 0)

    run(main())


def test_a_locked_tray_stays_closed_until_it_is_unlocked() -> None:
    async def main() -> None:
        drive, host = await drive_and_host(disc())
        assert (await host.send(LOCK)).good
        assert (await host.send(OPEN)).sense == (5, 0x53, 2)
        with pytest.raises(TrayLockedError, match="eject the medium in the guest"):
            await drive.change(None)
        assert await event(host) == (1, 2)
        assert (await host.send(UNLOCK)).good
        assert (await host.send(OPEN)).good
        assert await drive.change(None) is not None

    run(main())


def test_the_medium_is_changed_from_outside() -> None:
    async def main() -> None:
        first, second = disc(), disc(64)
        drive, host = await drive_and_host(first)
        assert await drive.change(None) is first
        assert (await host.send(READY)).sense == (2, 0x3A, 0)
        assert await event(host) == (3, 0)
        assert await drive.change(second) is None
        assert (await host.send(READY)).sense == (6, 0x28, 0)
        assert await event(host) == (2, 2)
        assert (await host.send("25 00 00 00 00 00 00 00 00 00", room=8)).data[:4] == (63).to_bytes(4, "big")
        assert (await host.send(LOCK)).good
        assert await drive.change(first, force=True) is second
        assert (await host.send(OPEN)).sense == (6, 0x28, 0)
        assert (await host.send(OPEN)).good, "the lock was of the old medium"

    run(main())


def test_a_medium_is_given_back_when_nothing_reads_it_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        first = disc()
        drive, host = await drive_and_host(first)
        first.gate = asyncio.Event()
        reading = asyncio.create_task(host.send(READ, room=2048))
        await until(lambda: first.waiting)
        changing = asyncio.create_task(drive.change(disc(64)))
        await asyncio.sleep(0)
        assert not changing.done()
        first.gate.set()
        assert (await reading).data == b"c" * 2048
        assert await changing is first
        monkeypatch.setattr(task_set, "ABORT_SECONDS", 0.01)
        assert drive.medium is not None
        gated = disc()
        gated.gate = asyncio.Event()
        await drive.change(gated)
        assert (await host.send(READY)).sense == (6, 0x28, 0)
        reading = asyncio.create_task(host.send(READ, room=2048))
        await until(lambda: gated.waiting)
        with pytest.raises(MediumBusyError):
            await drive.change(None)
        gated.gate.set()
        assert (await reading).good

    run(main())


def test_events_of_other_classes_and_without_polling() -> None:
    async def main() -> None:
        _, host = await drive_and_host(None)
        assert (await host.send("4a 01 00 00 02 00 00 00 08 00", room=8)).data == bytes((0, 2, 0x80, 0x10))
        assert (await host.send("4a 00 00 00 10 00 00 00 08 00", room=8)).sense == (5, 0x24, 0)
        assert await event(host) == (0, 0)

    run(main())
