# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile and random initiators: a SCSI target never fails, touches no memory but what it is given, and loses no data.

The contents of a disk are compared with a model that knows nothing of the target: it is a dictionary of blocks.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitvisor.block.buffers import Buffers
from splitvisor.scsi.cdrom import CdRom
from splitvisor.scsi.codes import REPORT_LUNS_WELL_KNOWN_LUN, SenseKey, Status, TaskAttribute
from splitvisor.scsi.command import Command, Initiator
from splitvisor.scsi.disk import Disk
from splitvisor.scsi.target import Target
from splitvisor.scsi.unit import Identity
from tests.amounts import examples
from tests.memory_disk import MemoryDisk
from tests.scsi_host import Host, run, target_of

BLOCKS = 64
GUARD = b"\xa5" * 32
MASKS = [each.mask() for table in (Disk.thin_table, CdRom.table) for each in table]
SERVICES = {each.opcode for each in Disk.thin_table if each.service_action is not None}


def units() -> list[Disk | CdRom]:
    return [
        Disk(MemoryDisk(BLOCKS * 512), Identity("thin")),
        Disk(MemoryDisk(BLOCKS * 4096, can_discard=False, has_write_cache=False), Identity("thick"), 4096),
        Disk(MemoryDisk(BLOCKS * 512, read_only=True), Identity("read-only")),
        Disk(MemoryDisk(0), Identity("empty")),
        CdRom(MemoryDisk(BLOCKS * 2048, read_only=True), Identity("cd")),
        CdRom(None, Identity("no-cd")),
    ]


PLACES = {6: (1, 3, 4, 1), 10: (2, 4, 7, 2), 12: (2, 4, 6, 4), 16: (2, 8, 10, 4)}
"""Where CDBs have a block and a number of blocks, or a length, most of the time."""
LISTS = (
    bytes.fromhex("0016 0010 00000000 0000000000000003 00000004 00000000"),  # UNMAP
    bytes.fromhex("00000000 0812 00") + bytes(17),  # MODE SELECT(6), caching
    bytes.fromhex("0000000000000000 0a0a 0400000000 00ffff0000"),  # MODE SELECT(10), control
    bytes(8) + bytes(7) + b"\1" + bytes(8),  # PERSISTENT RESERVE OUT, register
    bytes(7) + b"\1" + bytes(16),  # ... and reserve
)


def some_cdb(source: random.Random) -> bytes:
    """A CDB: mostly of an operation that there is, with no bits but those it knows."""
    if source.randrange(8) == 0:
        return source.randbytes(source.randrange(33))
    mask = source.choice(MASKS)
    cdb = bytearray(a & b for a, b in zip(source.randbytes(len(mask)), mask, strict=True))
    if mask[0] in SERVICES:
        cdb[1] = cdb[1] & 0xE0 | mask[1] & 0x1F
    cdb[0] = mask[0]
    first, length, then, size = PLACES[len(cdb)]
    if source.randrange(4):
        for at, count, most in ((first, length, BLOCKS + 2), (then, size, 40 if source.randrange(2) else 4)):
            number = source.randrange(most).to_bytes(count, "big")
            cdb[at : at + count] = bytes(a & b for a, b in zip(number, mask[at : at + count], strict=True))
        cdb[1] &= mask[1] if mask[0] in SERVICES else source.choice((0, 0, 0x08, 0x10, 0xFF))
    if mask[0] in SERVICES:
        cdb[1] = cdb[1] & 0xE0 | mask[1] & 0x1F
    if source.randrange(12) == 0:
        cdb[source.randrange(len(cdb))] ^= 1 << source.randrange(8)
    return bytes(cdb)


@dataclass
class Memory:
    """An initiator's memory: pieces with guards between them, that must stay as they are."""

    sizes: list[int]
    whole: bytearray = field(init=False)
    places: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.whole = bytearray(GUARD)
        self.places = []
        for size in self.sizes:
            self.places.append((len(self.whole), size))
            self.whole += b"\x5a" * size + GUARD

    def buffers(self) -> Buffers:
        view = memoryview(self.whole)
        return Buffers(view[at : at + size] for at, size in self.places)

    def unharmed(self, moved: int) -> bool:
        """Whether nothing is changed but the first bytes of the pieces."""
        rest = moved
        at = 0
        for start, size in [*self.places, (len(self.whole), 0)]:
            if self.whole[at:start] != GUARD:
                return False
            written = min(rest, size)
            rest -= written
            if self.whole[start + written : start + size].strip(b"\x5a"):
                return False
            at = start + size
        return True


def some_sizes(source: random.Random) -> list[int]:
    return [source.choice((0, 1, 24, source.randrange(600), 512, 1024, 4096, 32768)) for _ in range(source.randrange(5))]


@pytest.mark.parametrize("seed", range(4))
def test_no_command_fails_the_target_or_touches_other_memory(seed: int) -> None:
    source = random.Random(seed)
    ended: Counter[tuple[int, Status]] = Counter()

    async def main() -> None:
        for _ in range(examples(100)):
            target = Target()
            for number, unit in enumerate(units()):
                target.add(number, unit)
            await life(target)

    async def life(target: Target) -> None:
        names = [Initiator("one"), Initiator("two")]
        for name in names:
            for number in range(6):
                await target.execute(Command(number, bytes(6), name, "first"))  # Takes the unit attention of a new initiator.
        for tag in range(40):
            lun = source.choice((0, 0, 0, 1, 2, 3, 4, 4, 5, 6, REPORT_LUNS_WELL_KNOWN_LUN))
            cdb, memory, sent = some_cdb(source), Memory(some_sizes(source)), Memory(some_sizes(source))
            listed = source.choice((b"", *LISTS))
            for at, size in sent.places:
                sent.whole[at : at + size] = listed[:size].ljust(size, source.choice((b"\0", b"x")))
            before = bytes(sent.whole)
            command = Command(lun, cdb, source.choice(names), tag, sent.buffers(), memory.buffers())
            end = await target.execute(command)
            what = f"seed {seed}: {cdb.hex(' ')} to {lun}"
            assert end is not None, what
            ended[cdb[0] if cdb else 0, end.status] += 1
            assert sent.whole == before, f"{what}: what is sent is only read"
            assert 0 <= end.moved_in <= min(end.wanted_in, command.data_in.length), what
            assert 0 <= end.moved_out <= min(end.wanted_out, command.data_out.length), what
            assert memory.unharmed(end.moved_in), what
            assert (end.status is Status.CHECK_CONDITION) == bool(end.sense), what
            if end.sense:
                key = end.sense[1] if end.sense[0] == 0x72 else end.sense[2]
                assert key & 0xF != SenseKey.HARDWARE_ERROR, f"{what}: an error of ours"

    run(main())
    assert sum(count for (_, status), count in ended.items() if status is Status.GOOD) > examples(600), "most are refused"


WORK = st.sampled_from(("read", "write", "swap", "or", "same", "unmap", "verify", "wrong swap"))
STEPS = st.lists(st.tuples(WORK, st.integers(0, BLOCKS - 1), st.integers(1, 8), st.integers(0, 255)), min_size=1, max_size=40)


class Model:
    """A disk as its initiator believes it to be."""

    def __init__(self, block_bytes: int) -> None:
        self.size = block_bytes
        self.blocks: dict[int, bytes] = {}

    def read(self, first: int, count: int) -> bytes:
        return b"".join(self.blocks.get(each, bytes(self.size)) for each in range(first, first + count))

    def write(self, first: int, data: bytes) -> None:
        for each in range(len(data) // self.size):
            self.blocks[first + each] = data[each * self.size : (each + 1) * self.size]


async def step(host: Host, model: Model, work: str, first: int, count: int, value: int) -> None:
    """Do a thing on the disk and in the model, and compare."""
    count = min(count, BLOCKS - first)
    size = model.size
    data = bytes((value + each) & 0xFF for each in range(count)) * size
    data = b"".join(data[each : each + 1] * size for each in range(count))
    address, number = first.to_bytes(8, "big").hex(), count.to_bytes(4, "big").hex()
    now = model.read(first, count)
    match work:
        case "read":
            answer = await host.send(f"88 00 {address} {number} 00 00", room=count * size)
            assert answer.data == now
        case "write":
            assert (await host.send(f"8a 08 {address} {number} 00 00", data)).good
            model.write(first, data)
        case "swap":
            assert (await host.send(f"89 00 {address} 000000 {count:02x} 00 00", now + data)).good
            model.write(first, data)
        case "wrong swap":
            wrong = bytearray(now)
            wrong[value * len(wrong) // 256] ^= 1 + value % 255
            answer = await host.send(f"89 00 {address} 000000 {count:02x} 00 00", bytes(wrong) + data)
            assert answer.sense[0] == 0xE
            assert int.from_bytes(answer.end.sense[3:7], "big") == value * len(wrong) // 256
        case "or":
            assert (await host.send(f"8b 00 {address} {number} 00 00", data)).good
            model.write(first, bytes(a | b for a, b in zip(now, data, strict=True)))
        case "same":
            unmap = 8 if value & 1 else 0
            block = bytes((value & 0xFE,)) * size
            assert (await host.send(f"93 {unmap:02x} {address} {number} 00 00", block)).good
            model.write(first, block * count)
        case "unmap":
            listed = bytes((0, 22, 0, 16, 0, 0, 0, 0)) + bytes.fromhex(f"{address} {number} 00000000")
            assert (await host.send("42 00 00 00 00 00 00 00 18 00", listed)).good
            model.write(first, bytes(count * size))
        case "verify":
            assert (await host.send(f"8f 02 {address} {number} 00 00", now)).good
            wrong = bytearray(now)
            wrong[-1 - value] ^= 0x80
            answer = await host.send(f"8f 02 {address} {number} 00 00", bytes(wrong))
            assert answer.sense[0] == 0xE


@pytest.mark.parametrize("block_bytes", [512, 4096])
@given(STEPS)
@settings(max_examples=examples(150))
def test_a_disk_holds_what_its_initiator_believes(block_bytes: int, steps: list[tuple[str, int, int, int]]) -> None:
    async def main() -> None:
        device = MemoryDisk(BLOCKS * block_bytes)
        host = await Host(target_of(Disk(device, Identity("d"), block_bytes))).ready()
        model = Model(block_bytes)
        for each in steps:
            await step(host, model, *each)
        assert device.data == model.read(0, BLOCKS)

    run(main())


class Uneven(MemoryDisk):
    """A disk whose transfers take a number of turns of the loop that changes, and whose pieces are moved one by one."""

    def __init__(self, size: int, turns: list[int]) -> None:
        super().__init__(size)
        self.turns = turns

    async def _pass(self) -> None:
        self.turns.append(self.turns.pop(0))
        for _ in range(self.turns[0]):
            await asyncio.sleep(0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(("swap", "write", "abort", "ordered"))), min_size=2, max_size=24),
    st.lists(st.integers(0, 4), min_size=1, max_size=7),
)
@settings(max_examples=examples(200))
def test_swaps_and_writes_at_once_have_an_order(work: list[tuple[int, str]], turns: list[int]) -> None:
    """Whatever overlaps in time, and whatever is aborted: each swap that succeeded saw exactly what one other left."""

    async def main() -> None:
        device = Uneven(BLOCKS * 512, turns)
        target = target_of(Disk(device, Identity("d")))
        host = await Host(target).ready()
        left: dict[int, list[bytes]] = {each: [bytes(512)] for each in range(4)}
        seen: dict[int, list[bytes]] = {each: [] for each in range(4)}

        async def do(number: int, block: int, kind: str) -> None:
            new = (number + 1).to_bytes(4, "big") * 128
            if kind in ("write", "ordered"):
                attribute = TaskAttribute.ORDERED if kind == "ordered" else TaskAttribute.SIMPLE
                assert (await host.send(f"2a 00 {block:08x} 00 00 01 00", new, attribute=attribute)).good
                left[block].append(new)
                return
            for _ in range(100):
                now = (await host.send(f"28 00 {block:08x} 00 00 01 00", room=512)).data
                cdb = f"89 00 {block:016x} 00 00 00 01 00 00"
                if kind == "abort":
                    task = asyncio.create_task(host.send(cdb, now + new))
                    await asyncio.sleep(0)
                    task.cancel()
                    left[block].append(new)
                    await asyncio.wait([task])
                    return
                if (await host.send(cdb, now + new)).good:
                    seen[block].append(now)
                    left[block].append(new)
                    return

        await asyncio.gather(*(do(number, block, kind) for number, (block, kind) in enumerate(work)))
        for block in range(4):
            assert bytes(device.data[block * 512 : block * 512 + 512]) in left[block]
            assert len(set(seen[block])) == len(seen[block]), "two swaps replaced the same contents"
            assert all(each in left[block] for each in seen[block])

    run(main())
