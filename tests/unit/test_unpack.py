# SPDX-License-Identifier: GPL-2.0-or-later
"""Packed kernels are unpacked within bounds; what is damaged, endless or packed otherwise gets one line with a remedy."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
from collections.abc import Callable, Mapping

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_service.images.loader import LoadedImage, LoaderError, load_program
from cpu_service.images.unpack import PACKINGS, PIECE, ZSTD_PIECE, Packing, UnpackError, packing_of, unpack
from splitvisor.images.formats import FORMATS
from splitvisor.machine import snapshot_file
from tests.amounts import examples
from tests.fake_machine import make_ram
from tests.unit.test_loader import KERNEL, RAM

PACK: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress,
}
MIB = 1 << 20
ZSTD_BLOCK = 128 << 10
TEXT = random.Random(3).randbytes(700_000) + bytes(1_000_000)


@pytest.fixture(params=PACKINGS, ids=lambda packing: packing.name)
def packing(request: pytest.FixtureRequest) -> Packing:
    found: Packing = request.param
    return found


def unpacked(data: bytes, packing: Packing, limit: int = 64 * MIB) -> bytes:
    with unpack(io.BytesIO(data), packing, limit) as file:
        file.seek(0)
        return file.read()


def test_a_packed_kernel_is_loaded_as_the_same_unpacked(packing: Packing) -> None:
    packed = io.BytesIO(PACK[packing.name](KERNEL.build()))
    plain, ram = make_ram(RAM), make_ram(RAM)
    assert load_program(ram, packed, "vmlinuz") == load_program(plain, io.BytesIO(KERNEL.build()), "vmlinux")
    assert ram.read(0, RAM) == plain.read(0, RAM)


def test_streams_one_after_the_other_are_one_file_and_zeros_are_padding(packing: Packing) -> None:
    pack = PACK[packing.name]
    assert unpacked(pack(TEXT), packing) == TEXT
    assert unpacked(pack(TEXT) + bytes(8) + pack(b"") + pack(b"end") + bytes(5 * MIB), packing) == TEXT + b"end"


@pytest.mark.parametrize("size", [1, 511, 4096])
def test_what_follows_and_is_not_packed_is_refused(packing: Packing, size: int) -> None:
    with pytest.raises(
        UnpackError, match=f"has something else after its {packing.name} data; fetch it again, or unpack it first"
    ):
        unpacked(PACK[packing.name](TEXT) + b"\xa5" * size, packing)


def test_a_file_that_was_cut_off_is_refused(packing: Packing) -> None:
    data = PACK[packing.name](TEXT)
    for length in (len(packing.magic), 20, len(data) // 2, len(data) - 1):
        with pytest.raises(UnpackError, match=f"ends within its {packing.name} data"):
            unpacked(data[:length], packing)


def test_a_damaged_file_is_refused(packing: Packing) -> None:
    data = bytearray(PACK[packing.name](TEXT))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(UnpackError, match=rf"cannot be unpacked \({packing.name}: "):
        unpacked(bytes(data), packing)


def test_a_bomb_ends_at_the_limit_and_is_unpacked_in_pieces(packing: Packing) -> None:
    bomb = PACK[packing.name](bytes(64 * MIB))
    assert len(bomb) < MIB
    with pytest.raises(
        UnpackError, match=rf"has more than 8 MiB when it is unpacked \({packing.name}\); strip it, give the machine"
    ):
        unpacked(bomb, packing, 8 * MIB)
    stream = packing.make()
    assert 0 < len(stream.feed(bomb[: packing.piece])) <= max(PIECE, ZSTD_PIECE // 4 * ZSTD_BLOCK)


def test_the_limit_itself_is_allowed(packing: Packing) -> None:
    assert unpacked(PACK[packing.name](bytes(MIB)), packing, MIB) == bytes(MIB)
    with pytest.raises(UnpackError, match="has more than 1 MiB"):
        unpacked(PACK[packing.name](bytes(MIB + 1)), packing, MIB)


def test_a_window_of_gigabytes_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(b"x") + compressor.flush()
    with pytest.raises(UnpackError, match=r"cannot be unpacked \(zstd: .*memory"):
        unpacked(data, PACKINGS[2])
    wide = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 * MIB}])
    with pytest.raises(UnpackError, match=r"cannot be unpacked \(xz: Memory usage limit exceeded\)"):
        unpacked(wide, PACKINGS[1])


def test_a_packed_kernel_may_not_be_larger_than_ram() -> None:
    ram = make_ram(1 << 20)
    writes: list[int] = []
    ram.on_write = lambda address, length: writes.append(address)
    with pytest.raises(LoaderError, match=r"^vmlinuz: has more than 1 MiB when it is unpacked"):
        load_program(ram, io.BytesIO(gzip.compress(KERNEL.build() + bytes(1 << 20))), "vmlinuz")
    assert writes == []


def test_what_was_packed_is_named_when_it_is_no_kernel(packing: Packing) -> None:
    packed = io.BytesIO(PACK[packing.name](b"070701" + bytes(1000)))
    with pytest.raises(LoaderError, match=r"^initrd.img: is an initramfs \(cpio\), not a kernel; give it with --initrd"):
        load_program(make_ram(RAM), packed, "initrd.img")


def test_nothing_stays_open(packing: Packing) -> None:
    before = len(os.listdir("/proc/self/fd"))
    data = PACK[packing.name](KERNEL.build())
    for content in (data, data[:-1]):
        try:
            load_program(make_ram(RAM), io.BytesIO(content), "vmlinuz")
        except LoaderError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


@settings(max_examples=examples(200), database=None)
@given(st.sampled_from(sorted(PACK)), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_packed_bytes_load_or_are_refused(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(PACK[name](KERNEL.build()))
    for offset, value in changes:
        data[offset % len(data)] = value
    try:
        image = load_program(make_ram(0x80_0000), io.BytesIO(bytes(data)), "vmlinuz")
    except LoaderError:
        return
    assert image == LoadedImage(0x40_0000, 0x40_0000, 0x21000, little_endian=False)


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: f"{each.what}, {each.magic!r}")
def test_every_known_kind_of_file_is_named_with_what_to_do(each: object) -> None:
    assert isinstance(each, type(FORMATS[0]))
    data = bytearray(b"\x90" * 0x9000)
    data[each.offset : each.offset + len(each.magic)] = each.magic
    with pytest.raises(LoaderError) as refused:
        load_program(make_ram(RAM), io.BytesIO(bytes(data)), "image")
    assert (refused.value.problem.what, refused.value.problem.remedy) == (f"image: {each.what}", each.remedy)
    assert each.remedy
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (bz2.compress(TEXT), "is compressed with bzip2"),
        (lzma.compress(TEXT, lzma.FORMAT_ALONE), "is compressed with lzma"),
        (b"\x1f\x8b\x00" + bytes(100), "is not an ELF file"),
    ],
)
def test_what_other_programs_pack_is_named(data: bytes, what: str) -> None:
    with pytest.raises(LoaderError, match=f"^image: {what}; "):
        load_program(make_ram(RAM), io.BytesIO(data), "image")


def test_a_snapshot_is_named() -> None:
    assert any(each.magic == snapshot_file.MAGIC for each in FORMATS)


def test_a_file_that_is_not_packed_is_left_alone() -> None:
    assert packing_of(io.BytesIO(KERNEL.build())) is None
    assert packing_of(io.BytesIO(b"")) is None
