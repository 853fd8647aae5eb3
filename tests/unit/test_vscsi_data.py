# SPDX-License-Identifier: GPL-2.0-or-later
"""The data of commands at a v-scsi adapter: descriptors as Linux, FreeBSD and SLOF make them, residuals, sense, permissions."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitvisor.scsi.disk import Disk
from splitvisor.scsi.unit import Identity
from tests.amounts import examples
from tests.memory_disk import MemoryDisk
from tests.scsi_host import run
from tests.vscsi_guest import (
    DATA_AT,
    INDIRECT,
    IU_AT,
    LUN_0,
    NO_DATA,
    PAGE,
    READ,
    Data,
    Guest,
    Response,
    command,
    descriptor,
    descriptors,
    new_tag,
)

MIB = 1 << 20
CONTENTS = random.Random(11).randbytes(2 * MIB)
TABLE_AT = 0x3_0000
MISSING = 0x80_0000
"""A bus address that is not mapped."""
HOLE = DATA_AT + MIB
"""An address that a test takes the mapping of."""
UNTOUCHED = b"\xee"


def read_10(block: int, blocks: int) -> str:
    return f"28 00 {block:08x} 00 {blocks:04x} 00"


def write_10(block: int, blocks: int) -> str:
    return f"2a 00 {block:08x} 00 {blocks:04x} 00"


@dataclass
class Parts:
    guest: Guest
    disk: MemoryDisk


async def parts() -> Parts:
    """A guest with one disk, all of its memory for data filled."""
    disk = MemoryDisk(2 * MIB)
    disk.data[:] = CONTENTS
    guest = await Guest(units={0: Disk(disk, Identity("D"))}).ready()
    guest.put(DATA_AT, UNTOUCHED * (2 * MIB))
    return Parts(guest, disk)


def scattered(count: int, length: int = 512) -> list[tuple[int, int]]:
    """Buffers that lie apart, in no order."""
    places = [(DATA_AT + number * 2 * length, length) for number in range(count)]
    random.Random(count).shuffle(places)
    return places


def loaded(guest: Guest, buffers: list[tuple[int, int]]) -> bytes:
    return b"".join(guest.memory(ioba, length) for ioba, length in buffers)


@pytest.mark.parametrize(("ioba", "blocks"), [(DATA_AT, 1), (DATA_AT + PAGE - 8, 1), (DATA_AT + 3, 255), (DATA_AT, 2048)])
def test_a_direct_descriptor(ioba: int, blocks: int) -> None:
    async def test() -> None:
        it = await parts()
        response = await it.guest.run(read_10(1, blocks), into=Data.direct(ioba, 512 * blocks))
        assert (response.status, response.flags) == (0, 0)
        assert it.guest.memory(ioba, 512 * blocks) == CONTENTS[512 : 512 * (blocks + 1)]
        assert it.guest.memory(ioba - 3, 3) + it.guest.memory(ioba + 512 * blocks, 3) in (UNTOUCHED * 6, bytes(3) + UNTOUCHED * 3)

    run(test())


@pytest.mark.parametrize(
    ("entries", "inline", "count"),
    [
        (1, 1, 1),
        (10, 10, 10),  # Linux, up to 10 segments.
        (11, 10, 10),  # Linux with more: the first 10 are in the command, too.
        (128, 10, 10),
        (8, 0, 0),  # FreeBSD says nothing of what it has there.
        (8, 8, 0),
        (300, 0, 0),  # A table of more than one page.
        (2048, 0, 0),
    ],
)
@pytest.mark.parametrize("writing", [False, True])
def test_a_table_of_descriptors(entries: int, inline: int, count: int, writing: bool) -> None:
    async def test() -> None:
        it = await parts()
        buffers = scattered(entries)
        table = TABLE_AT + PAGE - 24  # Its second entry is on two pages.
        it.guest.put(table, descriptors(buffers))
        data = Data.table(table, buffers, inline, count)
        if writing:
            for number, (ioba, length) in enumerate(buffers):
                it.guest.put(ioba, number.to_bytes(4, "big") * (length // 4))
            response = await it.guest.run(write_10(5, entries), out=data)
            written = b"".join(number.to_bytes(4, "big") * 128 for number in range(entries))
            assert bytes(it.disk.data) == CONTENTS[:2560] + written[: 512 * entries] + CONTENTS[512 * (5 + entries) :]
        else:
            response = await it.guest.run(read_10(5, entries), into=data)
            assert loaded(it.guest, buffers) == CONTENTS[2560 : 2560 + 512 * entries]
        assert (response.status, response.flags) == (0, 0)

    run(test())


def test_a_table_in_the_request_itself_is_where_linux_says() -> None:
    async def test() -> None:
        it = await parts()
        buffers = scattered(3)
        data = Data.table(IU_AT + 68, buffers, 3)
        assert (await it.guest.run(read_10(0, 3), into=data)).status == 0
        assert loaded(it.guest, buffers) == CONTENTS[:1536]
        # FreeBSD's counts are 0: the entries are found all the same.
        it.guest.put(DATA_AT, UNTOUCHED * MIB)
        assert (await it.guest.run(read_10(0, 3), into=Data.table(IU_AT + 68, buffers, 3, 0))).status == 0
        assert loaded(it.guest, buffers) == CONTENTS[:1536]

    run(test())


def test_descriptors_stand_behind_a_long_cdb() -> None:
    async def test() -> None:
        it = await parts()
        cdb = bytes.fromhex("28 00 00000000 00 0001 00").ljust(16, b"\0")
        for more in (4, 16):
            tag = new_tag()
            raw = command(cdb, LUN_0, tag, into=Data.direct(DATA_AT, 512), more_cdb=bytes(more))
            _, answer = await it.guest.ask(raw)
            assert Response(answer).status == 0
            assert it.guest.memory(DATA_AT, 512) == CONTENTS[:512]
            it.guest.put(DATA_AT, UNTOUCHED * 512)
            # The two low bits of that length are for others.
            _, answer = await it.guest.ask(raw[:31] + bytes((more | 3,)) + raw[32:])
            assert Response(answer).status == 0
            assert it.guest.memory(DATA_AT, 512) == CONTENTS[:512]

    run(test())


def test_descriptors_of_data_out_come_first() -> None:
    async def test() -> None:
        it = await parts()
        it.guest.put(DATA_AT, b"\x42" * 512)
        spare = scattered(2)
        into = Data.direct(DATA_AT + MIB, 512)
        response = await it.guest.run(write_10(0, 1), out=Data.direct(DATA_AT, 512), into=into)
        assert response.status == 0
        assert bytes(it.disk.data[:512]) == b"\x42" * 512
        it.guest.put(TABLE_AT, descriptors(spare))
        out = Data.table(TABLE_AT, spare, 1)
        response = await it.guest.run(read_10(0, 1), out=out, into=into)
        assert (response.status, it.guest.memory(DATA_AT + MIB, 512)) == (0, b"\x42" * 512)

    run(test())


# Residuals.


def test_room_that_is_not_filled_is_a_residual_that_linux_sees() -> None:
    async def test() -> None:
        it = await parts()
        response = await it.guest.run(read_10(0, 1), into=Data.direct(DATA_AT, 2048))
        assert (response.status, response.flags, response.residual) == (0, 0x10, 1536)
        assert it.guest.memory(DATA_AT, 2048) == CONTENTS[:512] + UNTOUCHED * 1536
        response = await it.guest.run("12 00 00 00ff 00", into=Data.direct(DATA_AT, 255))
        assert response.residual == 255 - (it.guest.memory(DATA_AT, 5)[4] + 5)
        response = await it.guest.run(write_10(0, 1), out=Data.direct(DATA_AT, 2048))
        assert (response.status, response.flags, response.residual) == (0, 0x4, 1536)

    run(test())


def test_what_has_no_room_is_not_stored() -> None:
    async def test() -> None:
        it = await parts()
        await it.guest.run("12 00 00 00ff 00", into=Data.direct(DATA_AT, 8))
        assert it.guest.memory(DATA_AT + 8, 100) == UNTOUCHED * 100
        response = await it.guest.run("12 00 00 00ff 00")
        assert (response.status, response.residual) == (0, 0)

    run(test())


@pytest.mark.parametrize(
    "data", [NO_DATA, Data.direct(DATA_AT, 0), Data.direct(MISSING, 0), Data.table(TABLE_AT, [(MISSING, 0)], 1)]
)
def test_no_data_and_descriptors_of_none_are_the_same(data: Data) -> None:
    async def test() -> None:
        it = await parts()
        for cdb in ("00 0000000000", read_10(0, 0), "35 00 00000000 00 0000 00"):
            response = await it.guest.run(cdb, into=data)
            assert (response.status, response.flags) == (0, 0)
            response = await it.guest.run(cdb, out=data)
            assert (response.status, response.flags) == (0, 0)

    run(test())


# Errors.


def test_sense_stands_where_guests_look_for_it() -> None:
    async def test() -> None:
        it = await parts()
        tag = new_tag()
        told, answer = await it.guest.ask(command(bytes.fromhex(read_10(4096, 1)), LUN_0, tag, into=Data.direct(DATA_AT, 512)))
        response = Response(answer)
        assert (response.status, response.flags & 3, response.sense) == (2, 2, (5, 0x21, 0))
        length = int.from_bytes(answer[28:32], "big")
        assert length >= 18
        assert answer[32:36] == bytes(4), "no response data, which would stand before it"
        assert answer[36] & 0x7F == 0x70
        assert told.fields["length"] == 36 + length
        assert it.guest.memory(DATA_AT, 512) == UNTOUCHED * 512

    run(test())


@pytest.mark.parametrize(
    "data",
    [
        Data(INDIRECT, 0, descriptor(TABLE_AT, 0) + bytes(4)),
        Data(INDIRECT, 0, descriptor(TABLE_AT, 15) + bytes(4)),
        Data(INDIRECT, 0, descriptor(TABLE_AT, 16 * 2049) + bytes(4)),
        Data(INDIRECT, 0, descriptor(TABLE_AT, 0xFFFFFFFF) + bytes(4)),
        Data(INDIRECT, 0, descriptor(MISSING, 16) + bytes(4)),
        Data(INDIRECT, 0, descriptor((1 << 64) - 8, 16) + bytes(4)),
        Data(INDIRECT, 255, descriptor(MISSING, 16) + bytes(4)),
        Data(3, 0, descriptor(DATA_AT, 512)),
        Data(15, 0, descriptor(DATA_AT, 512)),
        Data.direct(DATA_AT, 0xFFFFFFFF),
        Data.direct(DATA_AT, 2 * MIB + 1),
        Data.table(TABLE_AT, [(DATA_AT, 0xFFFFFFFF)] * 8, 8),
    ],
)
@pytest.mark.parametrize("writing", [False, True])
def test_descriptors_that_make_no_sense(data: Data, writing: bool) -> None:
    async def test() -> None:
        it = await parts()
        response = await it.guest.run(
            write_10(0, 1) if writing else read_10(0, 1), out=data if writing else NO_DATA, into=NO_DATA if writing else data
        )
        assert response.sense == (5, 0x24, 0)
        assert bytes(it.disk.data) == CONTENTS
        assert it.guest.memory(DATA_AT, 2 * MIB) == UNTOUCHED * (2 * MIB)

    run(test())


@pytest.mark.parametrize("room", [48, 56, 63])
def test_descriptors_that_are_cut_off(room: int) -> None:
    async def test() -> None:
        it = await parts()
        cdb = bytes.fromhex(read_10(0, 1)).ljust(16, b"\0")
        for data in (Data.direct(DATA_AT, 512), Data.table(TABLE_AT, scattered(1), 1)):
            _, answer = await it.guest.ask(command(cdb, LUN_0, new_tag(), into=data), length=room)
            assert Response(answer).sense == (5, 0x24, 0)
        assert it.guest.memory(DATA_AT, MIB) == UNTOUCHED * MIB

    run(test())


@pytest.mark.parametrize("place", [MISSING, 0x1000_0000 - 256, 0x1000_0000, (1 << 64) - 512, (1 << 64) - 1, HOLE - 256])
@pytest.mark.parametrize("writing", [False, True])
def test_memory_that_is_not_mapped_is_an_error_of_the_transfer(place: int, writing: bool) -> None:
    async def test() -> None:
        it = await parts()
        it.guest.tces[HOLE // PAGE] = 0
        good = (DATA_AT, 512)
        for buffers in ([(place, 512)], [good, (place, 512)], [(place, 512), good]):
            it.guest.put(TABLE_AT, descriptors(buffers))
            data = Data.table(TABLE_AT, buffers, 0)
            cdb = (write_10 if writing else read_10)(0, len(buffers))
            response = await it.guest.run(cdb, out=data if writing else NO_DATA, into=NO_DATA if writing else data)
            assert response.sense[0] == 4
        assert bytes(it.disk.data) == CONTENTS
        assert it.guest.memory(DATA_AT, MIB) == UNTOUCHED * MIB

    run(test())


def test_the_direction_of_a_mapping_is_kept_to() -> None:
    async def test() -> None:
        it = await parts()
        it.guest.map(DATA_AT // PAGE, 1, READ)
        assert (await it.guest.run(read_10(0, 1), into=Data.direct(DATA_AT, 512))).sense[0] == 4
        assert it.guest.memory(DATA_AT, 512) == UNTOUCHED * 512
        assert (await it.guest.run(write_10(0, 1), out=Data.direct(DATA_AT, 512))).status == 0
        it.guest.map(DATA_AT // PAGE, 1, 2)
        assert (await it.guest.run(write_10(0, 1), out=Data.direct(DATA_AT, 512))).sense[0] == 4
        assert (await it.guest.run(read_10(1, 1), into=Data.direct(DATA_AT, 512))).status == 0

    run(test())


def test_with_a_bypass_addresses_are_those_of_memory() -> None:
    async def test() -> None:
        it = await parts()
        it.guest.tces.bypass = True
        it.guest.vm.ram.data[IU_AT : IU_AT + 256] = command(
            bytes.fromhex(read_10(0, 1)), LUN_0, new_tag(), into=Data.direct(0x1_0008, 512)
        ).ljust(256, b"\0")
        told = await it.guest.queue(bytes.fromhex("8001 0000 0000 0100") + IU_AT.to_bytes(8, "big"))
        assert told.fields["status"] == 0
        assert it.guest.vm.ram.data[0x1_0008 : 0x1_0008 + 512] == CONTENTS[:512]

    run(test())


ROOM = MIB // 2
SIZES = st.lists(st.integers(0, 9000), max_size=24)


@settings(max_examples=examples(60))
@given(SIZES, st.integers(0, 40), st.integers(0, 24), st.sampled_from([0, 1, 7, PAGE - 24]), st.booleans(), st.integers(0, 2**32))
def test_any_table_moves_what_a_copy_would(
    sizes: list[int], blocks: int, inline: int, shift: int, writing: bool, seed: int
) -> None:
    """A model that knows nothing of descriptors: bytes are copied one after the other."""

    source = random.Random(seed)

    async def test() -> None:
        it = await parts()
        at = DATA_AT
        buffers = []
        for size in sizes or [0]:
            at += source.choice((0, 1, 100, PAGE))
            buffers.append((at, size))
            at += size
        shown = min(inline, len(buffers), 8)
        table = TABLE_AT + shift
        it.guest.put(table, descriptors(buffers))
        data = Data.table(table, buffers, shown, source.choice((0, shown)))
        room = sum(sizes)
        before = it.guest.memory(DATA_AT, ROOM)
        if writing:
            it.guest.put(DATA_AT, before := source.randbytes(ROOM))
            response = await it.guest.run(write_10(3, blocks), out=data)
        else:
            response = await it.guest.run(read_10(3, blocks), into=data)
        memory = bytearray(before)
        contents = bytearray(CONTENTS)
        places = list(itertools.chain.from_iterable(range(ioba, ioba + size) for ioba, size in buffers))
        moved = min(room, 512 * blocks)
        if writing:
            moved -= moved % 512  # A block is written as a whole or not at all.
        for number, place in enumerate(places[:moved]):
            if writing:
                contents[1536 + number] = memory[place - DATA_AT]
            else:
                memory[place - DATA_AT] = contents[1536 + number]
        assert (response.status, response.residual) == (0, room - moved)
        assert bytes(it.disk.data) == bytes(contents)
        assert it.guest.memory(DATA_AT, ROOM) == bytes(memory)

    run(test())
