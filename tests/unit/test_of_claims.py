# SPDX-License-Identifier: GPL-2.0-or-later
"""claim, release and the "available" property."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from of_client_service.claims import ADDRESS_LIMIT, MAX_RANGES, Claims
from tests.unit.of_machine import INITRD, INITRD_END, KERNEL, KERNEL_BYTES, RAM_BYTES, Client

PAGE = 0x1000
PAGES = 64


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """claim and release calls on PAGES pages and somewhat beyond."""
    number = st.integers(0, PAGES + 4).map(lambda page: page * PAGE)
    one = st.tuples(st.sampled_from(["claim", "release"]), number, number, st.sampled_from([0, 1, PAGE, 4 * PAGE, 3]))
    return draw(st.lists(one, max_size=40))


@given(operations())
def test_claims_agree_with_a_map_of_pages_and_available_is_the_rest(steps: list[tuple[str, int, int, int]]) -> None:
    claims, used = Claims(PAGES * PAGE), [False] * PAGES
    for operation, address, size, align in steps:
        pages = range(address // PAGE, min((address + size) // PAGE, PAGES))
        if operation == "release":
            assert claims.release(address, size)
            for page in pages:
                used[page] = False
            continue
        result = claims.claim(address, size, align)
        if result is None:
            if align == 0 and size:
                assert address + size > PAGES * PAGE or any(used[page] for page in pages)
            continue
        assert result == address if align == 0 else result % align == 0
        first, last = result // PAGE, -(-(result + size) // PAGE)
        assert last <= PAGES
        if result % PAGE == 0:
            assert not any(used[first:last])
        for page in range(first, last):
            used[page] = True
        if result % PAGE:  # an odd alignment: keep the map of whole pages true
            claims.reserve(first * PAGE, (last - first) * PAGE)
    free = [False] * PAGES
    for start, length in claims.available():
        assert length > 0
        for page in range(start // PAGE, (start + length) // PAGE):
            free[page] = True
    assert free == [not page for page in used]
    ranges = claims.ranges()
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))


@given(st.lists(st.integers(1, 5).map(lambda pages: pages * PAGE), max_size=20))
def test_an_aligned_claim_fails_only_when_no_free_range_is_large_enough(sizes: list[int]) -> None:
    claims = Claims(PAGES * PAGE)
    for size in sizes:
        fits = any(length >= size for _, length in claims.available())
        assert (claims.claim(0, size, PAGE) is not None) == fits


def test_claims_end_below_4_gib_but_all_of_ram_is_published() -> None:
    claims = Claims(8 << 30)
    assert claims.claim(ADDRESS_LIMIT - PAGE, 2 * PAGE, 0) is None
    assert claims.claim(ADDRESS_LIMIT - PAGE, PAGE, 0) == ADDRESS_LIMIT - PAGE
    assert list(claims.available()) == [(0, ADDRESS_LIMIT - PAGE), (ADDRESS_LIMIT, 4 << 30)]


def test_the_number_of_ranges_is_bounded_for_claims_and_for_releases_that_split() -> None:
    claims = Claims(1 << 32)
    for index in range(MAX_RANGES):
        assert claims.claim(index * 4 * PAGE, 2 * PAGE, 0) is not None
    assert claims.claim(0xF000_0000, PAGE, 0) is None
    assert claims.claim(0, PAGE, PAGE) is None
    assert not claims.release(0x800, 0x800)
    assert claims.release(0, PAGE)


@pytest.mark.parametrize(
    "arguments",
    [
        (KERNEL, 16, 0),
        (KERNEL + KERNEL_BYTES - 1, 16, 0),
        (0, 16, 0),
        (0xFFF0, 16, 0),
        (INITRD_END - 1, 1, 0),
        (RAM_BYTES - 8, 16, 0),
        (0xFFFF_F000, 0xFFFF_F000, 0),
        (0x900000, 0, 0),
        (0, RAM_BYTES, 1),
        (0, 16, 0xFFFF_FFFF),
    ],
)
def test_claim_refuses_what_is_taken_or_not_ram(arguments: tuple[int, int, int]) -> None:
    assert Client().call("claim", *arguments) == -1


def test_claim_and_release_keep_available_true() -> None:
    client = Client()
    bounds = ((0x10000, KERNEL), (KERNEL + KERNEL_BYTES, INITRD), (INITRD_END, RAM_BYTES))
    seed = [(start, end - start) for start, end in bounds]
    assert available(client) == seed
    assert client.call("claim", 0x900000, 0x3000, 0) == 0x900000
    client.call_all("release", 0x901000, 0x1000, returns=0)
    *kept, (last, rest) = seed
    assert available(client) == [
        *kept,
        (last, 0x900000 - last),
        (0x901000, 0x1000),
        (0x903000, last + rest - 0x903000),
    ]
    client.call_all("release", 0x900000, 0x3000, returns=0)
    assert available(client) == seed
    assert client.call("claim", 0, 0x1000, 0x100000) == 0x100000


def test_the_firmware_cannot_be_released() -> None:
    client = Client()
    client.call_all("release", 0, 0x20000, returns=0)
    assert client.call("claim", 0, 0x1000, 0) == -1
    client.call_all("release", 0, 0x1000, returns=0)
    assert available(client)[0][0] == 0x10000


def available(client: Client) -> list[tuple[int, int]]:
    value = client.read_property("/memory", "available")
    return [struct.unpack_from(">QQ", value, offset) for offset in range(0, len(value), 16)]
