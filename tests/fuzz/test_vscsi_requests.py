# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile guest of a v-scsi adapter, at a real vio_service: queue entries, information units, datagrams, descriptors and CDBs.

First, every field of every kind of request has every awkward value in turn; then there are requests with several changes, by a
seed. The service stays, its memory stays, each request has its answer, and only what the guest has mapped is read and written:
memory that must not be written has what it had, and what is in memory that must not be read appears neither in other memory nor
on a disk.

SPLITVISOR_FUZZ_REQUESTS sets how many random requests there are (20,000), SPLITVISOR_FUZZ_SEED where they start.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from splitvisor.machine.config import Device
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.testing import SCRIPTED, RunningMachine, StartMachine
from tests.fuzz.test_scsi import LISTS, some_cdb
from tests.vscsi_guest import (
    MAD,
    NO_DATA,
    PAGE,
    READ,
    SRP,
    UNIT,
    WRITE,
    Data,
    command,
    datagram,
    descriptors,
    entry,
    login,
    lun,
    task,
)

pytest_plugins = ["splitvisor.testing"]

REQUESTS = int(os.environ.get("SPLITVISOR_FUZZ_REQUESTS", "20000"))
SEED = int(os.environ.get("SPLITVISOR_FUZZ_SEED", "1"))
BATCH = 200
ANSWER_S = 60.0
MIB = 1 << 20
GROWTH_KIB = 64 << 10
"""What the service may grow by: buffers of transfers, and what an allocator keeps."""
MOST_UNDER_WAY_KIB = 256 * 2048
"""What the transfers of one adapter may have under way: 256 of the longest."""

AREA, AREA_PAGES = 64 * MIB, 256
"""Guest memory that the adapter may reach in part."""
GUARD = MIB
"""Bytes before and behind it, which nothing maps."""
REQUEST_IOBA, REQUEST_AT, REQUEST_PAGES = 0xA7B_0000, 96 * MIB, 16
QUEUE_IOBA, QUEUE_AT, QUEUE_BYTES = 0xC9D_0000, 97 * MIB, 64 << 10
TABLES = range(0, 16)
"""Pages of the area with tables of descriptors."""
READABLE, WRITABLE, HIDDEN = range(96, 128), range(128, 160), range(160, 192)
"""Pages of the area with other permissions than both."""
SECRET = b"not for the disk"
WINDOW = 0x1000_0000

BYTES = (0, 1, 2, 3, 4, 0x0F, 0x10, 0x21, 0x7F, 0x80, 0xFF)
HALVES = (0, 1, 0x7FFF, 0x8000, 0x8100, 0xC101, 0xFFFF)
WORDS = (0, 1, 15, 16, 17, 511, 513, PAGE, 16 * 2048, 16 * 2049, 2 * MIB, 2 * MIB + 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
ADDRESSES = (
    *(0, 1, PAGE - 1, READABLE.start * PAGE, WRITABLE.start * PAGE, HIDDEN.start * PAGE),
    *(READABLE.start * PAGE - 1, WRITABLE.stop * PAGE - 1, HIDDEN.start * PAGE - 8, HIDDEN.stop * PAGE - 1),
    *(AREA_PAGES * PAGE - 8, AREA_PAGES * PAGE, WINDOW - 256, WINDOW - 1, WINDOW, WINDOW + 1),
    *((1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - PAGE, (1 << 64) - 1),
)
EDGES = {1: BYTES, 2: HALVES, 4: WORDS, 8: ADDRESSES}


@dataclass(frozen=True)
class Request:
    """What a guest sends: an information unit, and how its queue entry speaks of it."""

    iu: bytes
    kind: int = SRP
    entry: bytes = b""
    """Of the queue, if it is not a proper one."""

    @property
    def disturbs(self) -> bool:
        """Whether it may take the answers of others, or have none."""
        return bool(self.entry) or (self.kind == SRP and self.iu[:1] in (b"\1", b"\3"))


def good_requests(source: random.Random) -> list[Request]:
    """One request of each kind, in which nothing is wrong."""
    buffer = 20 * PAGE + 8 * source.randrange(500)
    table = TABLES.start * PAGE + 16 * source.randrange(64)
    pieces = [(buffer, 512), (32 * PAGE - 100, 1024)]
    block = source.randrange(2000)
    unit = lun(source.choice((0, 0, 1, 2, 3)))

    def ask(cdb: str, out: Data = NO_DATA, into: Data = NO_DATA) -> Request:
        return Request(command(bytes.fromhex(cdb), unit, source.randbytes(8), out, into))

    tag = source.randbytes(8)
    return [
        Request(login(tag)),
        ask(f"28 00 {block:08x} 00 0001 00", into=Data.direct(buffer, 512)),
        ask(f"2a 00 {block:08x} 00 0001 00", out=Data.direct(buffer, 512)),
        ask(f"28 00 {block:08x} 00 0003 00", into=Data.table(table, pieces, 2)),
        ask(f"2a 00 {block:08x} 00 0003 00", out=Data.table(table, pieces, 2, 0)),
        ask(f"2a 00 {block:08x} 00 0003 00", out=Data.table(table, pieces, 1), into=Data.direct(buffer, 64)),
        ask("12 01 83 00ff 00", into=Data.direct(buffer, 255)),
        ask("a0 00 00 000000 00000200 00 00", into=Data.direct(buffer, 512)),
        Request(datagram(3, tag, buffer, 148), MAD),
        Request(datagram(5, tag, buffer, 92), MAD),
        Request(task(1, unit, tag, tag)),
        Request(task(8, unit, tag)),
        Request(bytes((3,)) + bytes(7) + tag),
    ]


def changed(data: bytes, offset: int, size: int, value: int) -> bytes:
    return data[:offset] + value.to_bytes(size, "big") + data[offset + size :]


def every_field(source: random.Random) -> Iterator[Request]:
    """Each kind of request with one field that has an awkward value."""
    for request in good_requests(source):
        for size, edges in EDGES.items():
            for offset in range(0, len(request.iu) - size + 1, size):
                yield from (replace(request, iu=changed(request.iu, offset, size, value)) for value in edges)
        for length in range(len(request.iu)):
            yield replace(request, entry=entry(request.kind, REQUEST_IOBA, length))
        for size, edges in EDGES.items():
            for offset in range(0, 16, size):
                yield from (
                    replace(request, entry=changed(entry(request.kind, REQUEST_IOBA), offset, size, value)) for value in edges
                )


def random_request(source: random.Random) -> Request:
    """A request with a few changes, or with a CDB of any kind."""
    request = source.choice(good_requests(source))
    if request.kind == SRP and request.iu[0] == 2 and source.randrange(2):
        address = source.choice((20 * PAGE, source.choice(ADDRESSES)))
        length = source.choice((8, 24, 512, 4096, 65536, source.choice(WORDS)))
        data = Data.direct(address, length)
        out, into = (data, NO_DATA) if source.randrange(2) else (NO_DATA, data)
        cdb = some_cdb(source)
        made = command(cdb[:16], lun(source.choice((0, 1, 2, 9))), source.randbytes(8), out, into)
        return replace(request, iu=made)
    iu = request.iu
    for _ in range(source.randrange(5)):
        size = source.choice((1, 1, 2, 4, 8))
        value = source.choice(EDGES[size]) if source.randrange(4) else source.getrandbits(8 * size)
        iu = changed(iu, size * source.randrange(len(iu) // size), size, value)
    return replace(request, iu=iu)


class HostileGuest:
    """The guest."""

    def __init__(self, machine: RunningMachine, source: random.Random) -> None:
        self.guest, self.source = machine.guest, source
        tces = [(UNIT, REQUEST_IOBA + at, REQUEST_AT + at | READ | WRITE) for at in range(0, REQUEST_PAGES * PAGE, PAGE)]
        tces += [(UNIT, QUEUE_IOBA + at, QUEUE_AT + at | READ | WRITE) for at in range(0, QUEUE_BYTES, PAGE)]
        tces += [(UNIT, page * PAGE, AREA + page * PAGE | self.permission(page)) for page in range(AREA_PAGES)]
        results = self.guest.hcalls([(Hcall.H_PUT_TCE, *each) for each in tces])
        assert all(each.result == H.SUCCESS for each in results)
        self.fill()

    @staticmethod
    def permission(page: int) -> int:
        """What the adapter may do with a page of the area."""
        if page in READABLE:
            return READ
        if page in WRITABLE:
            return WRITE
        return 0 if page in HIDDEN else READ | WRITE

    def fill(self) -> None:
        """Give memory the contents that it has at first."""
        self.guest.memory[AREA - GUARD : AREA + AREA_PAGES * PAGE + GUARD] = self.contents()

    def contents(self) -> bytes:
        """What is in the area and its guards: secrets where nothing may be read."""
        area = b"".join(
            (SECRET if not self.permission(page) & READ else b"\x5a" * len(SECRET)) * (PAGE // len(SECRET))
            for page in range(AREA_PAGES)
        )
        guard = SECRET * (GUARD // len(SECRET))
        return guard + area + guard

    def tables(self) -> None:
        """Have tables of descriptors, some of them with awkward entries, and a parameter list."""
        pieces = [
            (
                self.source.choice(ADDRESSES) if self.source.randrange(8) == 0 else PAGE * self.source.randrange(20, 90),
                self.source.choice(WORDS) if self.source.randrange(16) == 0 else self.source.choice((0, 8, 512, 512, 4096)),
            )
            for _ in range(len(TABLES) * PAGE // 16)
        ]
        self.guest.memory[AREA : AREA + len(TABLES) * PAGE] = descriptors(pieces)
        parameters = self.source.choice(LISTS)
        self.guest.memory[AREA + 20 * PAGE : AREA + 20 * PAGE + len(parameters)] = parameters

    def send(self, requests: Sequence[Request]) -> None:
        """Send requests, have as many answers where each must have one, and end the queue."""
        assert len(requests) <= BATCH
        self.guest.memory[QUEUE_AT : QUEUE_AT + QUEUE_BYTES] = bytes(QUEUE_BYTES)
        slots = b"".join(each.iu[:256].ljust(256, b"\0") for each in requests)
        self.guest.memory[REQUEST_AT : REQUEST_AT + len(slots)] = slots
        assert self.guest.hcall(Hcall.H_REG_CRQ, UNIT, QUEUE_IOBA, QUEUE_BYTES).result == H.SUCCESS
        entries = [each.entry or entry(each.kind, REQUEST_IOBA + 256 * place) for place, each in enumerate(requests)]
        calls = [(Hcall.H_SEND_CRQ, UNIT, int.from_bytes(each[:8], "big"), int.from_bytes(each[8:], "big")) for each in entries]
        assert {each.result for each in self.guest.hcalls(calls)} == {H.SUCCESS}
        if not any(each.disturbs for each in requests):
            self.wait_for_answers(len(requests))
        assert self.guest.hcall(Hcall.H_FREE_CRQ, UNIT).result == H.SUCCESS

    def wait_for_answers(self, count: int) -> None:
        """Wait until so many entries are in the queue."""
        deadline = time.monotonic() + ANSWER_S
        pause = threading.Event()
        last = QUEUE_AT + 16 * (count - 1)
        while not self.guest.memory[last : last + 1][0]:
            assert time.monotonic() < deadline, f"{self.answers()} answers to {count} requests"
            pause.wait(0.001)
        assert self.answers() == count

    def answers(self) -> int:
        """How many entries are in the queue."""
        return sum(byte != 0 for byte in self.guest.memory[QUEUE_AT : QUEUE_AT + QUEUE_BYTES][::16])

    def check_memory(self, images: Sequence[Path]) -> None:
        """Compare memory with what the mappings allow, and begin again."""
        now = self.guest.memory[AREA - GUARD : AREA + AREA_PAGES * PAGE + GUARD]
        first = self.contents()
        assert now[:GUARD] == first[:GUARD]
        assert now[-GUARD:] == first[-GUARD:]
        readable: list[bytes] = []
        for page in range(AREA_PAGES):
            place = slice(GUARD + page * PAGE, GUARD + (page + 1) * PAGE)
            if not self.permission(page) & WRITE:
                assert now[place] == first[place], f"page {page} was written"
            elif self.permission(page) & READ:
                readable.append(now[place])
        assert SECRET not in b"".join(readable)
        for image in images:
            assert SECRET not in image.read_bytes()
        self.fill()

    def run(self, requests: Iterator[Request], images: Sequence[Path]) -> None:
        """Send requests in batches: those that disturb others have their own."""
        quiet: list[Request] = []
        loud: list[Request] = []
        batches = 0
        for request in requests:
            waiting = loud if request.disturbs else quiet
            waiting.append(request)
            if len(waiting) == BATCH:
                if batches % 8 == 0:
                    self.check_memory(images)
                    self.tables()
                self.send(waiting)
                waiting.clear()
                batches += 1
        for waiting in (quiet, loud):
            self.send(waiting)
        self.check_memory(images)


def resident_kib(machine: RunningMachine) -> int:
    status = Path(f"/proc/{machine.services.pid('vio')}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@pytest.mark.parametrize("shared", [True, False], ids=["shared-memory", "through-the-stream"])
def test_a_hostile_guest(start_machine: StartMachine, tmp_path: Path, shared: bool) -> None:
    images = [tmp_path / name for name in ("disk.img", "kept.img", "cd.iso")]
    for number, image in enumerate(images):
        image.write_bytes(bytes((number,)) * MIB)
    disk, kept, cd = images
    options = {"disk0": f"{disk},cache=unsafe", "disk1": f"{kept},readonly", "cdrom0": str(cd)}
    devices = (*SCRIPTED.devices, Device("v-scsi", UNIT, options))
    machine = start_machine((), replace(SCRIPTED, devices=devices, shared_memory=shared))
    pid = machine.services.pid("vio")
    source = random.Random(SEED)
    guest = HostileGuest(machine, source)
    guest.run(every_field(source), images)
    guest.run((random_request(source) for _ in range(REQUESTS // 4)), images)
    before = resident_kib(machine)
    guest.run((random_request(source) for _ in range(REQUESTS - REQUESTS // 4)), images)
    assert resident_kib(machine) < before + GROWTH_KIB
    assert machine.services.alive("vio")
    assert machine.services.pid("vio") == pid
    assert kept.read_bytes() == b"\1" * MIB
    assert cd.read_bytes() == b"\2" * MIB
    assert disk.stat().st_size == MIB


def test_the_memory_that_transfers_take_is_bounded(start_machine: StartMachine, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.touch()
    os.truncate(image, 64 * MIB)
    device = Device("v-scsi", UNIT, {"disk0": f"{image},iops=1"})
    machine = start_machine((), replace(SCRIPTED, devices=(*SCRIPTED.devices, device), shared_memory=False))
    guest = HostileGuest(machine, random.Random(SEED))
    # One page over and over again: what a guest has mapped bounds nothing.
    pieces = [(20 * PAGE, 4 * PAGE)] * 128
    guest.guest.memory[AREA : AREA + 16 * len(pieces)] = descriptors(pieces)
    cdb = bytes.fromhex("28 00 00000000 00 1000 00")
    read = Request(command(cdb, lun(0), bytes(8), into=Data.table(0, pieces, 0)))
    before = resident_kib(machine)
    requests = [replace(read, iu=changed(read.iu, 8, 8, number)) for number in range(BATCH)]
    slots = b"".join(each.iu.ljust(256, b"\0") for each in requests)
    guest.guest.memory[REQUEST_AT : REQUEST_AT + len(slots)] = slots
    assert guest.guest.hcall(Hcall.H_REG_CRQ, UNIT, QUEUE_IOBA, QUEUE_BYTES).result == H.SUCCESS
    calls = [(Hcall.H_SEND_CRQ, UNIT, 0x8001_0000_0000_0100, REQUEST_IOBA + 256 * place) for place in range(BATCH)]
    guest.guest.hcalls(calls)
    guest.wait_for_answers(2)
    assert resident_kib(machine) < before + MOST_UNDER_WAY_KIB
