# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists in pages (AIP-158): a request has page_size and page_token, a response next_page_token, empty with the last page.

A token is the key of the last item before the page: a page starts behind it whatever was added or removed meanwhile, and a server
keeps nothing between two pages.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from splitvisor.errors.problem import ProblemError

DEFAULT_SIZE = 100
"""Items of a page when the request does not say."""
MAX_SIZE = 1000
"""Items of a page, whatever the request says."""
MAX_PAGES = 1000
"""That a client asks for: a server must not keep it for ever."""

_Item = TypeVar("_Item")


class PageError(ProblemError):
    """A request for a page cannot be answered."""


def page_of(items: Sequence[_Item], key: Callable[[_Item], str], request: Any) -> tuple[Sequence[_Item], str]:
    """Return a page of a list, in the order of its keys, and the token of the next page.

    Args:
        items: the whole list.
        key: the key of an item; no two are equal.
        request: has page_size and page_token.

    Raises PageError.
    """
    if request.page_size < 0:
        raise PageError(f"page_size: {request.page_size} is negative", f"give 1 to {MAX_SIZE}, or nothing")
    size = min(request.page_size or DEFAULT_SIZE, MAX_SIZE)
    last = _decode(request.page_token)
    page = list(islice((item for item in sorted(items, key=key) if key(item) > last), size + 1))
    if len(page) <= size:
        return page, ""
    page.pop()
    return page, base64.urlsafe_b64encode(key(page[-1]).encode()).decode()


def console_key(console: Any) -> str:
    """The key of a console in lists: by VM and unit address."""
    return f"{console.vm}\0{console.unit_address:08x}"


def every(rpc: Callable[..., Any], request: Any, timeout: float) -> list[Any]:
    """Return the items of all pages, of MAX_PAGES at most.

    Args:
        rpc: of a stub; its response has next_page_token and one repeated field.
        request: for the first page; its page_token is changed.
        timeout: seconds, for each page.

    Raises grpc.RpcError.
    """
    items: list[Any] = []
    for _ in _pages(request):
        response = rpc(request, timeout=timeout)
        items.extend(_items(response))
        request.page_token = response.next_page_token
    return items


async def every_aio(rpc: Callable[..., Any], request: Any, timeout: float) -> list[Any]:
    """The same for grpc.aio."""
    items: list[Any] = []
    for _ in _pages(request):
        response = await rpc(request, timeout=timeout)
        items.extend(_items(response))
        request.page_token = response.next_page_token
    return items


def _pages(request: Any) -> Iterator[None]:
    """One step for each page that is to be asked for."""
    for number in range(MAX_PAGES):
        if number and not request.page_token:
            return
        yield


def _items(response: Any) -> Sequence[Any]:
    (field,) = (each.name for each in response.DESCRIPTOR.fields if each.is_repeated)
    items: Sequence[Any] = getattr(response, field)
    return items


def _decode(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:  # not ASCII, not base64, or not text
        raise PageError("page_token is not one of next_page_token", "give that of the page before, unchanged") from None
