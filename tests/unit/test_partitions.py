# SPDX-License-Identifier: GPL-2.0-or-later
"""Partition tables that sfdisk made are understood as it understands them; broken ones are named, and never followed."""

from __future__ import annotations

import asyncio
import struct
import zlib
from pathlib import Path

import pytest

from of_client_service.volumes import gpt, mbr
from of_client_service.volumes.partitions import Partitions, read_partitions
from of_client_service.volumes.source import Extent, MediumError, VolumeError
from tests.disk_tools import LINUX_GUID, PREP_GUID, listed, partitioned, partitioned_in_large_sectors
from tests.unit.of_drives import BytesSource

GPT = f"label: gpt\nsize=2MiB, type={PREP_GUID}\nsize=4MiB, type={LINUX_GUID}\n"
MBR = (
    "label: dos\nsize=2MiB, type=41\nsize=1MiB, type=83\nsize=8MiB, type=5\nsize=1MiB, type=c\n"
    "size=1MiB, type=83\nsize=2MiB, type=41\n"
)


def read(data: bytes, block_bytes: int = 512) -> Partitions:
    return asyncio.run(read_partitions(BytesSource(data, block_bytes)))


def same_as_sfdisk(path: Path) -> Partitions:
    known = listed(path)
    assert known is not None
    found = read(path.read_bytes())
    prep = ("41", PREP_GUID)
    extended = {"5", "F", "85"}
    expected = [
        (each.number, Extent(each.start, each.length), each.kind in prep) for each in known[1] if each.kind not in extended
    ]
    assert [(each.number, each.extent, each.is_prep) for each in found.found] == expected
    assert found.trouble == ""
    return found


def test_a_gpt_is_what_sfdisk_wrote(tmp_path: Path) -> None:
    found = same_as_sfdisk(partitioned(tmp_path / "disk", GPT))
    assert found.kind == "GPT"
    assert [each.is_prep for each in found.found] == [True, False]
    partition = found.get(2)
    assert partition is not None
    assert partition.extent.length == 4 << 20
    assert found.get(3) is None


@pytest.mark.parametrize("sector_bytes", [512, 2048, 4096])
def test_a_table_counts_in_blocks_of_the_medium(tmp_path: Path, sector_bytes: int) -> None:
    path, expected = partitioned_in_large_sectors(tmp_path / "disk", sector_bytes)
    found = read(path.read_bytes(), sector_bytes)
    assert [(each.number, each.extent) for each in found.found] == [
        (each.number, Extent(each.start, each.length)) for each in expected
    ]
    assert [each.is_prep for each in found.found] == [True, False]


@pytest.mark.parametrize("extended", ["5", "f", "85"])
def test_an_mbr_has_primary_and_logical_partitions(tmp_path: Path, extended: str) -> None:
    script = MBR.replace("type=5\n", f"type={extended}\n")
    found = same_as_sfdisk(partitioned(tmp_path / "disk", script, mib=32))
    assert found.kind == "MBR"
    assert [each.number for each in found.found if each.is_prep] == [1, 6]


def test_a_gpt_with_many_and_wide_entries_is_read(tmp_path: Path) -> None:
    script = "label: gpt\ntable-length: 256\n" + f"size=1MiB, type={PREP_GUID}\n" * 12
    assert len(same_as_sfdisk(partitioned(tmp_path / "disk", script)).found) == 12
    data = bytearray(partitioned(tmp_path / "other", GPT).read_bytes())
    table = bytes(data[1024 : 1024 + 128 * 128])
    wide = b"".join(table[at : at + 128].ljust(256, b"\0") for at in range(0, 64 * 128, 128))
    data[1024 : 1024 + len(wide)] = wide
    sealed_header(data, 512, entries=64, entry_bytes=256, table=wide)
    assert [each.number for each in read(bytes(data)).found] == [1, 2]


def sealed_header(data: bytearray, at: int, *, entries: int, entry_bytes: int, table: bytes) -> None:
    struct.pack_into("<III", data, at + 80, entries, entry_bytes, zlib.crc32(table))
    seal(data, at)


def seal(data: bytearray, at: int) -> None:
    """Give a header its checksum."""
    data[at + 16 : at + 20] = bytes(4)
    struct.pack_into("<I", data, at + 16, zlib.crc32(data[at : at + 92]))


@pytest.fixture(name="disk")
def make_disk(tmp_path: Path) -> bytearray:
    return bytearray(partitioned(tmp_path / "disk", GPT).read_bytes())


@pytest.mark.parametrize(
    ("at", "trouble"),
    [
        (512, "its first GPT has no signature; the second is used"),
        (512 + 8, "its first GPT has a header of another version; the second is used"),
        (512 + 72, "its first GPT has a wrong header checksum; the second is used"),
        (1024 + 3, "its first GPT has a wrong table checksum; the second is used"),
    ],
)
def test_the_second_gpt_is_used_when_the_first_is_broken(disk: bytearray, at: int, trouble: str) -> None:
    whole = read(bytes(disk))
    disk[at : at + 4] = b"\xff\xff\xff\xff"
    found = read(bytes(disk))
    assert (found.found, found.trouble) == (whole.found, trouble)
    disk[-512:] = bytes(512)
    with pytest.raises(VolumeError, match=r"both of its GPTs are broken|protects a GPT that is not there"):
        read(bytes(disk))


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (24, "<Q", 7),
        (40, "<Q", 1 << 40),
        (48, "<Q", 1 << 63),
        (72, "<Q", 1),
        (72, "<Q", 1 << 50),
        (80, "<I", 0xFFFF_FFFF),
        (80, "<I", 0),
        (84, "<I", 100),
        (84, "<I", 64),
        (84, "<I", 1 << 31),
        (12, "<I", 1 << 20),
    ],
)
def test_a_sealed_header_that_cannot_be_is_refused(disk: bytearray, offset: int, form: str, value: int) -> None:
    struct.pack_into(form, disk, 512 + offset, value)
    seal(disk, 512)
    source = BytesSource(bytes(disk))
    entries, trouble = asyncio.run(gpt.read_gpt(source))
    assert trouble
    assert len(entries) == 2
    assert source.bytes_read < 100_000


def test_a_protective_mbr_without_a_gpt_is_named() -> None:
    data = bytearray(1 << 20)
    data[446 + 4] = mbr.PROTECTIVE
    struct.pack_into("<II", data, 446 + 8, 1, 2047)
    data[510:512] = mbr.SIGNATURE
    with pytest.raises(VolumeError, match="protects a GPT that is not there"):
        read(bytes(data))


def test_a_hybrid_mbr_whose_gpt_is_gone_counts_as_an_mbr(tmp_path: Path) -> None:
    data = bytearray(partitioned(tmp_path / "disk", "label: dos\nsize=2MiB, type=41\nsize=1MiB, type=ee\n").read_bytes())
    assert [(each.number, each.is_prep) for each in read(bytes(data)).found] == [(1, True)]


def test_a_medium_without_a_table_has_no_partitions() -> None:
    for data in (b"", bytes(511), bytes(4096), b"\xff" * 4096, b"\xeb" * 510 + b"\x55\xaa"):
        assert read(data) == Partitions("")


@pytest.mark.parametrize("spoil", ["loop", "outside", "garbage"])
def test_a_chain_of_logical_partitions_that_goes_wrong_ends_there(tmp_path: Path, spoil: str) -> None:
    data = bytearray(partitioned(tmp_path / "disk", MBR, mib=32).read_bytes())
    first = next(
        struct.unpack_from("<I", data, at + 8)[0] for at in range(446, 510, 16) if data[at + 4] in mbr.EXTENDED
    ) * 512  # fmt: skip
    following = first + 446 + 16
    if spoil == "loop":
        struct.pack_into("<I", data, following + 8, 0)
    elif spoil == "outside":
        struct.pack_into("<I", data, following + 8, 0xFFFF_0000)
    else:
        data[first + 510] = 0
    source = BytesSource(bytes(data))
    found = asyncio.run(read_partitions(source))
    assert found.trouble.startswith("its chain of logical partitions")
    assert [each.number for each in found.found][:3] == [1, 2, 4]
    assert source.bytes_read < 100_000


def test_a_primary_partition_behind_the_end_is_none(tmp_path: Path) -> None:
    data = bytearray(partitioned(tmp_path / "disk", MBR, mib=32).read_bytes())
    struct.pack_into("<I", data, 446 + 12, 0xFFFF_FFFF)
    assert next(each.number for each in read(bytes(data)).found) == 2


def test_a_medium_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(MediumError):
        asyncio.run(read_partitions(BytesSource(bytes(1 << 20), broken=range(0, 512))))
