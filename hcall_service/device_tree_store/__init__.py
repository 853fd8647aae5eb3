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
    StoreAbsentError,
    StoreError,
    UnknownRevisionError,
)

__all__ = [
    "DEFAULT_RETENTION",
    "HeadMovedError",
    "Revision",
    "Store",
    "StoreAbsentError",
    "StoreError",
    "UnknownRevisionError",
    "is_served",
    "open_store",
    "store_name",
]

_POSTGRESQL = ("postgresql", "postgres")


def open_store(location: str, retention: int = DEFAULT_RETENTION) -> Store:
    """Open a store and bring its schema up to date.

    Args:
        location: a path, "sqlite:///PATH", "postgresql://USER@HOST:PORT/DATABASE", or ":memory:"; a file that does not exist is
            made, a database is not.
        retention: revisions to keep of each VM, at least 2.

    Raises StoreError, with the location and what to do; StoreAbsentError when it may be there if it is tried again.
    """
    if retention < 2:
        raise StoreError(f"--retention {retention}: too few revisions of each VM to keep; give at least 2")
    scheme, separator, rest = location.partition("://")
    if is_served(location):
        try:
            # psycopg is slow to load, and needs what a system may not have.
            from hcall_service.device_tree_store.postgresql import PostgresqlStore
        except ImportError as error:
            remedy = "pip install 'splitvisor[postgresql]'"
            raise StoreError(f"device-tree store: no PostgreSQL client ({error}); {remedy}") from error
        return PostgresqlStore(location, retention)
    if not location or (separator and (scheme != "sqlite" or not rest.startswith("/") or rest == "/")):
        remedy = "give a path, sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE"
        raise StoreError(f"device-tree store {location!r}: not a place that is known; {remedy}")
    return SqliteStore(rest[1:] if separator else location, retention)


def store_name(location: str) -> str:
    """Return what to call a store in logs: its location without a password. Raises StoreError when it is no address."""
    if is_served(location):
        from hcall_service.device_tree_store.postgresql import without_password  # see above

        return without_password(location)
    return location


def is_served(location: str) -> bool:
    """Return whether a store is a database that a server has, which may not be there."""
    scheme, separator, _ = location.partition("://")
    return bool(separator) and scheme in _POSTGRESQL
