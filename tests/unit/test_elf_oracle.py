# SPDX-License-Identifier: GPL-2.0-or-later
"""What the loader reads of a program is what binutils read of it."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpu_service.images.loader import LoaderError, load_program
from splitvisor.images.elf import ElfError, read_elf
from tests.amounts import examples
from tests.fake_machine import make_ram
from tests.unit.test_loader import CLIENT, KERNEL, RAM, TEXT, Program, Segment

pytestmark = pytest.mark.skipif(shutil.which("readelf") is None, reason="needs binutils")

LINE = re.compile(r"^  LOAD +(0x\w+) (0x\w+) (0x\w+) (0x\w+) (0x\w+) (...) ", re.MULTILINE)


def readelf(path: Path) -> tuple[int, list[tuple[int, ...]], list[bool]]:
    """Entry, (offset, virtual, physical, file size, memory size) of each PT_LOAD, and whether it is executable."""
    shown = subprocess.run(["readelf", "-hlW", path], capture_output=True, text=True, check=True).stdout
    entry = re.search(r"Entry point address: +(0x\w+)", shown)
    assert entry is not None
    lines = LINE.findall(shown)
    return int(entry[1], 16), [tuple(int(each, 16) for each in line[:5]) for line in lines], ["E" in line[5] for line in lines]


def programs(bits: int) -> st.SearchStrategy[Program]:
    """Programs with up to six segments anywhere, entered at a segment's start."""
    addresses = st.integers(0, (RAM >> 12) + 2).map(lambda page: page << 12)
    segments = st.builds(
        lambda physical, shift, size, more, kind, flags: Segment(
            physical + (shift << 24), physical, TEXT[:size], size + more, kind, flags=flags
        ),
        addresses, st.integers(0, 3), st.sampled_from((0, 0x10, 0x300)), st.integers(0, 0x4000), st.sampled_from((1, 1, 1, 4)),
        st.integers(0, 7),
    )  # fmt: skip
    return st.builds(
        lambda segments, order, kind: Program(segments[0].virtual, tuple(segments), bits, order, kind=kind),
        st.lists(segments, min_size=1, max_size=6), st.sampled_from("<>"), st.sampled_from((2, 3)),
    )  # fmt: skip


@settings(max_examples=examples(60), database=None, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from((32, 64)).flatmap(programs))
def test_headers_are_read_as_readelf_reads_them_and_ram_is_as_they_say(tmp_path: Path, program: Program) -> None:
    path = tmp_path / "program"
    path.write_bytes(program.build())
    entry, segments, executable = readelf(path)
    try:
        elf = read_elf(io.BytesIO(path.read_bytes()))
    except ElfError as error:
        assert str(error).startswith("has nothing to load"), error  # noqa: PT017
        assert not any(each[4] for each in segments)
        return
    wanted = [(*each, flag) for each, flag in zip(segments, executable, strict=True) if each[4]]
    assert entry == elf.entry
    assert wanted == [
        (each.offset, each.virtual, each.physical, each.file_size, each.memory_size, each.executable) for each in elf.segments
    ]
    ram = make_ram(RAM)
    ram.write(0, b"\xff" * RAM)
    try:
        image = load_program(ram, io.BytesIO(path.read_bytes()), "program")
    except LoaderError:
        assert ram.read(0, RAM) == b"\xff" * RAM
        return
    expected = bytearray(b"\xff" * RAM)
    moved = 0x40_0000 if program.kind == 3 and min(each[2] for each in wanted) == 0 else 0
    for _, _, physical, _, whole, _ in wanted:
        expected[physical + moved : physical + moved + whole] = bytes(whole)
    for _, _, physical, size, _, _ in wanted:
        expected[physical + moved : physical + moved + size] = TEXT[:size]
    assert ram.read(0, RAM) == expected
    assert image.entry in {entry - each[1] + each[2] + moved for each in wanted}


@pytest.mark.parametrize("program", [KERNEL, CLIENT, replace(KERNEL, order="<"), replace(CLIENT, bits=64)])
def test_readelf_reads_the_programs_of_the_tests(tmp_path: Path, program: Program) -> None:
    path = tmp_path / "program"
    path.write_bytes(program.build())
    entry, segments, _ = readelf(path)
    assert entry == program.entry
    assert [each[1] for each in segments] == [each.virtual for each in program.segments]
