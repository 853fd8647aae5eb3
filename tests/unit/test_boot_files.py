# SPDX-License-Identifier: GPL-2.0-or-later
"""Files on CDs and FAT file systems that Debian's tools made, and boot scripts."""

from __future__ import annotations

import asyncio
import random
import struct
from pathlib import Path

import pytest

from of_client_service.boot import bootinfo
from of_client_service.boot.bootinfo import BootScript
from of_client_service.volumes.files import find_file
from of_client_service.volumes.iso9660 import MAX_DIRECTORY_BYTES
from of_client_service.volumes.source import Extent, Part, VolumeError
from tests.disk_tools import fat_disk, iso
from tests.unit.of_drives import BytesSource, read_all

DICE = random.Random(3)
FILES = {
    "\\ppc\\bootinfo.txt": b"<chrp-boot>\n",
    "\\boot\\grub\\powerpc.elf": DICE.randbytes(300_123),
    "\\empty.txt": b"",
    **{f"\\many\\f{number}.txt": str(number).encode() for number in range(200)},
}


def content(source: BytesSource, path: str) -> bytes | None:
    found = asyncio.run(find_file(source, path))
    return None if found is None else read_all(found)


def check_all(source: BytesSource) -> None:
    for name, data in FILES.items():
        assert content(source, name) == data
        assert content(source, name.upper()) == data
    assert content(source, "/boot/grub/powerpc.elf") == FILES["\\boot\\grub\\powerpc.elf"]
    for missing in (
        "\\nothing",
        "\\boot",
        "\\boot\\grub",
        "\\boot\\grub\\powerpc.elf\\x",
        "\\ppc\\nothing.txt",
        "",
        "\\",
        "\\a" * 20,
    ):
        assert content(source, missing) is None


@pytest.mark.parametrize("options", [(), ("-J",), ("-R",), ("-iso-level", "3")])
def test_a_cd_has_its_files(tmp_path: Path, options: tuple[str, ...]) -> None:
    check_all(BytesSource(iso(tmp_path / "cd", FILES, tmp_path, options).read_bytes(), 2048))


@pytest.mark.parametrize(("bits", "mib"), [(12, 4), (16, 32), (32, 64)])
def test_a_fat_file_system_has_its_files(tmp_path: Path, bits: int, mib: int) -> None:
    check_all(BytesSource(fat_disk(tmp_path / "fat", FILES, tmp_path, mib=mib, options=("-F", str(bits))).read_bytes()))


def test_a_fragmented_fat_file_is_put_together(tmp_path: Path) -> None:
    path = fat_disk(tmp_path / "fat", {"\\a": b"a" * 3000, "\\b": b"b" * 3000}, tmp_path, mib=1, options=("-F", "12", "-s", "1"))
    data = bytearray(path.read_bytes())
    # \a continues in what was \b's last cluster: 12-bit entries of clusters 2 to 13.
    table = 512 * struct.unpack_from("<H", data, 14)[0]
    set_fat12(data, table, 7, 13)
    set_fat12(data, table, 13, 0xFFF)
    found = asyncio.run(find_file(BytesSource(bytes(data)), "\\a"))
    assert found is not None
    assert read_all(found) == b"a" * 3000
    assert len(list(found.extents(0, 3000))) == 1
    set_fat12(data, table, 4, 13)
    set_fat12(data, table, 13, 5)
    found = asyncio.run(find_file(BytesSource(bytes(data)), "\\a"))
    assert found is not None
    assert len(list(found.extents(0, 3000))) == 3
    assert b"b" in read_all(found)


def set_fat12(data: bytearray, table: int, cluster: int, value: int) -> None:
    at = table + cluster * 3 // 2
    old = int.from_bytes(data[at : at + 2], "little")
    new = old & 0x000F | value << 4 if cluster % 2 else old & 0xF000 | value
    data[at : at + 2] = new.to_bytes(2, "little")


@pytest.mark.parametrize("target", [0, 1, 0xFF7, 0xFFF])
def test_a_fat_chain_that_ends_early_is_broken(tmp_path: Path, target: int) -> None:
    path = fat_disk(tmp_path / "fat", {"\\a": b"a" * 3000}, tmp_path, mib=1, options=("-F", "12", "-s", "1"))
    data = bytearray(path.read_bytes())
    set_fat12(data, 512 * struct.unpack_from("<H", data, 14)[0], 4, target)
    with pytest.raises(VolumeError, match="chain of clusters is broken"):
        content(BytesSource(bytes(data)), "\\a")


def test_a_fat_chain_that_is_a_circle_ends_at_the_size(tmp_path: Path) -> None:
    path = fat_disk(tmp_path / "fat", {"\\d\\a": b"a" * 3000}, tmp_path, mib=1, options=("-F", "12", "-s", "1"))
    data = bytearray(path.read_bytes())
    for cluster in range(2, 12):
        set_fat12(data, 512 * struct.unpack_from("<H", data, 14)[0], cluster, cluster)
    source = BytesSource(bytes(data))
    assert content(source, "\\d\\a") == b"a" * 512 * 5 + b"a" * 440
    assert source.bytes_read < 4 << 20


def root_record() -> int:
    return 16 * 2048 + 156


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(10, MAX_DIRECTORY_BYTES + 1, "directory of"), (2, 0x7FFF_FFFF, "ends at byte"), (2, 0, None)],
)
def test_a_cd_whose_root_is_wrong_is_named(tmp_path: Path, offset: int, value: int, message: str | None) -> None:
    data = bytearray(iso(tmp_path / "cd", FILES, tmp_path).read_bytes())
    struct.pack_into("<I", data, root_record() + offset, value)
    source = BytesSource(bytes(data), 2048)
    if message is None:
        assert content(source, "\\empty.txt") is None
        return
    with pytest.raises(VolumeError, match=message):
        content(source, "\\empty.txt")
    assert source.bytes_read < 100_000


def test_parts_of_parts_are_where_they_say() -> None:
    data = DICE.randbytes(5000)
    whole = BytesSource(data)
    part = Part(whole, [Extent(100, 50), Extent(1000, 10), Extent(7, 3)])
    expected = data[100:150] + data[1000:1010] + data[7:10]
    assert read_all(part) == expected
    for start in range(0, 63, 7):
        for length in (0, 1, 13, 63 - start):
            inner = Part(part, [Extent(start, min(length, 63 - start))])
            assert read_all(inner) == expected[start : start + inner.size]
            assert b"".join(data[each.start : each.start + each.length] for each in inner.extents(0, inner.size)) == read_all(
                inner
            )
    for extent in (Extent(4990, 11), Extent(-1, 2), Extent(0, -1)):
        with pytest.raises(VolumeError):
            Part(whole, [extent])


SCRIPTS = [
    ("<chrp-boot><boot-script>boot &device;:1,\\boot\\grub.elf</boot-script></chrp-boot>", ("", "1,\\boot\\grub.elf", "")),
    ("<CHRP-BOOT>\r\n<Boot-Script>\n boot &device;:\\grub.elf a  b\n</Boot-Script>", ("", "\\grub.elf", "a  b")),
    ("<boot-script>load-base 0 boot &device;:&partition;,\\a.elf</boot-script>", ("", "3,\\a.elf", "")),
    ("<boot-script>boot cdrom:,\\x&amp;y</boot-script>", ("cdrom", ",\\x&y", "")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SCRIPTS)
def test_a_boot_script_names_a_program(text: str, expected: tuple[str, str, str]) -> None:
    assert bootinfo.parse(text.encode(), 3) == BootScript(*expected)


@pytest.mark.parametrize(
    "text", [b"", b"<boot-script>", b"<boot-script></boot-script>", b"<boot-script>go</boot-script>", b"\xff" * 100]
)
def test_a_text_without_a_command_is_named(text: bytes) -> None:
    with pytest.raises(VolumeError, match="bootinfo"):
        bootinfo.parse(text, 0)
