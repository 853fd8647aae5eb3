# SPDX-License-Identifier: GPL-2.0-or-later
"""Reservations: who is kept out of what, and who learns of it."""

from __future__ import annotations

import asyncio

import pytest

from splitvisor.scsi.codes import Status
from splitvisor.scsi.disk import Disk
from splitvisor.scsi.reservations import MAX_REGISTRATIONS
from splitvisor.scsi.unit import Identity
from tests.memory_disk import MemoryDisk
from tests.scsi_host import Answer, Host, run, target_of, until

READ = "28 00 00 00 00 00 00 00 01 00"
WRITE = "2a 00 00 00 00 00 00 00 01 00"
READY = "00 00 00 00 00 00"
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE = range(7)
CONFLICT = Status.RESERVATION_CONFLICT


async def hosts(count: int, device: MemoryDisk | None = None) -> list[Host]:
    target = target_of(Disk(device or MemoryDisk(1 << 20), Identity("d")))
    return [await Host(target, f"host {each}").ready() for each in range(count)]


async def out(host: Host, action: int, key: int, new: int = 0, kind: int = 0, flags: int = 0) -> Answer:
    listed = key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes((0, 0, 0, 0, flags, 0, 0, 0))
    return await host.send(bytes((0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0)), listed)


async def keys(host: Host) -> tuple[int, list[int]]:
    data = (await host.send("5e 00 00 00 00 00 00 ff ff 00", room=65535)).data
    return int.from_bytes(data[:4], "big"), [int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)]


async def reserved(host: Host) -> tuple[int, int] | None:
    data = (await host.send("5e 01 00 00 00 00 00 ff ff 00", room=65535)).data
    return (int.from_bytes(data[8:16], "big"), data[21]) if len(data) > 8 else None


@pytest.mark.parametrize(
    ("kind", "registered", "stranger"),
    [
        (1, (True, False), (True, False)),
        (3, (False, False), (False, False)),
        (5, (True, True), (True, False)),
        (6, (True, True), (False, False)),
        (7, (True, True), (True, False)),
        (8, (True, True), (False, False)),
    ],
)
def test_a_persistent_reservation_keeps_others_out(kind: int, registered: tuple[bool, bool], stranger: tuple[bool, bool]) -> None:
    async def main() -> None:
        holder, friend, foe = await hosts(3)
        assert (await out(holder, REGISTER, 0, 0xA)).good
        assert (await out(friend, REGISTER, 0, 0xB)).good
        assert (await out(holder, RESERVE, 0xA, kind=kind)).good
        assert await reserved(foe) == (0 if kind >= 7 else 0xA, kind)
        for host, (reads, writes) in ((holder, (True, True)), (friend, registered), (foe, stranger)):
            for cdb, data, allowed in ((READ, b"", reads), (WRITE, bytes(512), writes)):
                answer = await host.send(cdb, data, room=0 if data else 512)
                assert answer.end.status is (Status.GOOD if allowed else CONFLICT), (host.initiator.name, cdb)
            for cdb in (READY, "12 00 00 00 24 00", "25 00 00 00 00 00 00 00 00 00", "a0 00 00 00 00 00 00 00 10 00 00 00"):
                assert (await host.send(cdb, room=64)).good
        assert (await out(foe, RESERVE, 0, kind=kind)).end.status is CONFLICT
        assert (await out(holder, RELEASE, 0xA, kind=kind ^ 2)).sense == (5, 0x26, 4)
        assert (await out(holder, RELEASE, 0xA, kind=kind)).good
        if kind >= 5:
            assert (await friend.send(READY)).sense == (6, 0x2A, 4)
        assert (await foe.send(WRITE, bytes(512))).good

    run(main())


def test_keys_are_registered_changed_and_removed() -> None:
    async def main() -> None:
        one, two = await hosts(2)
        assert (await out(one, REGISTER, 5, 0xA)).end.status is CONFLICT
        assert (await out(one, REGISTER, 0, 0xA)).good
        assert (await out(one, REGISTER, 0xB, 0xC)).end.status is CONFLICT
        assert (await out(one, REGISTER, 0xA, 0xC)).good
        assert (await out(two, IGNORE, 99, 0xD)).good
        assert await keys(two) == (3, [0xC, 0xD])
        assert (await out(one, RESERVE, 0xC, kind=1)).good
        assert (await out(one, REGISTER, 0xC, 0)).good
        assert await reserved(two) is None
        assert await keys(two) == (4, [0xD])
        assert (await out(two, CLEAR, 0xD)).good
        assert await keys(two) == (5, [])

    run(main())


def test_what_is_not_supported_is_refused() -> None:
    async def main() -> None:
        (host,) = await hosts(1)
        assert (await out(host, REGISTER, 0, 0xA, flags=1)).sense == (5, 0x26, 0)
        assert (await out(host, 7, 0, 0xA)).sense == (5, 0x24, 0)
        assert (await host.send("5f 00 00 00 00 00 00 00 17 00", bytes(23))).sense == (5, 0x1A, 0)
        assert (await host.send("5f 00 00 00 00 ff ff ff ff 00", bytes(23))).sense == (5, 0x1A, 0)
        assert (await out(host, REGISTER, 0, 0xA)).good
        for kind in (0, 2, 4, 9, 0x11):
            assert (await out(host, RESERVE, 0xA, kind=kind)).sense == (5, 0x24, 0)
        assert (await host.send("5e 02 00 00 00 00 00 00 08 00", room=8)).data == bytes.fromhex("0008 00 80 ea01 0000")
        assert (await host.send("16 00 00 00 00 00")).end.status is CONFLICT

    run(main())


def test_preempt_takes_a_reservation_over_and_its_holder_learns_of_it() -> None:
    async def main() -> None:
        one, two, three = await hosts(3)
        for key, host in enumerate((one, two, three), 1):
            await out(host, REGISTER, 0, key)
        await out(one, RESERVE, 1, kind=3)
        assert (await out(two, PREEMPT, 2, 9, kind=1)).end.status is CONFLICT
        assert (await out(two, PREEMPT, 2, 0, kind=1)).sense == (5, 0x26, 0)
        assert (await out(two, PREEMPT, 2, 1, kind=1)).good
        assert await reserved(two) == (2, 1)
        assert (await keys(two))[1] == [2, 3]
        assert (await one.send(READY)).sense == (6, 0x2A, 5)
        assert (await three.send(READY)).sense == (6, 0x2A, 4)
        assert (await one.send(READ, room=512)).good
        assert (await one.send(WRITE, bytes(512))).end.status is CONFLICT
        assert (await out(two, PREEMPT, 2, 3, kind=8)).good
        assert await reserved(two) == (2, 1), "no reservation was preempted"

    run(main())


def test_all_registrants_are_preempted_with_key_0() -> None:
    async def main() -> None:
        one, two = await hosts(2)
        await out(one, REGISTER, 0, 1)
        await out(two, REGISTER, 0, 2)
        await out(one, RESERVE, 1, kind=8)
        assert (await out(two, PREEMPT, 2, 0, kind=5)).good
        assert (await keys(two))[1] == [2]
        assert await reserved(two) == (2, 5)

    run(main())


def test_preempt_and_abort_ends_the_commands_of_its_victims() -> None:
    async def main() -> None:
        device = MemoryDisk(1 << 20)
        one, two = await hosts(2, device)
        await out(one, REGISTER, 0, 1)
        await out(two, REGISTER, 0, 2)
        await out(one, RESERVE, 1, kind=1)
        device.gate = asyncio.Event()
        running = asyncio.create_task(one.send(WRITE, b"w" * 512))
        await until(lambda: device.waiting)
        assert (await out(two, PREEMPT_AND_ABORT, 2, 1, kind=1)).good
        with pytest.raises(AssertionError, match="aborted"):
            await running
        device.gate.set()
        assert not any(device.data)

    run(main())


def test_full_status_has_the_initiators() -> None:
    async def main() -> None:
        one, two = await hosts(2)
        await out(one, REGISTER, 0, 1)
        await out(two, REGISTER, 0, 2)
        await out(two, RESERVE, 2, kind=3)
        data = (await two.send("5e 03 00 00 00 00 00 ff ff 00", room=65535)).data
        assert len(data) == 8 + 2 * 48
        assert [(data[at + 7], data[at + 12], data[at + 13], data[at + 23]) for at in (8, 56)] == [(1, 0, 0, 24), (2, 1, 3, 24)]
        assert data[32:56] == one.initiator.identifier()

    run(main())


def test_registrations_are_bounded() -> None:
    async def main() -> None:
        *all_of_them, last = await hosts(MAX_REGISTRATIONS + 1)
        for host in all_of_them:
            assert (await out(host, REGISTER, 0, 7)).good
        assert (await out(last, REGISTER, 0, 7)).sense == (5, 0x55, 4)

    run(main())


def test_reserve_keeps_all_others_out_until_release() -> None:
    async def main() -> None:
        one, two = await hosts(2)
        assert (await one.send("16 00 00 00 00 00")).good
        for cdb in (READY, READ, "16 00 00 00 00 00", "1a 00 3f 00 ff 00"):
            assert (await two.send(cdb, room=512)).end.status is CONFLICT
        assert (await out(two, REGISTER, 0, 1)).end.status is CONFLICT
        for cdb in ("12 00 00 00 24 00", "03 00 00 00 12 00", "17 00 00 00 00 00"):
            assert (await two.send(cdb, room=64)).good
        assert (await two.send(READY)).end.status is CONFLICT
        assert (await one.send("17 00 00 00 00 00")).good
        assert (await two.send(READY)).good

    run(main())
