# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest RAM as back ends have it: the shared file, and the copy of it that travels with calls."""

from __future__ import annotations

import asyncio
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.memory import CHUNK_BYTES, REPLY_WRITE_BYTES, MappedMemory, StreamMemory
from splitvisor.trap.ram_file import RamFile, remove_abandoned

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = 8 << 20


class Ram:
    """What cpu_service does with memory requests."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []

    async def request(self, *, read: pb.MemoryRange | None = None, write: pb.MemoryBlock | None = None) -> pb.MemoryResult:
        if read is not None:
            self.reads.append((read.address, read.length))
            return pb.MemoryResult(ok=True, data=bytes(self.data[read.address : read.address + read.length]))
        assert write is not None
        self.writes.append((write.address, len(write.data)))
        self.data[write.address : write.address + len(write.data)] = write.data
        return pb.MemoryResult(ok=True)


def test_operand_that_came_with_the_call_is_not_asked_for() -> None:
    async def scenario() -> None:
        ram = Ram()
        memory = StreamMemory(SIZE, ram.request)
        memory.begin_call([pb.MemoryBlock(address=0x1000, data=b"/chosen\0rest")])
        assert await memory.read(0x1001, 6) == b"chosen"
        assert await memory.read_string(0x1000, 64) == b"/chosen"
        assert ram.reads == []
        assert await memory.read(0x1008, 16) == bytes(16), "more than came along"
        assert ram.reads == [(0x1008, 16)]

    asyncio.run(scenario())


def test_write_goes_with_the_reply_and_is_seen_by_later_reads() -> None:
    async def scenario() -> None:
        ram = Ram()
        memory = StreamMemory(SIZE, ram.request)
        memory.begin_call([pb.MemoryBlock(address=0x1000, data=b"old" + bytes(13))])
        await memory.write(0x1000, b"new")
        await memory.write(0x2000, b"reply")
        assert ram.writes == []
        assert await memory.read(0x1000, 3) == b"new", "neither the operand nor RAM without the write"
        await memory.write(0x3000, b"last")
        reply = pb.Reply()
        memory.end_call(reply)
        assert [(block.address, block.data) for block in reply.writes] == [(0x3000, b"last")]
        assert ram.writes == [(0x1000, 3), (0x2000, 5)], "in order"

    asyncio.run(scenario())


def test_writes_of_one_call_are_bounded_in_its_reply() -> None:
    async def scenario() -> None:
        ram = Ram()
        memory = StreamMemory(SIZE, ram.request)
        memory.begin_call(())
        data = bytes(range(256)) * ((5 * CHUNK_BYTES) // 256)
        await memory.write(0x10, data)
        reply = pb.Reply()
        memory.end_call(reply)
        assert reply.ByteSize() < REPLY_WRITE_BYTES + CHUNK_BYTES
        for block in reply.writes:
            ram.data[block.address : block.address + len(block.data)] = block.data
        assert ram.data[0x10 : 0x10 + len(data)] == data
        assert max(length for _, length in ram.writes) <= CHUNK_BYTES

    asyncio.run(scenario())


def test_a_call_of_another_owner_sees_what_was_written_and_its_own_writes_are_seen() -> None:
    async def scenario() -> None:
        ram = Ram()
        memory = StreamMemory(SIZE, ram.request)
        memory.begin_call([pb.MemoryBlock(address=0x1000, data=b"older")])
        await memory.write(0x2000, b"written")
        await memory.before_invoke()
        assert ram.data[0x2000:0x2007] == b"written"
        ram.data[0x1000:0x1005] = b"newer"
        assert await memory.read(0x1000, 5) == b"newer"
        reply = pb.Reply()
        memory.end_call(reply)
        assert not reply.writes

    asyncio.run(scenario())


def test_write_outside_of_a_call_goes_at_once() -> None:
    async def scenario() -> None:
        ram = Ram()
        await StreamMemory(SIZE, ram.request).write(0x40, b"now")
        assert ram.writes == [(0x40, 3)]

    asyncio.run(scenario())


@pytest.mark.parametrize(("address", "length"), [(SIZE - 1, 2), (SIZE, 1), (-1, 1), (0, SIZE + 1), (1 << 64, 1)])
def test_range_outside_ram_is_refused_before_anybody_is_asked(address: int, length: int) -> None:
    async def scenario() -> None:
        ram = Ram()
        memory = StreamMemory(SIZE, ram.request)
        memory.begin_call(())
        with pytest.raises(GuestAddressError, match="is not in guest RAM"):
            await memory.read(address, length)
        with pytest.raises(GuestAddressError):
            await memory.write(address, bytes(length))
        assert ram.reads == ram.writes == []

    asyncio.run(scenario())


def test_string_that_does_not_end_is_refused() -> None:
    async def scenario() -> None:
        ram = Ram()
        ram.data[0x100:0x200] = b"a" * 256
        ram.data[-8:] = b"b" * 8
        memory = StreamMemory(SIZE, ram.request)
        with pytest.raises(ValueError, match="does not end within 16 bytes"):
            await memory.read_string(0x100, 16)
        with pytest.raises(GuestAddressError):
            await memory.read_string(SIZE - 8, 16)
        with pytest.raises(GuestAddressError):
            await memory.read_string(SIZE, 16)

    asyncio.run(scenario())


def test_two_mappings_of_a_ram_file_share_their_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "guest.ram"
        mine = RamFile.create(path, SIZE)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        told: list[tuple[int, int]] = []
        theirs = MappedMemory(RamFile.open(path, SIZE), lambda dirty: told.append((dirty.address, dirty.length)))
        await theirs.write(0x10, b"outside")
        theirs.begin_call(())
        await theirs.write(0x20, b"inside")
        reply = pb.Reply()
        theirs.end_call(reply)
        assert mine.map[0x10:0x17] == b"outside"
        assert mine.map[0x20:0x26] == b"inside"
        assert told == [(0x10, 7)]
        assert [(dirty.address, dirty.length) for dirty in reply.dirty] == [(0x20, 6)]
        mine.map[0x30] = 9
        assert await theirs.read(0x30, 1) == b"\x09"
        theirs.close()
        mine.close()

    asyncio.run(scenario())


def test_only_a_file_of_the_right_size_is_ram(tmp_path: Path) -> None:
    path = tmp_path / "guest.ram"
    RamFile.create(path, SIZE).close()
    with pytest.raises(OSError, match=f"has {SIZE} bytes, not {2 * SIZE}"):
        RamFile.open(path, 2 * SIZE)
    with pytest.raises(FileExistsError):
        RamFile.create(path, SIZE)
    link = tmp_path / "link.ram"
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        RamFile.open(link, SIZE)
    other = path.rename(tmp_path / "trees.sqlite")
    with pytest.raises(OSError, match="not called"):
        RamFile.open(other, SIZE)


def test_only_the_end_of_the_data_ends_the_list_of_used_parts(tmp_path: Path) -> None:
    ram = RamFile.create(tmp_path / "vm.ram", 1 << 20)
    assert list(ram.used()) == []
    ram.map[0x2000] = 1
    assert list(ram.used()) == [(0x2000, 0x3000)]
    ram.close_file()
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(ram.used())
    ram.close()


def test_a_killed_makers_ram_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    """What is abandoned is told by a lock that the mapping keeps: the maker closes its descriptor."""

    def name(vm: str) -> Path:
        return tmp_path / f"{vm}-{secrets.token_hex(16)}.ram"

    code = (
        "import sys, pathlib\n"
        "from splitvisor.trap.ram_file import RamFile\n"
        "file = RamFile.create(pathlib.Path(sys.argv[1]), 65536)\n"
        "print(file.path, flush=True)\n"
        "sys.stdin.read()\n"
    )
    maker = subprocess.Popen(
        [sys.executable, "-c", code, str(name("killed"))], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert maker.stdin is not None
    assert maker.stdout is not None
    with maker, maker.stdin:
        path = Path(maker.stdout.readline().strip())
        others = [tmp_path / "notes.ram", name("being-made")]
        for other in others:
            other.touch()
        mine = RamFile.create(name("mine"), SIZE)
        remove_abandoned(tmp_path)
        assert set(tmp_path.iterdir()) == {path, mine.path, *others}
        maker.kill()
        maker.wait(30)
        remove_abandoned(tmp_path)
        assert set(tmp_path.iterdir()) == {mine.path, *others}
        mine.close()
    remove_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == set(others)
