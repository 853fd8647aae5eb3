# SPDX-License-Identifier: GPL-2.0-or-later
"""A SCSI target: its units, unit attentions, the order of commands, and task management."""

from __future__ import annotations

import asyncio

import pytest

from splitvisor.block.buffers import Buffers
from splitvisor.scsi import task_set
from splitvisor.scsi.cdrom import CdRom
from splitvisor.scsi.codes import REPORT_LUNS_WELL_KNOWN_LUN, Status, TaskAttribute, TaskFunction, TaskResponse
from splitvisor.scsi.command import Command
from splitvisor.scsi.disk import Disk
from splitvisor.scsi.target import Target, UnitError
from splitvisor.scsi.unit import Identity
from tests.memory_disk import MemoryDisk
from tests.scsi_host import Host, run, target_of, until

MIB = 1 << 20
READ = "28 00 00 00 00 00 00 00 01 00"
WRITE = "2a 00 00 00 00 00 00 00 01 00"
READY = "00 00 00 00 00 00"
REPORT = "a0 00 00 00 00 00 00 00 10 00 00 00"
GONE = (5, 0x25, 0)


def disk(serial: str = "d") -> Disk:
    return Disk(MemoryDisk(MIB), Identity(serial))


def gated() -> tuple[MemoryDisk, asyncio.Event, Target]:
    """A disk whose transfers wait for an event."""
    device = MemoryDisk(MIB)
    device.gate = asyncio.Event()
    return device, device.gate, target_of(Disk(device, Identity("d")))


def command(host: Host, cdb: str, tag: object, attribute: TaskAttribute = TaskAttribute.SIMPLE, out: bytes = b"") -> Command:
    return Command(
        0, bytes.fromhex(cdb), host.initiator, tag, Buffers.of(out), Buffers.of(bytearray(0 if out else 512)), attribute
    )


def test_a_number_without_a_unit_says_so_at_once() -> None:
    async def main() -> None:
        host = Host(target_of(disk()))
        answer = await host.send("12 00 00 00 24 00", room=36, lun=7)
        assert (answer.good, answer.data[0], len(answer.data)) == (True, 0x7F, 36)
        assert (await host.send("12 01 80 00 24 00", room=36, lun=7)).sense == (5, 0x24, 0)
        for cdb in (READY, READ, "1a 00 3f 00 ff 00", "ff"):
            assert (await host.send(cdb, room=512, lun=7)).sense == GONE
        assert (await host.send("03 00 00 00 12 00", room=18, lun=7)).data[2] == 5
        assert (await host.send(REPORT, room=4096, lun=7)).good

    run(main())


def test_all_units_are_reported() -> None:
    async def main() -> None:
        target = Target()
        host = Host(target)
        assert (await host.send(REPORT, room=4096)).data == bytes(8), "LUN 0 answers, but is no unit"
        for number in (0x8100, 2, 0x1FF):
            target.add(number, disk())
        data = (await host.send(REPORT, room=4096, lun=2)).data
        assert data == bytes.fromhex("00000018 00000000 0002000000000000 41ff000000000000 4100000000000000")
        for lun in (2, REPORT_LUNS_WELL_KNOWN_LUN):
            data = (await host.send(REPORT.replace("a0 00 00", "a0 00 02"), room=4096, lun=lun)).data
            assert data[-8:] == bytes.fromhex("c101000000000000")
        assert (await host.send("a0 00 01 00 00 00 00 00 10 00 00 00", room=4096)).data[8:10] == b"\xc1\x01"
        assert (await host.send("a0 00 03 00 00 00 00 00 10 00 00 00", room=4096)).sense == (5, 0x24, 0)
        assert (await host.send("12 00 00 00 24 00", room=36, lun=REPORT_LUNS_WELL_KNOWN_LUN)).data[0] == 0x1E

    run(main())


def test_a_transport_names_units_as_it_likes() -> None:
    async def main() -> None:
        target = Target(lambda addressed, numbers: [addressed << 48, *(0x8000 | each for each in numbers)])
        target.add(3, disk())
        assert (await Host(target).send(REPORT, room=24, lun=9)).data[8:] == bytes.fromhex("0009000000000000 0000000000008003")

    run(main())


def test_units_come_and_go() -> None:
    async def main() -> None:
        target = target_of(disk())
        host = await Host(target).ready()
        added = disk("e")
        target.add(1, added)
        assert (await host.send(READY)).sense == (6, 0x3F, 0x0E)
        assert (await host.send(READY)).good
        with pytest.raises(UnitError, match="already there"):
            target.add(1, disk())
        with pytest.raises(UnitError, match="no such number"):
            target.add(1 << 16, disk())
        assert await target.remove(1) is added
        assert (await host.send(READY)).sense == (6, 0x3F, 0x0E)
        target.add(2, disk("f"))
        assert (await host.send(REPORT, room=64)).data[:4] == bytes((0, 0, 0, 16))
        assert (await host.send(READY)).good, "it has seen the change"
        assert (await host.send(READY, lun=1)).sense == GONE
        with pytest.raises(UnitError, match="not there"):
            await target.remove(1)

    run(main())


def test_a_unit_that_is_removed_answers_what_it_has_begun() -> None:
    async def main() -> None:
        device, gate, target = gated()
        device.data[:512] = b"d" * 512
        host = await Host(target).ready()
        reading = asyncio.create_task(host.send(READ, room=512))
        await until(lambda: device.waiting)
        removing = asyncio.create_task(target.remove(0))
        await asyncio.sleep(0)
        assert (await host.send(READ, room=512)).sense == GONE
        assert not removing.done()
        gate.set()
        assert (await reading).data == b"d" * 512
        await removing

    run(main())


def test_a_unit_attention_is_reported_once_to_each_initiator_and_unit() -> None:
    async def main() -> None:
        target = target_of(disk("a"), disk("b"))
        one, two = await Host(target, "1").ready(), await Host(target, "2").ready()
        await one.ready(1)
        assert (await one.send("12 00 00 00 24 00", room=36)).good
        assert await target.manage(TaskFunction.LOGICAL_UNIT_RESET, one.initiator, 0) is TaskResponse.COMPLETE
        for cdb in ("12 00 00 00 24 00", REPORT):
            assert (await one.send(cdb, room=36)).good
        assert (await one.send(READ, room=512)).sense == (6, 0x29, 3)
        assert (await one.send(READ, room=512)).good
        assert (await two.send("03 00 00 00 12 00", room=18)).data[2::10][:2] == bytes((6, 0x29))
        assert (await two.send(READY)).good
        assert (await one.send(READY, lun=1)).good
        assert await target.manage(TaskFunction.TARGET_RESET, one.initiator) is TaskResponse.COMPLETE
        assert [(await one.send(READY, lun=each)).sense for each in (0, 1)] == [(6, 0x29, 2)] * 2
        assert await target.manage(TaskFunction.ABORT_TASK_SET, one.initiator, 5) is TaskResponse.INCORRECT_LUN

    run(main())


def test_an_aborted_command_is_not_answered_and_leaves_memory_alone() -> None:
    async def main() -> None:
        device, gate, target = gated()
        device.data[:512] = b"d" * 512
        host = await Host(target).ready()
        wanted = command(host, READ, "tag")
        running = asyncio.create_task(target.execute(wanted))
        await until(lambda: device.waiting)
        assert await target.manage(TaskFunction.ABORT_TASK, host.initiator, 0, "other") is TaskResponse.NO_SUCH_TASK
        assert await target.manage(TaskFunction.ABORT_TASK, host.initiator, 0, "tag") is TaskResponse.COMPLETE
        gate.set()
        assert await running is None
        assert not running.cancelling()
        assert wanted.data_in.load() == bytes(512)
        assert await target.manage(TaskFunction.ABORT_TASK, host.initiator, 0, "tag") is TaskResponse.NO_SUCH_TASK
        assert (await host.send(READ, room=512)).data == b"d" * 512

    run(main())


@pytest.mark.parametrize(
    ("function", "other_ends", "attention"),
    [
        (TaskFunction.ABORT_TASK_SET, False, None),
        (TaskFunction.CLEAR_TASK_SET, True, (6, 0x2F, 0)),
        (TaskFunction.LOGICAL_UNIT_RESET, True, (6, 0x29, 3)),
        (TaskFunction.TARGET_RESET, True, (6, 0x29, 2)),
        (TaskFunction.NEXUS_RESET, False, None),
    ],
)
def test_task_management_aborts_what_it_says(
    function: TaskFunction, other_ends: bool, attention: tuple[int, int, int] | None
) -> None:
    async def main() -> None:
        device, gate, target = gated()
        one, two = await Host(target, "1").ready(), await Host(target, "2").ready()
        mine = asyncio.create_task(target.execute(command(one, READ, 1)))
        others = asyncio.create_task(target.execute(command(two, WRITE, 1, out=bytes(512))))
        await until(lambda: device.waiting == 2)
        assert await target.manage(function, one.initiator) is TaskResponse.COMPLETE
        gate.set()
        assert await mine is None
        end = await others
        assert (end is None) == other_ends
        if attention is not None:
            assert (await two.send(READY)).sense == attention
        assert (await two.send(READY)).good

    run(main())


def test_a_transfer_that_does_not_end_makes_an_abort_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(MemoryDisk):
        """A disk that cannot break a transfer off: it touches the buffers until it is released."""

        async def read(self, offset: int, into: Buffers) -> None:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                assert self.gate is not None
                await self.gate.wait()

    async def main() -> None:
        stuck = Stuck(MIB)
        stuck.gate = asyncio.Event()
        target = target_of(Disk(stuck, Identity("d")))
        host = await Host(target).ready()
        running = asyncio.create_task(target.execute(command(host, READ, 1)))
        await until(lambda: stuck.waiting)
        monkeypatch.setattr(task_set, "ABORT_SECONDS", 0.01)
        assert await target.manage(TaskFunction.ABORT_TASK, host.initiator, 0, 1) is TaskResponse.FAILED
        with pytest.raises(UnitError, match="a transfer does not end"):
            await target.remove(0)
        stuck.gate.set()
        assert await running is None

    run(main())


def test_a_transport_may_cancel_a_command() -> None:
    async def main() -> None:
        device, gate, target = gated()
        host = await Host(target).ready()
        running = asyncio.create_task(target.execute(command(host, WRITE, 1, out=b"w" * 512)))
        await until(lambda: device.waiting)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.set()
        assert (await host.send(WRITE, b"v" * 512, tag=1)).good

    run(main())


def test_simple_commands_run_at_once_and_ordered_ones_alone() -> None:
    async def main() -> None:
        device, gate, target = gated()
        host = await Host(target).ready()
        order: list[int] = []

        async def send(tag: int, attribute: TaskAttribute) -> None:
            await target.execute(command(host, READ, tag, attribute))
            order.append(tag)

        simple, ordered, head = TaskAttribute.SIMPLE, TaskAttribute.ORDERED, TaskAttribute.HEAD_OF_QUEUE
        attributes = (simple, simple, ordered, simple, head, ordered)
        tasks = [asyncio.create_task(send(tag, attribute)) for tag, attribute in enumerate(attributes)]
        await until(lambda: device.waiting == 3)
        await asyncio.sleep(0)
        assert device.waiting == 3, "the two simple ones and the head of the queue"
        gate.set()
        await asyncio.gather(*tasks)
        assert sorted(order[:3]) == [0, 1, 4]
        assert order[3:] == [2, 3, 5]

    run(main())


def test_an_aborted_command_lets_those_behind_it_run() -> None:
    async def main() -> None:
        device, gate, target = gated()
        host = await Host(target).ready()
        blocked = asyncio.create_task(target.execute(command(host, READ, 1)))
        await until(lambda: device.waiting)
        ordered = asyncio.create_task(target.execute(command(host, READY, 2, TaskAttribute.ORDERED)))
        behind = asyncio.create_task(target.execute(command(host, READY, 3)))
        await asyncio.sleep(0)
        assert await target.manage(TaskFunction.ABORT_TASK, host.initiator, 0, 2) is TaskResponse.COMPLETE
        assert await ordered is None
        assert (await behind) is not None
        gate.set()
        assert (await blocked) is not None

    run(main())


def test_the_commands_of_a_unit_are_bounded() -> None:
    async def main() -> None:
        device, gate, target = gated()
        host = await Host(target).ready()
        tasks = [asyncio.create_task(target.execute(command(host, READ, tag))) for tag in range(task_set.MAX_TASKS)]
        await until(lambda: device.waiting == task_set.MAX_TASKS)
        assert (await host.send(READ, room=512, tag="more")).end.status is Status.TASK_SET_FULL
        gate.set()
        assert all([(await each) is not None for each in tasks])
        assert (await host.send(READ, room=512)).good

    run(main())


def test_a_tag_that_is_in_use_is_refused() -> None:
    async def main() -> None:
        device, gate, target = gated()
        one, two = await Host(target, "1").ready(), await Host(target, "2").ready()
        running = asyncio.create_task(target.execute(command(one, READ, 7)))
        await until(lambda: device.waiting)
        assert (await one.send(READY, tag=7)).sense == (0xB, 0x4E, 0)
        assert (await two.send(READY, tag=7)).good
        gate.set()
        assert (await running) is not None

    run(main())


def test_compare_and_write_is_atomic_to_writes_that_overlap() -> None:
    """A write that comes while one has compared waits, and one elsewhere does not."""

    async def main() -> None:
        device, gate, target = gated()
        host = await Host(target).ready()
        swap = "89 00 00 00 00 00 00 00 00 00 00 00 00 02 00 00"
        swapping = asyncio.create_task(target.execute(command(host, swap, 1, out=bytes(1024) + b"s" * 1024)))
        await until(lambda: device.waiting == 1)
        write = asyncio.create_task(
            target.execute(command(host, WRITE.replace("00 00 01 00", "00 00 02 00"), 2, out=b"w" * 1024))
        )
        second = asyncio.create_task(target.execute(command(host, swap, 3, out=b"w" * 1024 + b"t" * 1024)))
        elsewhere = asyncio.create_task(target.execute(command(host, "2a 00 00 00 00 08 00 00 01 00", 4, out=b"e" * 512)))
        await until(lambda: device.waiting == 2)
        gate.set()
        for each in (swapping, write, second, elsewhere):
            end = await each
            assert end is not None
            assert end.status is Status.GOOD
        assert device.data[:1024] == b"t" * 1024
        assert device.data[4096:4608] == b"e" * 512

    run(main())


def test_counters_that_many_increase_by_compare_and_write_lose_nothing() -> None:
    async def main() -> None:
        device = MemoryDisk(MIB)

        class Slow(MemoryDisk):
            async def read(self, offset: int, into: Buffers) -> None:
                await asyncio.sleep(0)
                await device.read(offset, into)
                await asyncio.sleep(0)

            async def write(self, offset: int, data: Buffers, fua: bool = False) -> None:
                await asyncio.sleep(0)
                await device.write(offset, data, fua)

        target = target_of(Disk(Slow(MIB), Identity("d")))

        async def count(name: str) -> None:
            host = await Host(target, name).ready()
            done = 0
            while done < 20:
                now = (await host.send(READ, room=512)).data
                new = (int.from_bytes(now, "big") + 1).to_bytes(512, "big")
                answer = await host.send("89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", now + new)
                done += answer.good

        await asyncio.gather(*(count(f"host {each}") for each in range(8)))
        assert int.from_bytes(device.data[:512], "big") == 160

    run(main())


def test_an_initiator_that_goes_leaves_nothing() -> None:
    async def main() -> None:
        drive = CdRom(MemoryDisk(MIB), Identity("cd"))
        target = target_of(disk(), drive)
        one, two = await Host(target, "1").ready(), await Host(target, "2").ready()
        await one.ready(1)
        assert (await one.send("16 00 00 00 00 00")).good
        assert (await one.send("1e 00 00 00 01 00", lun=1)).good
        assert (await two.send(READ, room=512)).end.status is Status.RESERVATION_CONFLICT
        assert drive.locks == {"1"}
        await target.nexus_lost(one.initiator)
        assert (await two.send(READ, room=512)).good
        assert not drive.locks
        await one.ready()

    run(main())
