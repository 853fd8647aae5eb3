# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests whose transfer failed wait for an operator: the machine is paused, the guest is told nothing, and nothing is lost."""

from __future__ import annotations

import asyncio
import errno
from functools import partial
from pathlib import Path

import pytest

from splitvisor.block.disk import Disk as Image
from splitvisor.block.options import DiskOptions, OnReadError, OnWriteError
from splitvisor.declarations.state import StateError
from splitvisor.rpc import state_pb2, trap_pb2
from splitvisor.scsi.disk import Disk
from splitvisor.scsi.unit import Identity
from tests.memory_disk import MemoryDisk
from tests.scsi_host import run, until
from tests.vscsi_guest import DATA_AT, IU_AT, LUN_0, PAGE, SRP, Data, Guest, Response, command, entry, new_tag, task
from vio_service.devices.vscsi.device import MAX_UNDER_WAY

PAUSE = trap_pb2.MACHINE_ACTION_KIND_PAUSE
WHY = "disk.img: No space left on device; when that is put right, `vm resume` tries again"
SYNCHRONIZE = bytes.fromhex("35 00 00000000 00 0000 00")
ORDERED = 2
ABORT_TASK = 1


class Machine:
    """A guest whose disk fails when a test wants it."""

    def __init__(self, below: MemoryDisk) -> None:
        self.below = below
        self.guest = Guest()
        adapter = self.guest.adapter
        options = DiskOptions(Path("disk.img"), werror=OnWriteError.STOP, rerror=OnReadError.STOP)
        image = Image(below, options, partial(adapter.parking.wait, options.name))
        adapter.target.add(0, Disk(image, Identity("D")))
        self._requests = 0

    @property
    def pauses(self) -> list[str]:
        """Why the machine was paused."""
        assert all(kind == PAUSE for kind, _ in self.guest.vm.actions)
        return [reason for _, reason in self.guest.vm.actions]

    @property
    def answers(self) -> list[bytes]:
        """The tags that the guest was told of, without the first."""
        return [told.raw[8:] for told in self.guest.told()][1:]

    def send(self, cdb: bytes, out: Data, attribute: int = 0) -> tuple[int, bytes]:
        """Put a command into the queue; return where it is, and its tag."""
        ioba, tag = IU_AT + 256 * self._requests, new_tag()
        self._requests += 1
        self.guest.put(ioba, command(cdb, LUN_0, tag, out, attribute=attribute))
        self.guest.adapter.received(entry(SRP, ioba))
        return ioba, tag

    def write(self, block: int, contents: bytes) -> tuple[int, bytes]:
        """Put a write of a block into the queue; it is filled with a byte."""
        at = DATA_AT + 512 * block
        self.guest.put(at, contents * 512)
        return self.send(bytes((0x2A, 0)) + block.to_bytes(4, "big") + bytes((0, 0, 1, 0)), Data.direct(at, 512))

    async def parked(self, count: int) -> None:
        """Wait until so many transfers have failed."""
        await until(lambda: self.below.failures >= count)
        await until(lambda: bool(self.guest.adapter.parking.reasons))


async def machine(below: MemoryDisk | None = None) -> Machine:
    made = Machine(below or MemoryDisk(1 << 20))
    await made.guest.ready()
    return made


def response(made: Machine, ioba: int) -> Response:
    return Response(made.guest.memory(ioba, 256))


def test_a_write_waits_and_is_made_when_the_machine_goes_on() -> None:
    async def test() -> None:
        made = await machine()
        made.below.error = errno.ENOSPC
        places = [made.write(block, bytes((block + 1,))) for block in range(3)]
        await made.parked(3)
        assert made.pauses == [WHY], "one pause for all of them"
        assert made.answers == []
        # It is still full.
        made.guest.adapter.continued()
        await made.parked(6)
        assert made.pauses == [WHY] * 2
        assert made.answers == []
        made.below.error = None
        made.guest.adapter.continued()
        await until(lambda: len(made.answers) == 3)
        assert sorted(made.answers) == sorted(tag for _, tag in places)
        assert [response(made, ioba).status for ioba, _ in places] == [0, 0, 0]
        assert made.below.data[: 3 * 512] == b"".join(bytes((block + 1,)) * 512 for block in range(3))
        assert not made.guest.adapter.parking.reasons

    run(test())


def test_a_read_waits_too() -> None:
    async def test() -> None:
        made = await machine()
        made.below.data[:512] = b"r" * 512
        made.below.error = errno.EIO
        reading = asyncio.create_task(made.guest.run("28 00 00000000 00 0001 00", into=Data.direct(DATA_AT, 512)))
        await made.parked(1)
        assert made.pauses == ["disk.img: Input/output error; when that is put right, `vm resume` tries again"]
        made.below.error = None
        made.guest.adapter.continued()
        assert (await reading).status == 0
        assert made.guest.memory(DATA_AT, 512) == b"r" * 512

    run(test())


def test_a_write_that_waits_can_be_aborted() -> None:
    async def test() -> None:
        made = await machine()
        made.below.error = errno.ENOSPC
        _, tag = made.write(0, b"w")
        await made.parked(1)
        _, answer = await made.guest.ask(task(ABORT_TASK, LUN_0, new_tag(), tag), ioba=IU_AT + 8 * 256)
        assert Response(answer).response_code == 0
        made.below.error = None
        made.guest.adapter.continued()
        assert (await made.guest.run(SYNCHRONIZE, ioba=IU_AT + 9 * 256)).status == 0
        assert tag not in made.answers
        assert not any(made.below.data)

    run(test())


@pytest.mark.parametrize("end", ["free", "reset"])
def test_what_waits_ends_with_the_queue(end: str) -> None:
    async def test() -> None:
        made = await machine()
        made.below.error = errno.ENOSPC
        made.write(0, b"w")
        await made.parked(1)
        await (made.guest.adapter.close_queue(5.0) if end == "free" else made.guest.adapter.stop())
        assert not made.guest.adapter.parking.reasons
        made.below.error = None
        made.guest.adapter.continued()
        made.guest.adapter.open_queue()
        await made.guest.ready()
        assert not any(made.below.data)

    run(test())


def test_a_saved_machine_makes_the_write_wherever_it_goes_on() -> None:
    async def test() -> None:
        made = await machine()
        made.below.error = errno.ENOSPC
        places = [made.write(block, bytes((block + 1,))) for block in range(2)]
        await made.parked(2)
        await made.guest.adapter.drain()
        state = made.guest.adapter.save()
        assert made.answers == []

        # Elsewhere, with guest memory as it was, and the disk: it is full there, too.
        below = MemoryDisk(1 << 20)
        below.error = errno.ENOSPC
        other = Machine(below)
        other.guest.vm.ram.data[:] = made.guest.vm.ram.data
        other.guest.adapter.restore(state)
        await other.guest.adapter.begin()
        other.guest.adapter.resumed()
        await other.parked(2)
        assert other.pauses == [WHY]
        below.error = None
        other.guest.adapter.continued()
        await until(lambda: len(other.guest.told()) == 2)
        assert sorted(told.raw[8:] for told in other.guest.told()) == sorted(tag for _, tag in places)
        assert below.data[:1024] == b"\1" * 512 + b"\2" * 512

        # And here, where it was saved.
        made.below.error = None
        made.guest.adapter.resumed()
        await until(lambda: len(made.answers) == 2)
        assert made.below.data[:1024] == b"\1" * 512 + b"\2" * 512

    run(test())


def test_a_command_behind_one_that_waits_is_not_done_before_it() -> None:
    async def test() -> None:
        made = await machine()
        made.below.error = errno.ENOSPC
        _, first = made.write(0, b"w")
        await made.parked(1)
        made.below.error = None
        _, second = made.send(SYNCHRONIZE, Data(), ORDERED)
        await made.guest.adapter.drain()
        assert made.below.flushes == 0
        saved = state_pb2.VscsiState.FromString(made.guest.adapter.save())
        assert [each.ioba for each in saved.requests] == [IU_AT, IU_AT + 256]
        made.guest.adapter.resumed()
        await until(lambda: len(made.answers) == 2)
        assert made.answers == [first, second]
        assert made.below.data[:512] == b"w" * 512

    run(test())


def test_a_write_that_fails_while_the_machine_is_saved_is_set_aside() -> None:
    async def test() -> None:
        made = await machine()
        made.below.gate = asyncio.Event()
        made.write(0, b"w")
        await until(lambda: made.below.waiting == 1)
        draining = asyncio.create_task(made.guest.adapter.drain())
        await asyncio.sleep(0)
        made.below.error = errno.ENOSPC
        made.below.gate.set()
        await draining
        assert made.pauses == [], "the machine stands still anyway"
        made.below.error = None
        made.guest.adapter.resumed()
        await until(lambda: len(made.answers) == 1)
        assert made.below.data[:512] == b"w" * 512

    run(test())


def test_whoever_is_no_request_of_the_queue_gets_the_error() -> None:
    """The firmware's writes come in a call, whose vCPU waits, and time goes on."""

    async def test() -> None:
        made = await machine()
        made.below.error = errno.ENOSPC
        assert not await made.guest.adapter.parking.wait("disk.img", OSError(errno.ENOSPC, "full"))  # type: ignore[arg-type]
        assert made.pauses == []

    run(test())


def test_a_state_with_too_many_requests_is_refused() -> None:
    requests = [state_pb2.VscsiRequest(format=SRP, ioba=PAGE, length=64)] * (MAX_UNDER_WAY + 1)
    state = state_pb2.VscsiState(version=1, requests=requests).SerializeToString()
    with pytest.raises(StateError, match=f"has {MAX_UNDER_WAY + 1} requests"):
        Guest().adapter.restore(state)
