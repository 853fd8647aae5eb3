# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs end up where they belong, and a broken file gets one clear line and no byte of RAM."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_service.images.loader import (
    FIRMWARE_MAX_SIZE,
    LoadedImage,
    LoadedInitrd,
    LoaderError,
    load_firmware,
    load_initrd,
    load_program,
    open_image,
)
from splitvisor.images.placement import PROGRAM_ROOM
from tests.amounts import examples
from tests.fake_machine import make_ram

RAM = 16 << 20
LINEAR_MAP = 0xC000_0000_0000_0000
TEXT = random.Random(0).randbytes(0x300)
HEADER_SIZE = {32: 52, 64: 64}
SEGMENT_SIZE = {32: 32, 64: 56}


@dataclass(frozen=True)
class Segment:
    virtual: int
    physical: int
    data: bytes = TEXT
    memory_size: int = 0x1000
    kind: int = 1
    offset: int | None = None
    file_size: int | None = None
    flags: int = 7


@dataclass(frozen=True)
class Program:
    """An ELF file to be; each field can be made wrong."""

    entry: int
    segments: tuple[Segment, ...]
    bits: int = 64
    order: str = ">"
    magic: bytes = b"\x7fELF"
    elf_class: int | None = None
    byte_order: int | None = None
    version: int = 1
    kind: int = 2
    machine: int | None = None
    table: int | None = None
    entry_size: int | None = None
    count: int | None = None
    elf_flags: int = 0

    def build(self) -> bytes:
        wide = self.bits == 64
        table = HEADER_SIZE[self.bits]
        data_at = table + SEGMENT_SIZE[self.bits] * len(self.segments)
        headers, data = b"", b""
        for segment in self.segments:
            offset = data_at + len(data) if segment.offset is None else segment.offset
            size = len(segment.data) if segment.file_size is None else segment.file_size
            place = (offset, segment.virtual, segment.physical, size, segment.memory_size)
            headers += (
                struct.pack(self.order + "IIQQQQQQ", segment.kind, segment.flags, *place, 16)
                if wide
                else struct.pack(self.order + "IIIIIIII", segment.kind, *place, segment.flags, 16)
            )
            data += segment.data
        identification = self.magic + bytes(
            (
                (2 if wide else 1) if self.elf_class is None else self.elf_class,
                (2 if self.order == ">" else 1) if self.byte_order is None else self.byte_order,
                self.version,
            )
        )
        header = struct.pack(
            self.order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"),
            self.kind,
            (21 if wide else 20) if self.machine is None else self.machine,
            1,
            self.entry,
            table if self.table is None else self.table,
            0,
            self.elf_flags,
            table,
            SEGMENT_SIZE[self.bits] if self.entry_size is None else self.entry_size,
            len(self.segments) if self.count is None else self.count,
            0,
            0,
            0,
        )
        return identification.ljust(16, b"\0") + header + headers + data


KERNEL = Program(LINEAR_MAP, (Segment(LINEAR_MAP, 0), Segment(LINEAR_MAP + 0x20000, 0x20000)))
CLIENT = Program(0x20_0010, (Segment(0x20_0000, 0x20_0000),), bits=32)


def load(program: Program | bytes, ram_size: int = RAM) -> tuple[LoadedImage, bytes]:
    """Load, and return the image and all of RAM."""
    ram = make_ram(ram_size)
    image = load_program(ram, io.BytesIO(program if isinstance(program, bytes) else program.build()), "image")
    return image, ram.read(0, ram_size)


@pytest.mark.parametrize(("order", "little"), [("<", True), (">", False)])
@pytest.mark.parametrize("kind", [2, 3])
def test_a_kernel_moves_from_its_linear_map_to_4_mib(order: str, little: bool, kind: int) -> None:
    image, ram = load(replace(KERNEL, order=order, kind=kind))
    assert image == LoadedImage(entry=0x40_0000, base=0x40_0000, size=0x21000, little_endian=little)
    assert ram[0x40_0000:0x40_0300] == TEXT
    assert ram[0x42_0000:0x42_0300] == TEXT
    assert ram.count(b"\0") == RAM - 2 * (len(TEXT) - TEXT.count(b"\0"))


def test_a_program_linked_at_0_that_relocates_itself_goes_to_4_mib() -> None:
    program = Program(0x10, (Segment(0, 0), Segment(0x20000, 0x20000)), kind=3)
    image, ram = load(program)
    assert (image.entry, image.base) == (0x40_0010, 0x40_0000)
    assert ram[0x40_0000:0x40_0300] == ram[0x42_0000:0x42_0300] == TEXT
    assert not any(ram[:0x40_0000])


def test_a_program_linked_at_0_that_cannot_move_is_refused() -> None:
    with pytest.raises(LoaderError, match="belongs to the firmware"):
        load(Program(0x10, (Segment(0, 0),)))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_client_program_stays_where_it_is_linked_with_room_above(bits: int, order: str) -> None:
    image, ram = load(replace(CLIENT, bits=bits, order=order))
    assert image == LoadedImage(0x20_0010, 0x20_0000, 0x1000 + PROGRAM_ROOM, order == "<")
    assert ram[0x20_0000:0x20_0300] == TEXT


def test_the_room_above_ends_with_ram() -> None:
    image, _ = load(CLIENT, 0x20_2000)
    assert image.base + image.size == 0x20_2000


def test_the_entry_point_is_found_through_its_segments_physical_address() -> None:
    image, _ = load(Program(0x1000_0020, (Segment(0x1000_0000, 0x30_0000), Segment(0x50_0000, 0x50_0000))))
    assert image.entry == 0x30_0020


def test_uninitialized_data_is_cleared() -> None:
    ram = make_ram(RAM)
    ram.write(0, b"\xff" * RAM)
    load_program(ram, io.BytesIO(CLIENT.build()), "image")
    assert ram.read(0x20_0000, 0x1001) == TEXT + bytes(0x1000 - len(TEXT)) + b"\xff"


def test_uninitialized_data_wipes_nothing_that_another_segment_has() -> None:
    first = Segment(0x20_0000, 0x20_0000, memory_size=0x2000)
    for segments in ((first, Segment(0x20_1000, 0x20_1000)), (Segment(0x20_1000, 0x20_1000), first)):
        _, ram = load(replace(CLIENT, segments=segments))
        assert ram[0x20_0000:0x20_0300] == ram[0x20_1000:0x20_1300] == TEXT


@pytest.mark.parametrize("offset", [1 << 20, 0xFFFF_F000])
def test_a_segment_without_bytes_in_the_file_may_have_any_offset(offset: int) -> None:
    bss = Segment(0x20_1000, 0x20_1000, b"", memory_size=0x1000, offset=offset)
    image, _ = load(replace(CLIENT, segments=(*CLIENT.segments, bss)))
    assert image.size == 0x2000 + PROGRAM_ROOM


def test_segments_of_a_kernel_keep_their_distance() -> None:
    far = Segment(LINEAR_MAP + 0x1000_0000, 0x1000_0000)
    ram = make_ram(0x1100_0000)
    image = load_program(ram, io.BytesIO(replace(KERNEL, segments=(KERNEL.segments[0], far)).build()), "image")
    assert image.size == 0x1000_1000
    assert ram.read(0x40_0000, 0x300) == ram.read(0x1040_0000, 0x300) == TEXT


def opd(code: int, toc: int = 0x20_8300) -> bytes:
    return struct.pack(">QQQ", code, toc, 0)


def described(data: bytes, text: int = LINEAR_MAP, flags: int = 6, **changes: Any) -> Program:
    """A program whose entry is in its second segment."""
    segments = (Segment(text, 0x20_0000, flags=5), Segment(text + 0x10000, 0x21_0000, data, flags=flags))
    return replace(Program(text + 0x10008, segments), **changes)


@pytest.mark.parametrize("abi", [0, 1])
@pytest.mark.parametrize(("text", "flags"), [(0x20_0000, 6), (0x20_0000, 7), (LINEAR_MAP, 6)])
def test_an_entry_that_is_a_function_descriptor_is_followed(text: int, flags: int, abi: int) -> None:
    image, _ = load(described(bytes(8) + opd(text + 0x20, text + 0x18000), text, flags, elf_flags=abi))
    base = 0x40_0000 if text == LINEAR_MAP else text
    assert (image.entry, image.toc) == (base + 0x20, base + 0x18000)


def test_the_descriptor_of_a_program_that_is_moved_moves_with_it() -> None:
    segments = (Segment(0, 0, flags=5), Segment(0x10000, 0x10000, opd(0x20, 0x18000), flags=6))
    image, _ = load(Program(0x10000, segments, kind=3))
    assert (image.entry, image.toc) == (0x40_0020, 0x41_8000)


@pytest.mark.parametrize(
    "program",
    [
        described(bytes(8) + opd(LINEAR_MAP + 0x22)),
        described(bytes(8) + opd(LINEAR_MAP + 0x300)),
        described(bytes(8) + opd(LINEAR_MAP + 0x10000)),
        described(bytes(8) + opd(LINEAR_MAP + 0x20)[:15]),
        described(bytes(8) + opd(LINEAR_MAP + 0x20), elf_flags=2),
        described(bytes(8) + opd(LINEAR_MAP + 0x20), order="<"),
        described(bytes(4) + opd(LINEAR_MAP + 0x20), entry=LINEAR_MAP + 0x10004),
    ],
    ids=["odd", "behind the code", "to itself", "cut off", "ELFv2", "little-endian", "unaligned"],
)
def test_data_that_is_no_function_descriptor_is_not_executed(program: Program) -> None:
    with pytest.raises(LoaderError, match="is in a segment that is not executable"):
        load(program)


def test_an_instruction_that_looks_like_a_descriptor_is_executed() -> None:
    # 0xc0000000 is lfs f0, 0(0).
    image, _ = load(described(bytes(8) + opd(LINEAR_MAP + 0x20), flags=7))
    assert (image.entry, image.toc) == (0x41_0008, 0)


def test_other_program_headers_are_left_alone() -> None:
    note = Segment(0x30_0000, 0x30_0000, kind=4)
    empty = Segment(0, 0, b"", memory_size=0)
    image, ram = load(replace(CLIENT, segments=(*CLIENT.segments, note, empty)))
    assert image.base == 0x20_0000
    assert not any(ram[0x30_0000:0x30_1000])


def segment(**changes: Any) -> Program:
    return replace(CLIENT, segments=(replace(CLIENT.segments[0], **changes),))


@pytest.mark.parametrize(
    ("program", "what"),
    [
        (b"", "is empty; fetch or build it again"),
        (b"hello\n", "is not an ELF file; give a PowerPC ELF kernel"),
        (b"\x7fELF", "ends within its identification; fetch or build it again"),
        (CLIENT.build()[:40], "ends within its header; fetch or build it again"),
        (CLIENT.build()[:60], "ends within its program header table; fetch or build it again"),
        (CLIENT.build()[:-1], "ends within the segment for 0x200000; fetch or build it again"),
        (replace(CLIENT, elf_class=3), "has an unknown ELF class, byte order or version: 3, 2, 1; give a PowerPC ELF kernel"),
        (replace(CLIENT, byte_order=0), "has an unknown ELF class, byte order or version: 1, 0, 1"),
        (replace(CLIENT, version=0), "has an unknown ELF class, byte order or version: 1, 2, 0"),
        (replace(CLIENT, byte_order=1), r"says that it is little-endian \(byte 5\), but its header is big-endian; link it again"),
        (replace(CLIENT, order="<", byte_order=2), r"says that it is big-endian \(byte 5\), but its header is little-endian"),
        (replace(CLIENT, machine=62), "is for x86-64, not for PowerPC; give a PowerPC ELF kernel"),
        (replace(KERNEL, machine=183), r"is for ARM \(AArch64\), not for PowerPC"),
        (replace(CLIENT, machine=21), r"is of ELF class 32, but for 64-bit PowerPC \(21\); link it again"),
        (replace(CLIENT, machine=999), "is for ELF machine 999, not for PowerPC"),
        (replace(CLIENT, kind=1), "is an object file, not a linked program; give a PowerPC ELF kernel"),
        (replace(CLIENT, kind=4), "is a core dump, not a linked program"),
        (replace(CLIENT, kind=77), "is of ELF type 77, not a linked program"),
        (replace(CLIENT, entry_size=31), "has 1 program headers of 31 bytes; a program has 1 to 64 of 32 bytes"),
        (replace(CLIENT, count=0), "has 0 program headers"),
        (replace(CLIENT, count=65535), "has 65535 program headers"),
        (replace(CLIENT, table=0xFFFF_FFFF), "ends within its program header table"),
        (segment(kind=4), "has nothing to load"),
        (segment(offset=0xFFFF_FF00), "ends within the segment for 0x200000"),
        (segment(file_size=0xFFFF_FFFF), "ends within the segment for 0x200000"),
        (segment(memory_size=0x2FF), "has a segment for 0x200000 that is larger in the file than in memory"),
        (segment(physical=0xF000), "is linked at 0xf000; what is below 0x10000 belongs to the firmware"),
        (segment(physical=RAM - 0xFFF), "needs 0x1000 bytes at 0xfff001; RAM ends at 0x1000000"),
        (segment(memory_size=0xFFFF_FFFF), "needs 0xffffffff bytes at 0x200000; RAM ends at 0x1000000"),
        (replace(KERNEL, segments=(Segment(LINEAR_MAP | 0xFFF_F000, 0),)), "needs 0x1000 bytes at 0x103ff000; RAM ends at"),
        (replace(CLIENT, entry=0x20_0300), "its entry point 0x200300 is not an instruction that it loads"),
        (replace(CLIENT, entry=0x20_0002), "its entry point 0x200002 is not an instruction that it loads"),
        (replace(CLIENT, entry=0), "its entry point 0x0 is not an instruction that it loads; link it again"),
        (segment(flags=6), "its entry point 0x200010 is in a segment that is not executable; link it again"),
        (
            replace(CLIENT, segments=(*CLIENT.segments, Segment(0x20_02FF, 0x20_02FF))),
            r"has two segments for 0x2002ff: 0x200000\+0x300 and 0x2002ff\+0x300 overlap; link it again",
        ),
        (
            replace(CLIENT, segments=(Segment(0x20_0000, 0x30_0000), Segment(0x30_0000, 0x30_0000))),
            r"has two segments for 0x300000: 0x200000\+0x300 and 0x300000\+0x300 overlap",
        ),
        (
            replace(KERNEL, segments=(*KERNEL.segments, Segment(LINEAR_MAP + 0x1000_0000, 0))),
            "needs 0x1000 bytes at 0x10400000; RAM ends at 0x1000000; give the machine more --memory",
        ),
    ],
)
def test_a_broken_program_is_refused_with_the_reason_before_ram_changes(program: Program | bytes, what: str) -> None:
    ram = make_ram(RAM)
    writes: list[int] = []
    ram.on_write = lambda address, length: writes.append(address)
    with pytest.raises(LoaderError, match=f"^image: {what}"):
        load_program(ram, io.BytesIO(program if isinstance(program, bytes) else program.build()), "image")
    assert writes == []


@settings(max_examples=examples(300), database=None)
@given(st.sampled_from([KERNEL, CLIENT]), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4))
def test_any_header_loads_or_is_refused(program: Program, changes: list[tuple[int, int]]) -> None:
    data = bytearray(program.build())
    for offset, value in changes:
        data[offset] = value
    try:
        image, _ = load(bytes(data), 0x80_0000)
    except LoaderError:
        return
    assert 0x10000 <= image.base <= image.entry < image.base + image.size <= 0x80_0000


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (KERNEL.build(), "is an ELF file, not a raw firmware image; make a raw image of it"),
        (gzip.compress(bytes(1000), mtime=0), "is compressed with gzip; unpack it first: gzip -dc FILE > OUT"),
    ],
)
def test_firmware_is_a_raw_image(data: bytes, what: str) -> None:
    with pytest.raises(LoaderError, match=f"^fw: {what}"):
        load_firmware(make_ram(RAM), io.BytesIO(data), "fw")


def test_firmware_is_loaded_at_0_and_starts_at_the_reset_vector() -> None:
    ram = make_ram(RAM)
    firmware = random.Random(1).randbytes(0x5000)
    assert load_firmware(ram, io.BytesIO(firmware), "slof.bin") == LoadedImage(0x100, 0, 0x5000, little_endian=False)
    assert ram.read(0, 0x5001) == firmware + b"\0"


@pytest.mark.parametrize("size", [0, 0x100, FIRMWARE_MAX_SIZE + 1])
def test_firmware_has_a_size_that_can_be(size: int) -> None:
    what = f"has {size} bytes, and is no firmware image" if size else "is empty"
    with pytest.raises(LoaderError, match=f"^fw: {what}; give a raw image, which has 257 to 4194304 bytes"):
        load_firmware(make_ram(RAM), io.BytesIO(bytes(size)), "fw")


def test_an_initramfs_comes_after_the_kernel() -> None:
    ram = make_ram(RAM)
    kernel = load_program(ram, io.BytesIO(KERNEL.build()), "kernel")
    data = random.Random(2).randbytes(5 << 20)
    assert load_initrd(ram, io.BytesIO(data), "initrd", kernel) == LoadedInitrd(0x44_0000, len(data))
    assert ram.read(0x44_0000, len(data)) == data


@pytest.mark.parametrize(
    ("size", "what"),
    [(0, "is empty"), (RAM - 0x44_0000 + 1, "needs 0xbc0001 bytes at 0x440000, after the kernel; RAM ends at 0x1000000")],
)
def test_an_initramfs_must_fit(size: int, what: str) -> None:
    ram = make_ram(RAM)
    kernel = load_program(ram, io.BytesIO(KERNEL.build()), "kernel")
    with pytest.raises(LoaderError, match=f"^initrd: {what}"):
        load_initrd(ram, io.BytesIO(bytes(size)), "initrd", kernel)


def test_a_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(KERNEL.build())
    with open_image(path) as file:
        assert load_program(make_ram(RAM), file, str(path)).base == 0x40_0000
    assert file.closed


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("pipe", "is not a regular file"), ("nothing", "No such file or directory"), (".", ".*irectory")):
        path = tmp_path / name
        with pytest.raises(LoaderError, match=f"^{path}: {what}"), open_image(path):
            pytest.fail("opened")
