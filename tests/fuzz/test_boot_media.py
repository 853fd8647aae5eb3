# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks and CDs of a hostile guest: whatever is on them, a boot ends, with a bounded number of reads, and never by an exception.

Tables that sgdisk and sfdisk call valid have the partitions here that they have there.
"""

from __future__ import annotations

import asyncio
import random
import struct
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from of_client_service.boot.finder import find_boot_file
from of_client_service.volumes.files import find_file
from of_client_service.volumes.mbr import EXTENDED
from of_client_service.volumes.partitions import read_partitions
from of_client_service.volumes.source import VolumeError
from tests.amounts import examples
from tests.disk_tools import LINUX_GUID, PREP_GUID, fat_disk, iso, listed, need, partitioned, run
from tests.unit.of_drives import BytesSource, Drive, machine_with
from tests.unit.test_boot_process import boot, elf32

GPT = f"label: gpt\nsize=1MiB, type={PREP_GUID}\nsize=2MiB, type={LINUX_GUID}\nsize=1MiB, type={PREP_GUID}\n"
MBR = "label: dos\nsize=1MiB, type=41\nsize=1MiB, type=83\nsize=4MiB, type=5\nsize=512KiB, type=41\nsize=512KiB, type=83\n"
SCRIPT = b"<chrp-boot><boot-script>boot &device;:1,\\boot\\grub\\powerpc.elf</boot-script></chrp-boot>"
FILES = {"\\ppc\\bootinfo.txt": SCRIPT, "\\boot\\grub\\powerpc.elf": elf32()}
MAX_READ = 8 << 20
"""Bytes that a search may read of a medium: tables, directories of 1 MiB each, FATs."""
MIB = 8

changes = st.lists(
    st.tuples(st.integers(0, 1 << 40), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=8,
)


def changed(data: bytes, where: list[tuple[int, int]], spots: list[tuple[int, bytes]]) -> bytearray:
    """Overwrite bytes within ranges (start, length)."""
    result = bytearray(data)
    total = sum(length for _, length in where)
    for spot, new in spots:
        left = spot % total
        for start, length in where:
            if left < length:
                piece = new[: length - left]
                result[start + left : start + left + len(piece)] = piece
                break
            left -= length
    return result


def sealed(data: bytearray) -> bytearray:
    """Make the checksums of both GPTs right, so that what is changed is looked at."""
    for at in (512, len(data) - 512):
        table, count, entry_bytes = struct.unpack_from("<QII", data, at + 72)
        if table * 512 + count * entry_bytes <= len(data) and count * entry_bytes <= 1 << 20:
            entries = bytes(data[table * 512 : table * 512 + count * entry_bytes])
            struct.pack_into("<I", data, at + 88, zlib.crc32(entries))
        length = min(struct.unpack_from("<I", data, at + 12)[0], 512)
        struct.pack_into("<I", data, at + 16, 0)
        struct.pack_into("<I", data, at + 16, zlib.crc32(bytes(data[at : at + length])))
    return data


@pytest.fixture(scope="module", name="scratch")
def make_scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


def search(data: bytes | bytearray, block_bytes: int = 512) -> None:
    """Look for something to boot. It is found, or there is a reason."""
    source = BytesSource(bytes(data), block_bytes)
    reason = "found"
    try:
        found = asyncio.run(find_boot_file(source, lambda _trouble: None))
        assert 0 <= found.source.size <= len(data)
    except VolumeError as error:
        reason = str(error)
    assert 0 < len(reason) < 500
    assert source.bytes_read <= MAX_READ


def compare_with_oracle(path: Path, data: bytes | bytearray) -> bool:
    """Compare partitions with sfdisk's. Returns whether it found a table."""
    path.write_bytes(data)
    known = listed(path)
    if known is None:
        return False
    extended = {f"{kind:X}" for kind in EXTENDED}
    partitions = asyncio.run(read_partitions(BytesSource(bytes(data))))
    found = {(each.number, each.extent.start, each.extent.length, each.is_prep) for each in partitions.found}
    expected = {
        (each.number, each.start, each.length, each.kind in ("41", PREP_GUID)) for each in known[1] if each.kind not in extended
    }
    assert found == expected, partitions
    return True


class TestGpt:
    @pytest.fixture(scope="class", name="disk")
    @classmethod
    def make_disk(cls, scratch: Path) -> bytes:
        return partitioned(scratch / "gpt", GPT, mib=MIB).read_bytes()

    def test_a_changed_table_is_understood_or_refused(self, disk: bytes) -> None:
        where = [(440, 72), (512, 92), (1024, 512), (len(disk) - 512, 92), (len(disk) - 512 * 33, 512)]

        @given(changes, st.booleans())
        def check(spots: list[tuple[int, bytes]], seal: bool) -> None:
            data = changed(disk, where, spots)
            search(sealed(data) if seal else data)

        check()

    def test_what_sgdisk_calls_valid_has_the_same_partitions(self, disk: bytes, scratch: Path) -> None:
        need("sgdisk", "sfdisk")
        dice = random.Random(7)
        compared = 0
        for _ in range(examples(30)):
            data = bytearray(disk)
            for entry in range(6):
                first, last = sorted(dice.sample(range(2048, MIB * 2048 - 40), 2))
                at = 1024 + 128 * entry
                if dice.random() < 0.5:
                    data[at : at + 16] = disk[1024 + 128 * dice.choice((0, 1)) :][:16]
                    data[at + 16 : at + 32] = dice.randbytes(16)
                    struct.pack_into("<QQ", data, at + 32, first, last)
            data[len(data) - 512 * 33 : len(data) - 512] = data[1024 : 1024 + 512 * 32]
            sealed(data)
            path = scratch / "gpt-oracle"
            path.write_bytes(data)
            if "No problems found" in run("sgdisk", "-v", path, check=False).stdout:
                compared += compare_with_oracle(path, data)
        assert compared, "no table was valid: this test compares nothing"


class TestMbr:
    @pytest.fixture(scope="class", name="disk")
    @classmethod
    def make_disk(cls, scratch: Path) -> bytes:
        return partitioned(scratch / "mbr", MBR, mib=MIB).read_bytes()

    def test_a_changed_table_is_understood_or_refused(self, disk: bytes) -> None:
        chain = [at for at in range(0, len(disk), 512) if disk[at + 510 : at + 512] == b"\x55\xaa"]

        @given(changes)
        def check(spots: list[tuple[int, bytes]]) -> None:
            search(changed(disk, [(at + 446, 66) for at in chain], spots))

        check()

    def test_what_sfdisk_makes_has_the_same_partitions(self, scratch: Path) -> None:
        need("sfdisk")
        dice = random.Random(8)
        compared = 0
        for number in range(examples(15)):
            kinds = dice.choices(("41", "83", "c", "82", "7"), k=dice.randrange(1, 4))
            rows = [f"size={dice.randrange(100, 2000)}, type={kind}" for kind in kinds]
            if dice.random() < 0.7:
                rows.insert(dice.randrange(len(rows) + 1), f"type={dice.choice(('5', 'f', '85'))}, size=8000")
                rows = [*rows, *["size=100, type=83"] * (4 - len(rows))]
                rows += [f"size={dice.randrange(100, 900)}, type={dice.choice(('41', '83'))}" for _ in range(dice.randrange(4))]
            path = scratch / f"mbr{number}"
            try:
                partitioned(path, "label: dos\n" + "\n".join(rows) + "\n", mib=MIB)
            except subprocess.CalledProcessError:
                continue  # Not every random table has room.
            assert compare_with_oracle(path, path.read_bytes()), rows
            compared += 1
        assert compared > examples(15) // 2


def test_changed_file_systems_of_cds_are_understood_or_refused(scratch: Path) -> None:
    data = iso(scratch / "cd", FILES, scratch).read_bytes()

    @given(changes)
    def check(spots: list[tuple[int, bytes]]) -> None:
        search(changed(data, [(16 * 2048, 200), (18 * 2048, min(len(data) - 18 * 2048, 40 * 2048))], spots), 2048)

    check()


@pytest.mark.parametrize(("bits", "mib"), [("12", 1), ("16", 16), ("32", 40)])
def test_changed_fat_file_systems_are_understood_or_refused(scratch: Path, bits: str, mib: int) -> None:
    data = fat_disk(scratch / f"fat{bits}", FILES, scratch, mib=mib, options=("-F", bits)).read_bytes()

    @given(changes)
    def check(spots: list[tuple[int, bytes]]) -> None:
        source = BytesSource(bytes(changed(data, [(0, 64), (512, 8192), (20_000, 100_000)], spots)))
        for path in FILES:
            with suppress(VolumeError):
                found = asyncio.run(find_file(source, path))
                assert found is None or found.size <= source.size
        assert source.bytes_read <= MAX_READ

    check()


@given(st.binary(max_size=4096), st.binary(max_size=600))
def test_scripts_and_programs_of_any_bytes_end_a_boot(script: bytes, program: bytes) -> None:
    """From the first block to the machine's end, with what a guest wrote where a program should be."""
    data = bytearray(1 << 20)
    data[446:462] = struct.pack("<B3xB3xII", 0, 0x41, 4, 1024)
    data[510:512] = b"\x55\xaa"
    data[2048 : 2048 + len(program)] = program
    data[1024:1536] = script[:512].ljust(512, b"\0")
    client, drives = machine_with(Drive(data))
    booted = boot(client, 10)
    assert booted.entry or booted.actions
    assert len(drives.requests) < 100


@given(changes)
def test_changed_programs_are_loaded_or_refused(spots: list[tuple[int, bytes]]) -> None:
    data = bytearray(1 << 20)
    data[446:462] = struct.pack("<B3xB3xII", 0, 0x41, 4, 1024)
    data[510:512] = b"\x55\xaa"
    program = changed(elf32(), [(0, 0x60)], spots)
    data[2048 : 2048 + len(program)] = program
    client, _ = machine_with(Drive(data))
    before = client.peek(0x100, 0x3F00)
    booted = boot(client, 10)
    assert booted.entry or booted.actions
    assert client.peek(0x100, 0x3F00) == before, "the firmware stays as it is"
