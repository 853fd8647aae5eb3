# SPDX-License-Identifier: GPL-2.0-or-later
"""A SCSI disk: what it reads, writes and refuses, and what it says about itself."""

from __future__ import annotations

import errno

import pytest

from splitvisor.block.buffers import Buffers
from splitvisor.scsi.codes import Status
from splitvisor.scsi.disk import BlockSizeError, Disk
from splitvisor.scsi.unit import Identity, SerialError
from tests.memory_disk import MemoryDisk
from tests.scsi_host import Host, run, target_of

MIB = 1 << 20
ILLEGAL, INVALID_CDB, OUT_OF_RANGE = 5, (5, 0x24, 0), (5, 0x21, 0)


class Bench:
    """A disk and an initiator."""

    def __init__(self, device: MemoryDisk | None = None, block_bytes: int = 512) -> None:
        self.device = device or MemoryDisk(MIB)
        self.disk = Disk(self.device, Identity("serial-1"), block_bytes)
        self.target = target_of(self.disk)

    async def ready(self, name: str = "host") -> Host:
        return await Host(self.target, name).ready()


def bench(block_bytes: int = 512, **options: bool) -> Bench:
    return Bench(MemoryDisk(MIB, **options), block_bytes)


@pytest.mark.parametrize("block_bytes", [512, 4096])
@pytest.mark.parametrize(
    ("write", "read"),
    [
        ("0a 00 00 05 02 00", "08 00 00 05 02 00"),
        ("2a 00 00 00 00 05 00 00 02 00", "28 00 00 00 00 05 00 00 02 00"),
        ("aa 00 00 00 00 05 00 00 00 02 00 00", "a8 00 00 00 00 05 00 00 00 02 00 00"),
        ("8a 00 00 00 00 00 00 00 00 05 00 00 00 02 00 00", "88 00 00 00 00 00 00 00 00 05 00 00 00 02 00 00"),
    ],
)
def test_what_is_written_is_read(write: str, read: str, block_bytes: int) -> None:
    async def main() -> None:
        made = bench(block_bytes)
        host = await made.ready()
        data = bytes(range(256)) * (block_bytes // 128)
        answer = await host.send(write, [data[:100], data[100:101], data[101:]])
        assert (answer.good, answer.end.moved_out, answer.end.wanted_out) == (True, len(data), len(data))
        assert made.device.data[5 * block_bytes : 7 * block_bytes] == data
        answer = await host.send(read, room=len(data))
        assert (answer.data, answer.end.wanted_in) == (data, len(data))

    run(main())


def test_six_bytes_of_cdb_with_no_blocks_are_256() -> None:
    async def main() -> None:
        host = await bench().ready()
        assert (await host.send("08 00 00 00 00 00", room=1 << 18)).end.moved_in == 256 * 512

    run(main())


def test_less_room_than_data_is_filled_to_the_last_byte_and_the_rest_is_known() -> None:
    async def main() -> None:
        made = bench()
        made.device.data[:2048] = bytes(range(256)) * 8
        host = await made.ready()
        answer = await host.send("28 00 00 00 00 00 00 00 04 00", room=700)
        assert answer.data == bytes(made.device.data[:700])
        assert (answer.end.moved_in, answer.end.wanted_in) == (700, 2048)

    run(main())


def test_more_room_than_data_stays_as_it_is() -> None:
    async def main() -> None:
        host = await bench().ready()
        answer = await host.send("28 00 00 00 00 00 00 00 01 00", room=2000)
        assert (answer.end.moved_in, answer.end.wanted_in) == (512, 512)

    run(main())


def test_less_data_than_announced_writes_whole_blocks_of_it() -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        answer = await host.send("2a 00 00 00 00 00 00 00 04 00", b"x" * 700)
        assert (answer.good, answer.end.moved_out, answer.end.wanted_out) == (True, 512, 2048)
        assert made.device.data[510:514] == b"xx\0\0"

    run(main())


@pytest.mark.parametrize(
    "cdb",
    [
        "28 00 00 00 08 00 00 00 01 00",
        "28 00 00 00 07 ff 00 00 02 00",
        "2a 00 ff ff ff ff 00 00 01 00",
        "88 00 ff ff ff ff ff ff ff ff 00 00 00 01 00 00",
        "35 00 00 00 07 ff 00 00 02 00",
        "2f 00 00 00 08 00 00 00 01 00",
        "93 00 00 00 00 00 00 00 07 ff 00 00 00 02 00 00",
        "89 00 00 00 00 00 00 00 08 00 00 00 00 01 00 00",
        "34 00 00 00 08 00 00 00 01 00",
    ],
)
def test_blocks_behind_the_end_are_out_of_range(cdb: str) -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        assert (await host.send(cdb, b"y" * 1024, room=1024)).sense == OUT_OF_RANGE
        assert not any(made.device.data)

    run(main())


@pytest.mark.parametrize(
    ("cdb", "byte", "bit"),
    [
        ("28 20 00 00 00 00 00 00 01 00", 1, 5),  # RDPROTECT
        ("2a e0 00 00 00 00 00 00 01 00", 1, 7),
        ("28 00 00 00 00 00 00 00 01 04", 9, 2),  # NACA
        ("41 10 00 00 00 00 00 00 01 00", 1, 4),  # ANCHOR
        ("93 10 00 00 00 00 00 00 00 00 00 00 00 01 00 00", 1, 4),
        ("00 00 00 01 00 00", 3, 0),
        ("15 11 00 00 00 00", 1, 0),  # Save pages.
    ],
)
def test_what_is_not_supported_is_refused_with_the_bit_that_is_wrong(cdb: str, byte: int, bit: int) -> None:
    async def main() -> None:
        host = await bench().ready()
        answer = await host.send(cdb, b"y" * 512, room=512)
        assert answer.sense == INVALID_CDB
        assert answer.end.sense[15:18] == bytes((0xC8 | bit, 0, byte))

    run(main())


@pytest.mark.parametrize("opcode", [0x01, 0x04, 0x3B, 0x3C, 0x37, 0x85, 0xA1, 0x83, 0xFF, 0x60, 0x7F])
def test_unknown_operations_are_invalid(opcode: int) -> None:
    async def main() -> None:
        host = await bench().ready()
        assert (await host.send(bytes((opcode,)) + bytes(31), room=512)).sense == (5, 0x20, 0)

    run(main())


@pytest.mark.parametrize(
    ("error", "read", "write"),
    [
        (errno.EIO, (3, 0x11, 0), (3, 0x0C, 0)),
        (errno.ENOSPC, (7, 0x27, 7), (7, 0x27, 7)),
        (errno.EROFS, (7, 0x27, 0), (7, 0x27, 0)),
    ],
)
def test_errors_of_the_host_are_sense(error: int, read: tuple[int, int, int], write: tuple[int, int, int]) -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        made.device.error = error
        for cdb in ("28 00 00 00 00 00 00 00 01 00", "2f 00 00 00 00 00 00 00 01 00"):
            answer = await host.send(cdb, room=512)
            assert (answer.sense, answer.end.moved_in) == (read, 0)
        for cdb in ("2a 00 00 00 00 00 00 00 01 00", "35 00 00 00 00 00 00 00 00 00", "41 00 00 00 00 00 00 00 01 00"):
            assert (await host.send(cdb, bytes(512))).sense == write

    run(main())


def test_a_device_that_is_handed_over_is_busy() -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        await made.device.hand_over()
        for cdb, data in (("28 00 00 00 00 00 00 00 01 00", b""), ("2a 00 00 00 00 00 00 00 01 00", bytes(512))):
            answer = await host.send(cdb, data, room=512)
            assert (answer.end.status, answer.end.moved_in, answer.end.sense) == (Status.BUSY, 0, b"")
        await made.device.take_back(1)
        assert (await host.send("28 00 00 00 00 00 00 00 01 00", room=512)).good

    run(main())


def test_fua_and_a_cache_that_is_off_make_writes_durable() -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        write = "2a 00 00 00 00 00 00 00 01 00"
        await host.send(write, bytes(512))
        assert made.device.forced == 0
        await host.send(write.replace("2a 00", "2a 08"), bytes(512))
        assert made.device.forced == 1
        off = bytes((0, 0, 0, 0, 8, 18)) + bytes(18)
        assert (await host.send("15 10 00 00 18 00", off)).good
        await host.send(write, bytes(512))
        assert made.device.forced == 2
        await host.send("41 00 00 00 00 00 00 00 01 00", bytes(512))
        assert made.device.flushes == 1

    run(main())


def test_a_disk_is_write_protected_by_the_host_and_by_the_guest() -> None:
    async def main() -> None:
        writes = [
            ("2a 00 00 00 00 00 00 00 01 00", 512),
            ("0a 00 00 00 01 00", 512),
            ("2e 00 00 00 00 00 00 00 01 00", 512),
            ("41 00 00 00 00 00 00 00 01 00", 512),
            ("89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", 1024),
            ("8b 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", 512),
            ("42 00 00 00 00 00 00 00 08 00", 8),
        ]
        for made in (bench(read_only=True), bench()):
            host = await made.ready()
            if not made.device.read_only:
                page = bytes((0, 0, 0, 0, 0x0A, 10, 0, 0, 8, 0, 0, 0, 0xFF, 0xFF, 0, 0))
                assert (await host.send("15 10 00 00 10 00", page)).good
            assert (await host.send("1a 08 3f 00 ff 00", room=255)).data[2] == 0x90
            for cdb, length in writes:
                assert (await host.send(cdb, bytes(length))).sense == (7, 0x27, 0), cdb

    run(main())


def test_verify_compares_and_finds_the_first_difference() -> None:
    async def main() -> None:
        made = bench()
        made.device.data[512:1536] = b"ab" * 512
        host = await made.ready()
        assert (await host.send("2f 02 00 00 00 01 00 00 02 00", b"ab" * 512)).good
        assert (await host.send("2f 06 00 00 00 01 00 00 02 00", b"ab" * 256)).good
        wrong = bytearray(b"ab" * 512)
        wrong[777] = 0
        answer = await host.send("2f 02 00 00 00 01 00 00 02 00", bytes(wrong))
        assert (answer.sense, answer.end.sense[0], answer.end.sense[3:7]) == ((0xE, 0x1D, 0), 0xF0, (777).to_bytes(4, "big"))
        assert (await host.send("2f 04 00 00 00 01 00 00 02 00", bytes(1024))).sense == INVALID_CDB

    run(main())


def test_compare_and_write_writes_only_what_compares() -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        cdb = "89 00 00 00 00 00 00 00 00 03 00 00 00 01 00 00"
        assert (await host.send(cdb, bytes(512) + b"n" * 512)).good
        assert made.device.data[1536:2048] == b"n" * 512
        answer = await host.send(cdb, b"n" * 500 + b"o" * 12 + b"p" * 512)
        assert (answer.sense, answer.end.sense[3:7]) == ((0xE, 0x1D, 0), (500).to_bytes(4, "big"))
        assert made.device.data[1536:2048] == b"n" * 512
        assert (await host.send(cdb, bytes(512))).sense == INVALID_CDB
        assert (await host.send(cdb, bytes(2048))).sense == INVALID_CDB

    run(main())


def test_orwrite_sets_bits() -> None:
    async def main() -> None:
        made = bench()
        made.device.data[:512] = b"\x0f\xf0" * 256
        host = await made.ready()
        answer = await host.send("8b 08 00 00 00 00 00 00 00 00 00 00 00 02 00 00", b"\x30\x03" * 512)
        assert (answer.good, answer.end.moved_out) == (True, 1024)
        assert made.device.data[:1024] == b"\x3f\xf3" * 256 + b"\x30\x03" * 256
        assert made.device.forced == 1
        many = MIB // 512
        assert (await host.send(f"8b 00 00 00 00 00 00 00 00 00 {many:08x} 00 00", b"\xff" * MIB)).good
        assert made.device.data == b"\xff" * MIB

    run(main())


def test_write_and_verify_is_durable_and_looks_at_what_it_has_written() -> None:
    class Forgetful(MemoryDisk):
        """A disk whose writes are lost."""

        async def write(self, offset: int, data: Buffers, fua: bool = False) -> None:
            self.forced += fua

    async def main() -> None:
        for made, sense in ((bench(), None), (Bench(Forgetful(MIB)), (0xE, 0x1D, 0))):
            host = await made.ready()
            answer = await host.send("2e 02 00 00 00 01 00 00 02 00", b"v" * 1024)
            assert answer.good if sense is None else answer.sense == sense
            assert made.device.forced == 1
            assert (await host.send("8e 00 00 00 00 00 00 00 00 01 00 00 00 02 00 00", b"v" * 1024)).good
            assert (await host.send("ae 06 00 00 00 01 00 00 00 02 00 00", b"v" * 1024)).sense == INVALID_CDB

    run(main())


def test_unmap_zeroes_and_gives_room_back() -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        assert (await host.send("2a 00 00 00 00 00 00 00 20 00", b"u" * 16384)).good
        ranges = (8).to_bytes(8, "big") + (8).to_bytes(4, "big") + bytes(4) + bytes(16)
        listed = (len(ranges) + 6).to_bytes(2, "big") + len(ranges).to_bytes(2, "big") + bytes(4) + ranges
        assert (await host.send(f"42 00 00 00 00 00 00 {len(listed):04x} 00", listed)).good
        assert made.device.data[:16384] == b"u" * 4096 + bytes(4096) + b"u" * 8192
        status = (await host.send("9e 12 00 00 00 00 00 00 00 00 00 00 00 38 00 00", room=56)).data
        runs = [(int.from_bytes(status[at : at + 8], "big"), int.from_bytes(status[at + 8 : at + 12], "big"), status[at + 12])
                for at in range(8, len(status), 16)]  # fmt: skip
        assert runs == [(0, 8, 0), (8, 8, 1), (16, 16, 0)]

    run(main())


@pytest.mark.parametrize(
    ("listed", "sense"),
    [
        (b"\0" * 4, (5, 0x1A, 0)),
        (bytes.fromhex("0016 0010 00000000 0000000000000800 00000001 00000000"), OUT_OF_RANGE),
        (bytes.fromhex("0016 0010 00000000 ffffffffffffffff ffffffff 00000000"), OUT_OF_RANGE),
    ],
)
def test_an_unmap_list_is_checked_before_anything_is_unmapped(listed: bytes, sense: tuple[int, int, int]) -> None:
    async def main() -> None:
        host = await bench().ready()
        assert (await host.send(f"42 00 00 00 00 00 00 {len(listed):04x} 00", listed)).sense == sense
        assert (await host.send("42 00 00 00 00 00 00 ff ff 00", listed)).sense == INVALID_CDB
        assert (await host.send("42 00 00 00 00 00 00 00 08 00", b"")).sense == (5, 0x1A, 0)

    run(main())


def test_a_device_that_keeps_its_room_has_no_unmap() -> None:
    async def main() -> None:
        host = await bench(can_discard=False).ready()
        assert (await host.send("42 00 00 00 00 00 00 00 08 00", bytes(8))).sense == (5, 0x20, 0)
        assert (await host.send("93 08 00 00 00 00 00 00 00 00 00 00 00 01 00 00", bytes(512))).sense == INVALID_CDB
        assert (await host.send("9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", room=32)).data[14] == 0
        assert (await host.send("a3 0c 01 42 00 00 00 00 02 00 00 00", room=512)).data[1] == 1

    run(main())


@pytest.mark.parametrize("pattern", [b"\0", b"s"])
def test_write_same_fills_blocks(pattern: bytes) -> None:
    async def main() -> None:
        made = bench()
        made.device.data[:] = b"!" * MIB
        host = await made.ready()
        assert (await host.send("93 08 00 00 00 00 00 00 00 10 00 00 04 00 00 00", pattern * 512)).good
        assert made.device.data == b"!" * 8192 + pattern * (1024 * 512) + b"!" * (MIB - 8192 - 1024 * 512)
        assert (await host.send("93 09 00 00 00 00 00 00 00 00 00 00 00 10 00 00")).good
        assert made.device.data[:8193] == bytes(8192) + pattern
        assert (await host.send("93 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", pattern * 512)).sense == INVALID_CDB

    run(main())


def test_mode_pages_are_sensed_selected_and_reset() -> None:
    async def main() -> None:
        made = bench()
        host, other = await made.ready(), await made.ready("other")
        assert (await host.send("1a 08 08 00 ff 00", room=255)).data == bytes((23, 0, 0x10, 0, 8, 18, 4)) + bytes(17)
        assert (await host.send("1a 08 48 00 ff 00", room=255)).data[6] == 4, "WCE may be changed"
        off = bytes((0, 0, 0, 0, 8, 18)) + bytes(18)
        assert (await host.send("15 10 00 00 18 00", off)).good
        assert (await host.send("1a 08 08 00 ff 00", room=255)).data[6] == 0
        assert (await host.send("1a 08 88 00 ff 00", room=255)).data[6] == 4, "the default"
        assert (await host.send("1a 08 c8 00 ff 00", room=255)).sense == (5, 0x39, 0)
        assert (await other.send("00 00 00 00 00 00")).sense == (6, 0x2A, 1)
        for at, value in ((7, 1), (4, 9), (5, 17)):
            wrong = bytearray(off)
            wrong[at] = value
            answer = await host.send("15 10 00 00 18 00", bytes(wrong))
            assert (answer.sense, answer.end.sense[15:18]) == ((5, 0x26, 0), bytes((0x80, 0, at)))
        assert (await host.send("15 10 00 00 08 00", off[:8])).sense == (5, 0x1A, 0)
        assert (await host.send("15 00 00 00 18 00", off)).sense == INVALID_CDB

    run(main())


def test_mode_parameters_have_the_blocks_with_them() -> None:
    async def main() -> None:
        host = await bench().ready()
        short = bytes.fromhex("00000800 00000200")
        long = bytes.fromhex("0000000000000800 00000000 00000200")
        page = bytes((0x0A, 10, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0))
        assert (await host.send("1a 00 0a 00 ff 00", room=255)).data == bytes((23, 0, 0x10, 8)) + short + page
        assert (await host.send("5a 00 0a 00 00 00 00 00 ff 00", room=255)).data == bytes(
            (0, 26, 0, 0x10, 0, 0, 0, 8)
        ) + short + page
        ten = (await host.send("5a 10 0a 00 00 00 00 00 ff 00", room=255)).data
        assert ten == bytes((0, 34, 0, 0x10, 1, 0, 0, 16)) + long + page
        all_pages = (await host.send("5a 08 3f ff 00 00 00 00 ff 00", room=255)).data
        assert [all_pages[at] for at in (8, 20, 40, 52)] == [1, 8, 0x0A, 0x1C]
        assert (await host.send("1a 00 0a 01 ff 00", room=255)).sense == INVALID_CDB
        assert (await host.send("1a 00 03 00 ff 00", room=255)).sense == INVALID_CDB
        for descriptor in (short, bytes(4) + short[4:], b"\xff" * 4 + short[4:]):
            assert (await host.send("55 10 00 00 00 00 00 00 10 00", bytes(7) + b"\x08" + descriptor)).good
        assert (await host.send("55 10 00 00 00 00 00 00 18 00", ten[:4] + ten[4:8] + long)).good
        for wrong in (short[:-2] + b"\x10\x00", b"\0\0\0\x01" + short[4:]):
            assert (await host.send("55 10 00 00 00 00 00 00 10 00", bytes(7) + b"\x08" + wrong)).sense == (5, 0x26, 0)
        assert (await host.send("55 10 00 00 00 00 00 00 08 00", bytes(7) + b"\x08")).sense == (5, 0x1A, 0)
        assert (await host.send("15 10 00 00 06 00", bytes(4) + b"\x4a\x0a")).sense == (5, 0x26, 0)
        assert (await host.send("15 10 00 00 05 00", bytes(4) + b"\x0a")).sense == (5, 0x1A, 0)

    run(main())


def test_sense_has_the_format_that_the_control_page_says() -> None:
    async def main() -> None:
        host = await bench().ready()
        page = bytes((0, 0, 0, 0, 0x0A, 10, 4, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0))
        assert (await host.send("15 10 00 00 10 00", page)).good
        answer = await host.send("28 00 00 00 08 00 00 00 01 00", room=512)
        assert answer.end.sense == bytes.fromhex("72 05 21 00 00 00 00 0c 00 0a 80 00 0000000000000800")
        answer = await host.send("28 20 00 00 00 00 00 00 01 00", room=512)
        assert answer.end.sense == bytes.fromhex("72 05 24 00 00 00 00 08 02 06 00 00 cd 00 01 00")
        assert (await host.send("03 00 00 00 ff 00", room=255)).data[0] == 0x70
        assert (await host.send("03 01 00 00 ff 00", room=255)).data == bytes.fromhex("72 00 00 00 00 00 00 00")

    run(main())


def test_a_stopped_disk_is_not_ready_until_it_is_started() -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        assert (await host.send("1b 00 00 00 00 00")).good
        assert made.device.flushes == 1
        assert (await host.send("28 00 00 00 00 00 00 00 01 00", room=512)).sense == (2, 4, 2)
        assert (await host.send("1b 00 00 00 02 00")).sense == INVALID_CDB
        assert (await host.send("1b 00 00 00 01 00")).good
        assert (await host.send("28 00 00 00 00 00 00 00 01 00", room=512)).good

    run(main())


def test_a_new_capacity_is_noticed() -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        made.device.size = 2 * MIB
        made.device.data.extend(bytes(MIB))
        made.disk.resized()
        assert (await host.send("00 00 00 00 00 00")).sense == (6, 0x2A, 9)
        assert (await host.send("25 00 00 00 00 00 00 00 00 00", room=8)).data == bytes.fromhex("00000fff 00000200")

    run(main())


def test_more_than_2_tib_need_16_bytes_of_cdb() -> None:
    async def main() -> None:
        made = bench()
        made.device.size = 3 << 40
        made.disk.resized()
        host = await made.ready()
        assert (await host.send("25 00 00 00 00 00 00 00 00 00", room=8)).data == bytes.fromhex("ffffffff 00000200")
        data = (await host.send("9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", room=32)).data
        assert data[:8] == ((3 << 31) - 1).to_bytes(8, "big")
        assert (await host.send("1a 00 0a 00 ff 00", room=255)).data[4:8] == b"\xff" * 4
        assert (await host.send("88 00 00 00 00 01 80 00 00 00 00 00 00 01 00 00", room=512)).sense == OUT_OF_RANGE

    run(main())


def test_what_older_initiators_put_into_a_cdb_is_no_error() -> None:
    async def main() -> None:
        host = await bench().ready()
        for cdb in ("00 60 00 00 00 00", "12 20 00 00 24 00", "00 00 00 00 00 c0", "28 00 00 00 00 00 00 00 01 80 ff ff"):
            assert (await host.send(cdb, room=512)).good
        assert (await host.send("28 00 00 00 00 00 00 00 01", room=512)).sense == INVALID_CDB
        assert (await host.send(b"", room=512)).sense == (5, 0x20, 0)

    run(main())


def test_supported_operations_are_those_of_the_table() -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        data = (await host.send("a3 0c 00 00 00 00 00 00 ff ff 00 00", room=65535)).data
        assert int.from_bytes(data[:4], "big") == len(data) - 4 == 8 * len(list(made.disk.table))
        one = (await host.send("a3 0c 01 28 00 00 00 00 02 00 00 00", room=512)).data
        assert one == bytes.fromhex("00 03 000a 28 18 ff ff ff ff 1f ff ff 00")
        assert (await host.send("a3 0c 02 9e 00 10 00 00 02 00 00 00", room=512)).data[:6] == bytes.fromhex("00 03 0010 9e 10")
        assert (await host.send("a3 0c 02 28 00 00 00 00 02 00 00 00", room=512)).sense == INVALID_CDB
        assert (await host.send("a3 0c 83 28 00 00 00 00 02 00 00 00", room=512)).data[14:] == bytes((0, 10)) + bytes(10)
        assert (await host.send("a3 0d 00 00 00 00 00 00 00 04 00 00", room=4)).data == bytes((0xDA, 1, 0, 0))

    run(main())


def test_log_pages_that_there_are() -> None:
    async def main() -> None:
        host = await bench().ready()
        assert (await host.send("4d 00 40 00 00 00 00 00 ff 00", room=255)).data == bytes((0, 0, 0, 2, 0, 0x2F))
        assert (await host.send("4d 00 6f 00 00 00 00 00 ff 00", room=255)).data[8:11] == bytes((0, 0, 0xFF))
        assert (await host.send("4d 00 4d 00 00 00 00 00 ff 00", room=255)).sense == INVALID_CDB

    run(main())


def test_names_are_stable_and_differ_by_serial_number() -> None:
    one, same, other = (Disk(MemoryDisk(MIB), Identity(each)) for each in ("a", "a", "b"))
    pages = [Disk.vpd_pages[0x83](each) for each in (one, same, other)]
    assert pages[0] == pages[1] != pages[2]
    assert Identity("a").name()[0] >> 4 == 3


def test_what_a_disk_cannot_be() -> None:
    with pytest.raises(BlockSizeError, match="use one of 512, 4096"):
        Disk(MemoryDisk(MIB), Identity("a"), 1024)
    device = MemoryDisk(MIB)
    device.block_bytes = 4096
    with pytest.raises(BlockSizeError, match="blocks of 512 bytes on a device with blocks of 4096"):
        Disk(device, Identity("a"))
    for serial in ("", "x" * 65, "tab\t", "ü"):
        with pytest.raises(SerialError):
            Identity(serial)


def test_an_error_of_ours_is_a_hardware_error_and_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        made = bench()
        host = await made.ready()
        made.device.data = None  # type: ignore[assignment]
        for _ in range(3):
            answer = await host.send("28 00 00 00 00 00 00 00 01 00", room=512)
            assert (answer.end.status, answer.sense) == (Status.CHECK_CONDITION, (4, 0x44, 0))

    run(main())
    assert capsys.readouterr().out.count("a SCSI command failed for a reason of our own") == 1
