# SPDX-License-Identifier: GPL-2.0-or-later
"""The store in an SQLite file. A revision that put() has returned survives a crash of the host (WAL, synchronous=FULL)."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hcall_service.device_tree_store.store import HeadMovedError, Revision, Store, StoreError, UnknownRevisionError
from splitvisor.rpc import device_tree_pb2 as pb

BUSY_SECONDS = 5.0
"""How long a transaction waits for one of another process."""

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE machines (
            name TEXT PRIMARY KEY,
            head INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE revisions (
            vm TEXT NOT NULL REFERENCES machines (name),
            number INTEGER NOT NULL,
            time_ns INTEGER NOT NULL,
            origin INTEGER NOT NULL,
            sha256 BLOB NOT NULL,
            size INTEGER NOT NULL,
            blob BLOB NOT NULL,
            UNIQUE (vm, number)
        )
        """,
    ),
)
"""Statements that lead from each version of the schema to the next; one that was released is never changed."""

_PRUNE = """
    DELETE FROM revisions WHERE vm = :vm AND number IN (
        SELECT number FROM revisions
        WHERE vm = :vm
            AND number <> (SELECT head FROM machines WHERE name = :vm)
            AND number <> (SELECT coalesce(max(number), 0) FROM revisions WHERE vm = :vm AND origin = :seed)
        ORDER BY number
        LIMIT max(0, (SELECT count(*) FROM revisions WHERE vm = :vm) - :retention)
    )
"""


class SqliteStore(Store):
    """See Store.

    Args:
        path: the file, or ":memory:".
        retention: revisions to keep of each VM.
    """

    def __init__(self, path: str, retention: int) -> None:
        self._path = path
        self._retention = retention
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        try:
            with self._errors():
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except StoreError:
            self._database.close()
            raise

    def _failed(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"device-tree store {self._path}: {error}; check that the file can be written, or choose another")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _migrate(self) -> None:
        with self._transaction() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, applied_ns INTEGER NOT NULL)"
            )
            (version,) = database.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
            if version > len(_MIGRATIONS):
                raise StoreError(
                    f"device-tree store {self._path}: schema version {version} is newer than this Splitvisor knows "
                    f"({len(_MIGRATIONS)}); use the newer Splitvisor or another file"
                )
            for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in statements:
                    database.execute(statement)
                database.execute("INSERT INTO schema_migrations VALUES (?, ?)", (number, time.time_ns()))

    def put(self, vm: str, origin: int, blob: bytes, expected: int = 0) -> int:
        """See Store."""
        with self._transaction() as database:
            row = database.execute("SELECT head FROM machines WHERE name = ?", (vm,)).fetchone()
            head = row[0] if row else 0
            if expected not in (0, head):
                raise HeadMovedError(f"the head of VM {vm!r} is revision {head}, not {expected}; read it and try again")
            # The head is always the newest, so numbers are never used twice.
            number = int(head) + 1
            database.execute(
                "INSERT INTO machines VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET head = excluded.head", (vm, number)
            )
            database.execute(
                "INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (vm, number, time.time_ns(), origin, hashlib.sha256(blob).digest(), len(blob), blob),
            )
            database.execute(_PRUNE, {"vm": vm, "seed": pb.TREE_ORIGIN_SEED, "retention": self._retention})
        return number

    def get(self, vm: str, number: int = 0) -> tuple[Revision, bytes]:
        """See Store."""
        with self._lock, self._errors():
            row = self._database.execute(
                """
                SELECT number, time_ns, origin, sha256, size, blob FROM revisions
                WHERE vm = :vm AND number = CASE :number WHEN 0 THEN (SELECT head FROM machines WHERE name = :vm) ELSE :number END
                """,
                # A number that SQLite cannot hold is one that never was.
                {"vm": vm, "number": min(number, (1 << 63) - 1)},
            ).fetchone()
        if row is None:
            raise UnknownRevisionError(f"no revision {number} of VM {vm!r}" if number else f"no device tree of VM {vm!r}")
        *fields, blob = row
        revision = Revision(*fields)
        if hashlib.sha256(blob).digest() != revision.sha256:
            raise StoreError(f"device-tree store {self._path}: revision {revision.number} of VM {vm!r} is damaged")
        return revision, blob

    def revisions(self, vm: str) -> Sequence[Revision]:
        """See Store."""
        with self._lock, self._errors():
            rows = self._database.execute(
                "SELECT number, time_ns, origin, sha256, size FROM revisions WHERE vm = ? ORDER BY number DESC", (vm,)
            ).fetchall()
        if not rows:
            raise UnknownRevisionError(f"no device tree of VM {vm!r}")
        return [Revision(*row) for row in rows]

    def close(self) -> None:
        """See Store."""
        with self._lock:
            self._database.close()
