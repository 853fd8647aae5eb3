# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells a PostgreSQL server that is not up yet, for which waiting may help, from one that refuses."""

from __future__ import annotations

import errno
import os

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_PING_SECONDS = 5
_STOPS = {"57P01", "57P02", "57P03"}
"""SQLSTATEs of a connection that a stopping server ends: admin_shutdown, crash_shutdown, cannot_connect_now."""

# libpq gives no codes for a connection that did not come to be. This process sets no language, so libpq speaks English of what
# happens on this side; what the server says is in the server's language.
_ERRORS = (
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH,
)  # fmt: skip
_NOBODY_THERE = (
    *(os.strerror(number) for number in _ERRORS),
    "server closed the connection unexpectedly",
    # cannot_connect_now: starting up, shutting down, in recovery mode, not accepting connections.
    "the database system is",
)


def is_absent(error: BaseException | None, location: str) -> bool:
    """Return whether a database that could not be opened may be there later, with nothing changed on this side.

    So it is while nobody listens, or the host has no name yet; while the server starts, stops or recovers; and before its first
    start has made the database. A wrong address or password and missing rights are not cured by time.

    Args:
        error: what opening it raised.
        location: its address.
    """
    if not isinstance(error, psycopg.OperationalError):
        return False
    if error.sqlstate is not None:
        return error.sqlstate in _STOPS
    if isinstance(error, psycopg.errors.ConnectionTimeout) or error.pgconn is None:
        # Without a connection that failed: one that was there was lost, or there is no such host.
        return True
    parts = conninfo_to_dict(location)
    database = str(parts.get("dbname") or parts.get("user") or "")
    text = str(error)
    if any(sign in text for sign in _NOBODY_THERE) or f'database "{database}" does not exist' in text:
        return True
    # For a server that speaks another language.
    return pq.PGconn.ping(make_conninfo(location, connect_timeout=_PING_SECONDS).encode()) == pq.Ping.REJECT
