# SPDX-License-Identifier: GPL-2.0-or-later
"""The medium of a drive is exchanged while a guest uses the adapter: what the guest sees, and what is kept of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from splitvisor.backend.vio import BusError, MediumLockedError
from tests.disk_images import raw_image
from tests.scsi_host import run
from tests.vscsi_guest import DATA_AT, Data, Guest

MIB = 1 << 20
READY = "00 0000000000"
READ = "28 00 00000000 00 0001 00"
LOCK, UNLOCK = "1e 00 00 00 01 00", "1e 00 00 00 00 00"
EJECT = "1b 00 00 00 02 00"
EVENTS = "4a 01 00 00 10 00 00 00 08 00"
NO_MEDIUM, TRAY_OPEN, CHANGED = (2, 0x3A, 0), (2, 0x3A, 2), (6, 0x28, 0)
EJECT_REQUESTED, NEW_MEDIUM, REMOVED = 1, 2, 3


def cd(path: Path, contents: bytes, size: int = MIB) -> Path:
    """Make an image that begins with this."""
    with raw_image(path, size).open("r+b") as file:
        file.write(contents)
    return path


@asynccontextmanager
async def drive(medium: str) -> AsyncIterator[Guest]:
    """A guest with a drive that has taken the first unit attention."""
    guest = Guest({"cdrom0": medium})
    await guest.adapter.begin()
    try:
        yield await guest.ready()
    finally:
        await guest.adapter.stop()
        await guest.adapter.finish()


async def first_bytes(guest: Guest, length: int = 4) -> bytes:
    assert (await guest.run(READ, into=Data.direct(DATA_AT, 2048))).status == 0
    return guest.memory(DATA_AT, length)


async def event(guest: Guest) -> tuple[int, int]:
    """Return the event of the medium that is reported now, and the status of the medium."""
    assert (await guest.run(EVENTS, into=Data.direct(DATA_AT, 8))).status == 0
    reported = guest.memory(DATA_AT, 8)
    assert reported[:4] == bytes((0, 6, 4, 0x10))
    return reported[4], reported[5]


async def change(guest: Guest, medium: str, *, force: bool = False) -> None:
    await guest.adapter.change_medium("cdrom0", medium, force=force)


def test_an_empty_drive_gets_a_medium_another_one_and_none(tmp_path: Path) -> None:
    one, two = cd(tmp_path / "one.iso", b"one."), cd(tmp_path / "two.iso", b"two.", 2 * MIB)

    async def test() -> None:
        async with drive("empty") as guest:
            assert (await guest.run(READY)).sense == NO_MEDIUM
            assert (await guest.run("12 00 00 00 24 00", into=Data.direct(DATA_AT, 36))).status == 0
            assert guest.memory(DATA_AT, 2) == bytes((5, 0x80))
            assert await event(guest) == (0, 0)
            for path, contents, blocks in ((one, b"one.", 512), (two, b"two.", 1024)):
                await change(guest, str(path))
                assert await event(guest) == (NEW_MEDIUM, 2)
                assert (await guest.run(READY)).sense == CHANGED
                assert (await guest.run(READY)).status == 0
                assert await first_bytes(guest) == contents
                assert (await guest.run("25 00 00000000 0000 00 00", into=Data.direct(DATA_AT, 8))).status == 0
                assert int.from_bytes(guest.memory(DATA_AT, 4), "big") == blocks - 1
                assert guest.adapter.options["cdrom0"] == f"{path},format=raw"
                assert guest.adapter.describe().disks[0].place == str(path)
            await change(guest, "empty")
            assert await event(guest) == (REMOVED, 0)
            assert (await guest.run(READY)).sense == NO_MEDIUM
            assert guest.adapter.options["cdrom0"] == "empty"
            assert guest.vm.inventory_changes >= 3

    run(test())


def test_a_drive_that_the_guest_has_locked_keeps_its_medium_unless_forced(tmp_path: Path) -> None:
    one, two = cd(tmp_path / "one.iso", b"one."), cd(tmp_path / "two.iso", b"two.")

    async def test() -> None:
        async with drive(str(one)) as guest:
            assert (await guest.run(LOCK)).status == 0
            with pytest.raises(MediumLockedError, match="cdrom0: the guest has locked the tray; eject the medium in the guest"):
                await change(guest, str(two))
            assert await event(guest) == (EJECT_REQUESTED, 2)
            assert await first_bytes(guest) == b"one."
            assert guest.adapter.options["cdrom0"] == str(one)
            # The guest lets go of it by itself; then the operator's medium comes without force.
            assert (await guest.run(UNLOCK)).status == 0
            assert (await guest.run(EJECT)).status == 0
            assert (await guest.run(READY)).sense == TRAY_OPEN
            await change(guest, str(two))
            assert (await guest.run(READY)).sense == CHANGED
            assert await first_bytes(guest) == b"two."
            assert (await guest.run(LOCK)).status == 0
            await change(guest, "empty", force=True)
            assert (await guest.run(READY)).sense == NO_MEDIUM
            assert not guest.adapter.describe().disks[0].drive.locked

    run(test())


@pytest.mark.parametrize(
    ("key", "medium", "message"),
    [
        ("cdrom0", "{}/missing.iso", r"missing\.iso: No such file"),
        ("cdrom0", "{}/two.iso,serial=S", "the serial number is the drive's, which keeps it; leave out serial="),
        ("cdrom0", "{}/two.iso,readonly", "'readonly' is not an option of a CD"),
        ("cdrom0", "empty,bps=1M", "bps is for a medium, and there is none"),
        ("cdrom0", "", "there is no file"),
        ("cdrom1", "empty", "has no drive 'cdrom1'; it has: cdrom0"),
        ("disk0", "empty", "has no drive 'disk0'; it has: cdrom0"),
    ],
)
def test_a_change_that_cannot_be_leaves_the_medium(tmp_path: Path, key: str, medium: str, message: str) -> None:
    one = cd(tmp_path / "one.iso", b"one.")
    cd(tmp_path / "two.iso", b"two.")

    async def test() -> None:
        async with drive(str(one)) as guest:
            with pytest.raises(BusError, match=message):
                await guest.adapter.change_medium(key, medium.format(tmp_path), force=True)
            assert await first_bytes(guest) == b"one."
            assert await event(guest) == (0, 2)

    run(test())


def test_a_serial_number_stays_the_drives_whatever_is_in_it(tmp_path: Path) -> None:
    one, two = cd(tmp_path / "one.iso", b"one."), cd(tmp_path / "two.iso", b"two.")

    async def test() -> None:
        for given in (f"{one},serial=CD7", str(one)):
            async with drive(given) as guest:
                before = guest.adapter.describe().disks[0].serial
                await change(guest, str(two))
                after = guest.adapter.options
                assert guest.adapter.describe().disks[0].serial == before
            again = Guest(after)
            await again.adapter.begin()
            assert again.adapter.describe().disks[0].serial == before
            assert await first_bytes(await again.ready()) == b"two.", "the next process has the medium, too"
            await again.adapter.finish()

    run(test())


def test_a_change_is_completed_when_nobody_waits_for_it(tmp_path: Path) -> None:
    two = cd(tmp_path / "two.iso", b"two.")

    async def test() -> None:
        async with drive("empty") as guest:
            asking = asyncio.create_task(change(guest, str(two)))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait((asking,))
            assert asking.cancelled()
            while guest.adapter.options["cdrom0"] == "empty":
                await asyncio.sleep(0)
            assert (await guest.run(READY)).sense == CHANGED
            assert await first_bytes(guest) == b"two."

    run(test())


def test_a_saved_machine_has_the_medium_of_that_moment(tmp_path: Path) -> None:
    one, two = cd(tmp_path / "one.iso", b"one."), cd(tmp_path / "two.iso", b"two.")

    async def test() -> None:
        async with drive(str(one)) as guest:
            await change(guest, str(two))
            await guest.adapter.drain()
            with pytest.raises(BusError, match="the machine is being saved; try again later"):
                await change(guest, str(one))
            state, options = guest.adapter.save(), dict(guest.adapter.options)
            restored = Guest(options)
            restored.adapter.restore(state)
            await restored.adapter.begin()
            assert await event(restored) == (NEW_MEDIUM, 2)
            assert (await restored.run(READY)).sense == CHANGED
            assert await first_bytes(restored) == b"two."
            await restored.adapter.finish()
            guest.adapter.resumed()
            assert (await guest.run(READY)).sense == CHANGED
            await change(guest, "empty")

    run(test())


def test_the_next_process_goes_on_with_the_drive_as_the_guest_left_it(tmp_path: Path) -> None:
    one = cd(tmp_path / "one.iso", b"one.")

    async def successor(guest: Guest) -> Guest:
        """The adapter of another process, which cpu_service tells what it remembers."""
        before = guest.vm.inventory_changes
        assert (await guest.run("12 00 00 00 24 00", into=Data.direct(DATA_AT, 36))).status == 0
        assert guest.vm.inventory_changes == before, "nothing has changed since cpu_service was told"
        await guest.adapter.finish()
        made = Guest(guest.adapter.options)
        made.adapter.remember(guest.adapter.remembered())
        await made.adapter.begin()
        return made

    async def test() -> None:
        guest = Guest({"cdrom0": str(one)})
        await guest.adapter.begin()
        assert guest.adapter.remembered() == b"", "the guest has not seen the drive"
        await guest.ready()
        assert guest.vm.inventory_changes == 1
        assert (await guest.run(LOCK)).status == 0
        assert guest.vm.inventory_changes == 2
        # Linux takes a unit attention, of whatever kind, for another medium: there must be none.
        second = await successor(guest)
        assert await first_bytes(second) == b"one."
        with pytest.raises(MediumLockedError):
            await change(second, "empty")
        assert (await second.run(UNLOCK)).status == 0
        assert (await second.run(EJECT)).status == 0
        third = await successor(second)
        assert (await third.run(READY)).sense == TRAY_OPEN
        # What the guest has not seen yet it sees from the next process.
        await change(third, str(one))
        before = third.vm.inventory_changes
        fourth = await successor(third)
        assert before == third.vm.inventory_changes
        assert await event(fourth) == (NEW_MEDIUM, 2)
        assert (await fourth.run(READY)).sense == CHANGED
        await fourth.adapter.finish()

    run(test())
