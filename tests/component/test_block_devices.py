# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of disk does what an array of bytes does, whatever is read and written in which order."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockDevice
from tests.amounts import examples
from tests.disk_images import Nbdkit, needs_nbdkit, needs_qemu, opened, qcow2_image, raw_image, read, run

SIZE = 1 << 20
SECTORS = SIZE // 512
Step = tuple[str, int, int, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "write", "fua", "zero", "unmap", "discard", "flush"]),
        st.integers(0, SECTORS - 1),
        st.sampled_from([1, 2, 7, 8, 127, 128, 129, 300, SECTORS]),
        st.integers(0, 1 << 30),
    ),
    max_size=12,
)


async def take(disk: BlockDevice, model: bytearray, steps: Sequence[Step]) -> None:
    """Do steps on a disk and on the model. A discarded range has its old bytes or zeroes, so it is read to know."""
    for what, sector, sectors, seed in steps:
        offset = sector * 512
        length = min(sectors * 512, SIZE - offset)
        source = random.Random(seed)
        if what == "read":
            assert await read(disk, offset, length) == model[offset : offset + length]
        elif what in ("write", "fua"):
            data = source.randbytes(length)
            cuts = sorted({0, length, *(source.randrange(length) for _ in range(seed % 5))})
            pieces = [memoryview(data)[start:end] for start, end in itertools.pairwise(cuts)]
            await disk.write(offset, Buffers(pieces), fua=what == "fua")
            model[offset : offset + length] = data
        elif what in ("zero", "unmap"):
            await disk.write_zeroes(offset, length, what == "unmap")
            model[offset : offset + length] = bytes(length)
        elif what == "discard":
            await disk.discard(offset, length)
            found = await read(disk, offset, length)
            assert all(new in (0, old) for new, old in zip(found, model[offset : offset + length], strict=True))
            model[offset : offset + length] = found
        else:
            await disk.flush()


KINDS = [
    "a.img",
    "a.img,cache=none",
    "a.img,cache=unsafe",
    "a.img,snapshot",
    *(
        pytest.param(f"a.{kind}{more}", marks=needs_qemu)
        for kind in ("qcow2", "vmdk", "vdi", "vhdx")
        for more in ("", ",snapshot")
    ),
    pytest.param("a.qcow2,cache=none", marks=needs_qemu),
    pytest.param("nbdkit memory 1M", marks=needs_nbdkit),
    pytest.param("nbdkit --no-sr memory 1M", marks=needs_nbdkit),
    pytest.param("nbdkit --filter=nozero memory 1M", marks=needs_nbdkit),
    pytest.param("nbdkit --filter=blocksize-policy memory 1M blocksize-maximum=64K", marks=needs_nbdkit),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_is_an_array_of_bytes(kind: str, tmp_path: Path, short_path: Path) -> None:
    server = None
    if kind.startswith("nbdkit"):
        server = Nbdkit(short_path, *kind.split()[1:])
        place = server.uri
    else:
        name = kind.partition(",")[0]
        (raw_image if name.endswith(".img") else qcow2_image)(tmp_path / name, SIZE)
        place = str(tmp_path / kind)

    @settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(STEPS)
    def model(steps: list[Step]) -> None:
        async def test() -> None:
            async with opened(place) as disk:
                assert disk.size == SIZE
                contents = bytearray(await read(disk, 0, SIZE))
                await take(disk, contents, steps)
                assert await read(disk, 0, SIZE) == contents
            async with opened(place) as disk:
                after = bytes(SIZE) if disk.options.snapshot else contents
                assert await read(disk, 0, SIZE) == after

        run(test)

    try:
        if server is not None:
            asyncio.run(server.start())
        model()
    finally:
        if server is not None:
            server.kill()


@needs_qemu
@pytest.mark.parametrize("name", ["a.img", "a.qcow2", "a.vmdk", "a.vdi", "a.vhdx"])
def test_qemu_reads_what_was_written_and_the_other_way_round(name: str, tmp_path: Path) -> None:
    path = (raw_image if name.endswith(".img") else qcow2_image)(tmp_path / name, 4 * SIZE)
    image_format = "raw" if name.endswith(".img") else path.suffix[1:]
    subprocess.run(["qemu-io", "-f", image_format, "-c", "write -P 0x11 1M 64k", path], check=True, stdout=subprocess.DEVNULL)

    async def test() -> None:
        async with opened(str(path)) as disk:
            assert await read(disk, SIZE, 64 << 10) == b"\x11" * (64 << 10)
            await disk.write(SIZE + 512, Buffers.of(b"\x22" * 512))

    run(test)
    expected = raw_image(tmp_path / "expected.raw", 4 * SIZE)
    with expected.open("r+b") as file:
        file.seek(SIZE)
        file.write(b"\x11" * 512 + b"\x22" * 512 + b"\x11" * (63 << 10))
    subprocess.run(["qemu-img", "compare", "-f", image_format, "-F", "raw", path, expected], check=True)


@pytest.mark.parametrize("kind", ["a.img", "a.img,snapshot", pytest.param("a.qcow2", marks=needs_qemu)])
def test_many_transfers_at_once_do_not_mix(kind: str, tmp_path: Path) -> None:
    name = kind.partition(",")[0]
    (raw_image if name.endswith(".img") else qcow2_image)(tmp_path / name, SIZE)
    part = SIZE // 16 + 512  # Shares clusters with its neighbours, and no sector.

    async def test() -> None:
        async with opened(str(tmp_path / kind)) as disk:

            async def owner(number: int) -> None:
                source = random.Random(number)
                start, end = number * part, min((number + 1) * part, SIZE)
                mine = bytearray(end - start)
                for _ in range(40):
                    offset = source.randrange((end - start) // 512) * 512
                    length = min(source.choice([512, 4096, 65536]), end - start - offset)
                    data = source.randbytes(length)
                    await disk.write(start + offset, Buffers.of(data))
                    mine[offset : offset + length] = data
                    assert await read(disk, start, end - start) == mine

            await asyncio.gather(*(owner(number) for number in range(15)))
            assert disk.statistics.writes == 15 * 40
            assert disk.statistics.depth == 0
            assert disk.statistics.errors == 0

    run(test)
