# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's accesses through a mapped window: short ones are looked up in one step, with the same result as any other."""

from __future__ import annotations

import asyncio
import mmap
import random

import pytest

from splitvisor.declarations.dma import PAGE_BYTES, DmaError, Piece
from splitvisor.trap.dma import MappedDma
from splitvisor.trap.tce_file import FILE_BYTES, TCE_READ, TCE_WRITE, TceTables, TceWindow

UNIT = 0x7100_0002
PAGES = 8
RAM_BYTES = 6 * PAGE_BYTES
"""Not all of the pages that TCEs name."""


class Machine:
    """RAM, a window, and what was told of as written."""

    def __init__(self) -> None:
        self.ram = mmap.mmap(-1, RAM_BYTES)
        tables = TceTables(mmap.mmap(-1, FILE_BYTES))
        tces = tables.add(UNIT, PAGES)
        assert tces is not None
        self.tces: TceWindow = tces
        self.written: list[tuple[int, int]] = []
        self.window = MappedDma(self.ram, tables, UNIT, lambda *told: self.written.append(told), self._may_write)

    async def _may_write(self) -> None:
        return None


@pytest.fixture
def machine() -> Machine:
    return Machine()


def ranges(machine: Machine, ioba: int, length: int, permission: int) -> list[tuple[int, int]] | None:
    """What the way for all ranges finds."""
    try:
        return machine.tces.ranges((Piece(ioba, length),), permission, RAM_BYTES)
    except DmaError:
        return None


def test_one_page_is_as_any_range(machine: Machine) -> None:
    source = random.Random(5)
    for _ in range(3000):
        for page in range(PAGES):
            machine.tces[page] = source.randrange(7) * PAGE_BYTES | source.randrange(4)
        machine.tces.bypass = source.random() < 0.1
        ioba = source.choice((source.randrange(-PAGE_BYTES, 10 * PAGE_BYTES), source.randrange(PAGES) * PAGE_BYTES))
        length = source.choice((0, 1, 16, PAGE_BYTES, source.randrange(2 * PAGE_BYTES), -1))
        permission = source.choice((TCE_READ, TCE_WRITE, TCE_READ | TCE_WRITE))
        address = machine.tces.in_one_page(ioba, length, permission, RAM_BYTES)
        found = ranges(machine, ioba, length, permission)
        if address >= 0:
            assert found == [(address, length)]
        else:
            is_one = found is not None and length > 0 and ioba % PAGE_BYTES + length <= PAGE_BYTES
            assert not is_one or machine.tces.bypass


@pytest.mark.parametrize(("ioba", "length"), [(0x10, 0x20), (PAGE_BYTES - 8, 16)])
def test_memory_is_read_and_written_and_told_of(machine: Machine, ioba: int, length: int) -> None:
    machine.tces[0], machine.tces[1] = 4 * PAGE_BYTES | TCE_READ | TCE_WRITE, 2 * PAGE_BYTES | TCE_READ | TCE_WRITE
    data = random.Random(6).randbytes(length)
    asyncio.run(machine.window.write(ioba, data))
    found = ranges(machine, ioba, length, TCE_WRITE)
    assert found is not None
    assert machine.written == found
    assert b"".join(machine.ram[address : address + size] for address, size in found) == data
    assert asyncio.run(machine.window.read(ioba, length)) == data


@pytest.mark.parametrize("tce", [0, 4 * PAGE_BYTES | TCE_READ, 6 * PAGE_BYTES | TCE_READ | TCE_WRITE])
def test_what_is_not_granted_or_no_ram_is_not_written(machine: Machine, tce: int) -> None:
    machine.tces[0] = tce
    before = bytes(machine.ram)
    with pytest.raises(DmaError):
        asyncio.run(machine.window.write(0x10, b"data"))
    if not tce & TCE_READ or tce & TCE_WRITE:
        with pytest.raises(DmaError):
            asyncio.run(machine.window.read(0x10, 4))
    assert (bytes(machine.ram), machine.written) == (before, [])


def test_a_commit_tells_of_no_more_than_was_stored(machine: Machine) -> None:
    machine.tces[0], machine.tces[1] = 4 * PAGE_BYTES | TCE_WRITE, 2 * PAGE_BYTES | TCE_WRITE

    async def store(ioba: int, length: int, stored: int) -> None:
        scatter = await machine.window.scatter((Piece(ioba, length),))
        assert scatter.buffers.length == length
        await scatter.commit(stored)

    asyncio.run(store(0, 2 * PAGE_BYTES, PAGE_BYTES + 5))
    asyncio.run(store(0x20, 0x40, 7))
    asyncio.run(store(0x20, 0x40, 0))
    assert machine.written == [(4 * PAGE_BYTES, PAGE_BYTES), (2 * PAGE_BYTES, 5), (4 * PAGE_BYTES + 0x20, 7)]


def test_ranges_of_several_pieces_are_those_of_their_pages_with_adjacent_ones_merged(machine: Machine) -> None:
    source = random.Random(7)
    for _ in range(500):
        for page in range(PAGES):
            machine.tces[page] = source.randrange(6) * PAGE_BYTES | TCE_READ
        pieces = []
        for _ in range(source.randrange(6)):
            ioba = source.randrange(PAGES * PAGE_BYTES)
            pieces.append(Piece(ioba, source.randrange(min(3 * PAGE_BYTES, PAGES * PAGE_BYTES - ioba) + 1)))
        expected: list[tuple[int, int]] = []
        for piece in pieces:
            at = piece.ioba
            while at < piece.ioba + piece.length:
                size = min(PAGE_BYTES - at % PAGE_BYTES, piece.ioba + piece.length - at)
                start = machine.tces[at // PAGE_BYTES] - TCE_READ + at % PAGE_BYTES
                if expected and sum(expected[-1]) == start:
                    expected[-1] = (expected[-1][0], expected[-1][1] + size)
                else:
                    expected.append((start, size))
                at += size
        assert machine.tces.ranges(pieces, TCE_READ, RAM_BYTES) == expected
