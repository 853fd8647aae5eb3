# SPDX-License-Identifier: GPL-2.0-or-later
"""The store in an SQLite file. A revision that put() has returned survives a crash of the host (WAL, synchronous=FULL)."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hcall_service.device_tree_store.sql_store import Execute, SqlStore
from hcall_service.device_tree_store.store import StoreError
from splitvisor.process.files import found_at, is_mounted_alone, require_regular

BUSY_SECONDS = 5.0
"""How long a transaction waits for one of another process."""
RETRY_SECONDS = 0.01
MEMORY = ":memory:"
"""In place of a path: nothing is kept."""
_REMEDY = "check that the file can be written, or choose another"


class SqliteStore(SqlStore):
    """See Store.

    Args:
        path: the file, or ":memory:".
        retention: revisions to keep of each VM.
    """

    migrations: ClassVar[tuple[tuple[str, ...], ...]] = (
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

    def __init__(self, path: str, retention: int) -> None:
        super().__init__(path, retention)
        self._lock = threading.Lock()
        if path != MEMORY:
            self._check(Path(path))
        try:
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._failed(error, _REMEDY) from error
        try:
            self._write_ahead()
            for setting in ("synchronous = FULL", "foreign_keys = ON"):
                self._database.execute(f"PRAGMA {setting}")
            self._migrate()
        except sqlite3.Error as error:
            self._database.close()
            raise self._failed(error, _REMEDY) from error
        except StoreError:
            self._database.close()
            raise

    def _check(self, path: Path) -> None:
        """Raise StoreError for what SQLite would wait for, or lose revisions in.

        It finds the log of a database by the database's name. So the log of one with two names is lost to the other name's user,
        and that of a file that is mounted alone goes with its container.
        """
        try:
            found = found_at(path)
            if found is None:
                return
            require_regular(found, path)
            if found.st_nlink > 1:
                raise self._failed("it has two names, and a log for each would lose revisions", "copy it instead of linking it")
            if is_mounted_alone(path):
                raise self._failed("it is mounted as a single file, which leaves its log outside", "mount its directory instead")
        except OSError as error:
            raise self._failed(error.strerror, _REMEDY) from error

    def _write_ahead(self) -> None:
        """Switch to write-ahead logging. SQLite waits for nobody who does the same to a new file, whatever its timeout is."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Execute]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield self._execute
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                if self._database.in_transaction:  # COMMIT failed: the disk is full, say.
                    self._database.execute("ROLLBACK")
                raise self._failed(error, _REMEDY) from error

    def _execute(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.execute(statement, parameters).fetchall()

    def close(self) -> None:
        """See Store."""
        with self._lock:
            self._database.close()
