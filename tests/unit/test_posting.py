# SPDX-License-Identifier: GPL-2.0-or-later
"""Which calls are posted, and with what; buffers are read as a byte at a time would be."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cpu_service.engine.ram import GuestRam
from cpu_service.link.events import LinkStatus
from cpu_service.routing.posting import Posted, Posting
from splitvisor.declarations.dma import PAGE_BYTES
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.tce_file import FILE_BYTES, TCE_READ, TCE_WRITE, TceTables, TceWindow

UNIT, KEYS = 0x7100_0003, frozenset({0x7100_0003})
RAM_PAGES, WINDOW_PAGES = 8, 8
LINK = cast(LinkStatus, SimpleNamespace(name="owner"))
VALID = 1 << 63
CALL_BYTES = 10


def ram() -> GuestRam:
    memory = GuestRam(mmap.mmap(-1, RAM_PAGES * PAGE_BYTES))
    memory.map[:] = bytes(at * 7 + (at >> 8) & 0xFF for at in range(memory.size))
    return memory


RAM = ram()


def window(tces: Sequence[int]) -> TceWindow:
    found = TceTables(mmap.mmap(-1, FILE_BYTES)).add(UNIT, WINDOW_PAGES)
    assert found is not None
    for page, tce in enumerate(tces):
        found[page] = tce
    return found


def posting(**buffers: int) -> Posting:
    described = pb.DescribedBuffers(first=1, **buffers)
    return Posting(LINK, pb.Route(arguments=9, posted=pb.PostedPolicy(call_bytes=CALL_BYTES), buffers=described))


def descriptor(ioba: int, length: int) -> int:
    return VALID | length << 32 | ioba


def byte_by_byte(tces: Sequence[int], words: Sequence[int], least: int, most: int) -> Posted | None:
    """What posted() returns, as the contract words it."""
    data = bytearray()
    for word in words:
        if not word & VALID:
            break
        if word & 0xFFFF_FFFF > WINDOW_PAGES * PAGE_BYTES:
            return None  # Even an empty one is in the window.
        for ioba in range(word & 0xFFFF_FFFF, (word & 0xFFFF_FFFF) + (word >> 32 & 0xFF_FFFF)):
            tce = tces[ioba // PAGE_BYTES] if ioba // PAGE_BYTES < len(tces) else 0
            address = tce - tce % PAGE_BYTES + ioba % PAGE_BYTES
            if not tce & TCE_READ or address >= RAM.size or len(data) > most:
                return None
            data += RAM.map[address : address + 1]
    return Posted(CALL_BYTES + len(data), bytes(data)) if least <= len(data) <= most else None


TCES = st.builds(lambda page, flags: page * PAGE_BYTES | flags, st.integers(0, RAM_PAGES), st.sampled_from([0, 1, 2, 3, 3, 3]))
EDGES = st.builds(lambda page, near: max(0, page * PAGE_BYTES + near), st.integers(0, WINDOW_PAGES), st.integers(-40, 40))
WORDS = st.builds(
    lambda ioba, length, flags: ioba | length << 32 | flags,
    EDGES,
    st.integers(0, 5000),
    st.sampled_from([VALID, VALID, VALID, 0]),
)


@example([1] * WINDOW_PAGES, [descriptor(0, 24), descriptor(WINDOW_PAGES * PAGE_BYTES, 0), 0, 0, 0, 0])
@example([1] * WINDOW_PAGES, [descriptor(0, 24), descriptor(WINDOW_PAGES * PAGE_BYTES + 1, 0), 0, 0, 0, 0])
@given(st.lists(TCES, min_size=WINDOW_PAGES, max_size=WINDOW_PAGES), st.lists(WORDS, min_size=6, max_size=6))
def test_buffers_travel_as_they_are_read_a_byte_at_a_time(tces: list[int], words: list[int]) -> None:
    asked = posting(count=6, min_bytes=14, max_bytes=6000)
    found = asked.posted((UNIT, *words, 0, 0), KEYS, RAM, lambda _link, _unit: window(tces))
    assert found == byte_by_byte(tces, words, 14, 6000)


@pytest.mark.parametrize(
    ("word", "is_posted"),
    [
        (descriptor(0x1000, 2048), True),
        (descriptor(0x1004, 16), True),
        (descriptor(0x1000, 15), False),
        (descriptor(0x1002, 2048), False),
        (descriptor(0x2000, 2048), False),  # It may be written only.
        (descriptor(0x1FF8, 2048), False),  # Its first 16 bytes may not all be read.
        (descriptor(0x9000, 2048), False),
        (2048 << 32 | 0x1000, False),
    ],
)
def test_buffers_that_do_not_travel_are_looked_at(word: int, is_posted: bool) -> None:
    tces = [TCE_READ, 0x1000 | TCE_READ | TCE_WRITE, 0x2000 | TCE_WRITE]
    asked = posting(count=1, min_each=16, alignment=4, min_bytes=16)
    found = asked.posted((UNIT, word), KEYS, RAM, lambda _link, _unit: window(tces))
    assert found == (Posted(CALL_BYTES, b"") if is_posted else None)


def test_a_device_without_a_window_or_that_is_not_named_posts_nothing() -> None:
    asked = posting(count=1, min_bytes=1, max_bytes=100)
    arguments = (UNIT, descriptor(0, 10))
    assert asked.posted(arguments, KEYS, RAM, lambda _link, _unit: None) is None
    assert asked.posted((UNIT + 1, *arguments[1:]), KEYS, RAM, lambda _link, _unit: window([3])) is None
    assert asked.posted(arguments, KEYS, RAM, lambda _link, _unit: window([3])) == Posted(CALL_BYTES + 10, bytes(RAM.map[:10]))
