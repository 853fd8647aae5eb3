# SPDX-License-Identifier: GPL-2.0-or-later
"""The format of snapshots: what is written is read back, and whatever else comes ends in one line."""

from __future__ import annotations

import io
import mmap
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_service.snapshot.memory import CHUNK, PAGE, Unpacker, packed
from splitvisor.declarations.state import MAX_STATE_BYTES, StateCollector, StateError, parse_state, parts
from splitvisor.machine.snapshot_file import Kind, SectionWriter, SnapshotError, parse_machine, read_sections
from splitvisor.rpc import state_pb2
from tests.amounts import examples

SECTIONS = [
    (Kind.MACHINE, state_pb2.SavedMachine(version=1).SerializeToString()),
    (Kind.VCPUS, b"vcpus"),
    (Kind.INTERRUPTS, b""),
    (Kind.BACKEND, b"a" * 1000),
    (Kind.BACKEND, b"b"),
    (Kind.RAM, b"r" * 5000),
    (Kind.HASH_TABLE, b"h"),
]


def snapshot(sections: list[tuple[Kind, bytes]] = SECTIONS) -> bytes:
    writer = SectionWriter()
    return b"".join((writer.header(), *(writer.section(kind, payload) for kind, payload in sections), writer.end()))


def refusal(data: bytes) -> str:
    with pytest.raises(SnapshotError) as refused:
        list(read_sections(io.BytesIO(data)))
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_what_was_written_is_read() -> None:
    assert list(read_sections(io.BytesIO(snapshot()))) == SECTIONS


@given(st.data())
@settings(max_examples=examples(300))
def test_a_changed_byte_is_always_noticed(data: st.DataObject) -> None:
    whole = bytearray(snapshot())
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    refusal(bytes(whole))


@given(st.integers(0, len(snapshot()) - 1))
@settings(max_examples=examples(200))
def test_a_truncated_snapshot_is_refused(length: int) -> None:
    assert "ends within" in refusal(snapshot()[:length])


@given(st.binary(max_size=300))
def test_rubbish_is_refused(data: bytes) -> None:
    refusal(data)
    refusal(snapshot()[:12] + data)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        (SECTIONS[1:], "does not belong there"),
        ([SECTIONS[0], SECTIONS[0], *SECTIONS[1:]], "does not belong there"),
        ([*SECTIONS[:5], SECTIONS[6], SECTIONS[5]], "does not belong there"),
        ([], "does not belong there"),
    ],
)
def test_sections_out_of_order_are_refused(sections: list[tuple[Kind, bytes]], text: str) -> None:
    assert text in refusal(snapshot(sections))


def test_a_section_that_was_taken_out_is_missed() -> None:
    writer = SectionWriter()
    made = [writer.header(), *(writer.section(kind, payload) for kind, payload in SECTIONS), writer.end()]
    assert "missing" in refusal(b"".join(part for number, part in enumerate(made) if number != 5))


def test_other_versions_are_refused_by_name() -> None:
    assert "format version 2" in refusal(snapshot()[:11] + b"\x02" + snapshot()[12:])
    with pytest.raises(SnapshotError, match="has version 7, this Splitvisor knows version 1"):
        parse_machine(state_pb2.SavedMachine(version=7).SerializeToString())
    with pytest.raises(StateError, match="the thing: its state has version 2, this Splitvisor knows version 1"):
        parse_state(state_pb2.VtyState, state_pb2.VtyState(version=2).SerializeToString(), 1, "the thing")
    with pytest.raises(StateError, match="the thing: its state is broken"):
        parse_state(state_pb2.VtyState, b"\xff\xff", 1, "the thing")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_state_travels_in_parts(size: int) -> None:
    state = bytes(size)
    collector = StateCollector("a back end")
    lasts = []
    for data, last in parts(state):
        assert len(data) <= 1 << 20
        collector.add(data)
        lasts.append(last)
    assert collector.state() == state
    assert lasts == [*[False] * (len(lasts) - 1), True]


def test_a_state_without_end_is_refused() -> None:
    collector = StateCollector("a back end")
    for _ in range(MAX_STATE_BYTES // (1 << 20)):
        collector.add(bytes(1 << 20))
    with pytest.raises(StateError, match="a back end"):
        collector.add(b"x")


# Memory.


def filled(pages: dict[int, bytes], size: int = 3 * CHUNK) -> mmap.mmap:
    area = mmap.mmap(-1, size)
    for number, data in pages.items():
        area[number * PAGE : number * PAGE + len(data)] = data
    return area


def unpack(messages: list[bytes], size: int) -> bytes:
    target = bytearray(size)

    def store(address: int, data: memoryview) -> None:
        target[address : address + len(data)] = data

    with Unpacker("RAM", size, store) as unpacker:
        for message in messages:
            unpacker.add(message)
    return bytes(target)


@given(st.dictionaries(st.integers(0, 3 * CHUNK // PAGE - 1), st.binary(min_size=1, max_size=PAGE), max_size=30))
@settings(max_examples=examples(40))
def test_memory_comes_back_as_it_was(pages: dict[int, bytes]) -> None:
    area = filled(pages)
    counted: list[int] = []
    messages = list(packed(area, [(0, len(area))], counted.append))
    assert unpack(messages, len(area)) == area[:]
    assert sum(counted) == PAGE * sum(any(data) for data in pages.values())


def test_memory_that_cannot_be_compressed_comes_back() -> None:
    area = filled({number: random.Random(number).randbytes(PAGE) for number in range(2 * CHUNK // PAGE)})
    assert unpack(list(packed(area, [(0, len(area))], lambda _size: None)), len(area)) == area[:]


def test_only_memory_in_use_is_looked_at() -> None:
    area = filled({0: b"a", 700: b"b"})
    messages = list(packed(area, [(0, 100)], lambda _size: None))
    assert [state_pb2.SavedPages.FromString(message).address for message in messages] == [0]


def _edited(change: Callable[[state_pb2.SavedPages], None]) -> bytes:
    [message] = packed(filled({3: b"x", 4: b"y"}, CHUNK), [(0, CHUNK)], lambda _size: None)
    pages = state_pb2.SavedPages.FromString(message)
    change(pages)
    return pages.SerializeToString()


@pytest.mark.parametrize(
    "change",
    [
        lambda pages: setattr(pages, "address", 1),
        lambda pages: setattr(pages, "address", CHUNK),
        lambda pages: setattr(pages, "address", (1 << 64) - PAGE),
        lambda pages: setattr(pages, "present", b""),
        lambda pages: setattr(pages, "present", b"\xff" * 40),
        lambda pages: setattr(pages, "present", b"\xff"),
        lambda pages: setattr(pages, "pages", b"rubbish"),
        lambda pages: setattr(pages, "pages", pages.pages[:-3]),
        # A frame that says of itself that it has 2**62 bytes.
        lambda pages: setattr(pages, "pages", bytes.fromhex("28b52ffde0") + (1 << 62).to_bytes(8, "little") + b"\x01\x00\x00"),
    ],
)
def test_pages_that_cannot_be_are_refused(change: Callable[[state_pb2.SavedPages], None]) -> None:
    with pytest.raises(SnapshotError):
        unpack([_edited(change)], CHUNK)


@given(st.binary(max_size=200))
@settings(max_examples=examples(50))
def test_rubbish_instead_of_pages_is_refused_or_has_none(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        unpack([data], CHUNK)
