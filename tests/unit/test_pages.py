# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists in pages: every item once, whatever the size of a page and whatever changes between two."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitvisor.net.pages import MAX_PAGES, MAX_SIZE, PageError, every, every_aio, page_of
from splitvisor.rpc import vio_bus_pb2 as pb


class Server:
    """Serves a list of VMs."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.pages = 0

    def list_buses(self, request: pb.ListBusesRequest, timeout: float) -> pb.ListBusesResponse:
        """A page."""
        self.pages += 1
        page, token = page_of(self.names, str, request)
        return pb.ListBusesResponse(buses=[pb.Bus(vm=name) for name in page], next_page_token=token)

    async def list_buses_aio(self, request: pb.ListBusesRequest, timeout: float) -> pb.ListBusesResponse:
        """The same."""
        return self.list_buses(request, timeout)


NAMES = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=40)


@given(NAMES, st.integers(1, 50))
def test_all_pages_are_the_list(names: list[str], size: int) -> None:
    server = Server(names)
    found = every(server.list_buses, pb.ListBusesRequest(page_size=size), 1.0)
    assert [bus.vm for bus in found] == sorted(names)
    assert server.pages == max(1, -(-len(names) // size))
    again = asyncio.run(every_aio(server.list_buses_aio, pb.ListBusesRequest(page_size=size), 1.0))
    assert again == found


@given(NAMES, NAMES, st.integers(1, 5))
def test_what_stays_is_listed_once_though_others_come_and_go(before: list[str], after: list[str], size: int) -> None:
    server = Server(before)
    first, token = page_of(server.names, str, pb.ListBusesRequest(page_size=size))
    seen = list(first)
    while token:
        rest, token = page_of(after, str, pb.ListBusesRequest(page_size=size, page_token=token))
        seen += rest
    assert len(seen) == len(set(seen))
    if len(before) > size:
        assert set(before) & set(after) <= set(seen)


def test_a_page_has_a_limit_of_its_own() -> None:
    names = [f"{number:05}" for number in range(MAX_SIZE + 1)]
    page, token = page_of(names, str, pb.ListBusesRequest(page_size=1 << 30))
    assert (len(page), bool(token)) == (MAX_SIZE, True)


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListBusesRequest(page_size=-1),
        pb.ListBusesRequest(page_token="?"),
        pb.ListBusesRequest(page_token="_w=="),
        pb.ListBusesRequest(page_token="\u00e9"),
    ],
    ids=["negative", "not base64", "not text", "not ASCII"],
)
def test_a_wrong_request_is_refused(request_: pb.ListBusesRequest) -> None:
    with pytest.raises(PageError):
        page_of(["vm"], str, request_)


def test_a_server_without_a_last_page_keeps_nobody() -> None:
    asked = 0

    def endless(request: Any, timeout: float) -> pb.ListBusesResponse:
        nonlocal asked
        asked += 1
        return pb.ListBusesResponse(next_page_token="bW9yZQ==")

    assert every(endless, pb.ListBusesRequest(), 1.0) == []
    assert asked == MAX_PAGES
