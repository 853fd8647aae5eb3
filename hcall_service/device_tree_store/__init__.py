# SPDX-License-Identifier: GPL-2.0-or-later
"""Append-only revisions of every VM's flattened device tree, and a head that moves by compare-and-swap.

    store = open_store("sqlite:////var/lib/splitvisor/trees.sqlite")
"""

from __future__ import annotations

from hcall_service.device_tree_store.sqlite import SqliteStore
from hcall_service.device_tree_store.store import (
    DEFAULT_RETENTION,
    HeadMovedError,
    Revision,
    Store,
    StoreError,
    UnknownRevisionError,
)

__all__ = ["DEFAULT_RETENTION", "HeadMovedError", "Revision", "Store", "StoreError", "UnknownRevisionError", "open_store"]


def open_store(location: str, retention: int = DEFAULT_RETENTION) -> Store:
    """Open the store at a path, "sqlite:///PATH" or ":memory:", and bring its schema up to date.

    Args:
        location: where it is; a file that does not exist is made.
        retention: revisions to keep of each VM, at least 2.

    Raises StoreError, with the location and what to do.
    """
    scheme, separator, rest = location.partition("://")
    if separator and (scheme != "sqlite" or not rest.startswith("/") or rest == "/"):
        raise StoreError(f"device-tree store {location!r}: give a path or sqlite:///PATH")
    if not location or retention < 2:
        raise StoreError(f"device-tree store {location!r}: needs a location, and at least 2 revisions to keep")
    return SqliteStore(rest[1:] if separator else location, retention)
