# SPDX-License-Identifier: GPL-2.0-or-later
"""The store in a PostgreSQL database, for several hosts, or for backups and replicas that are there already.

Its tables are in a schema of their own, `splitvisor`, which is made when it is not there. A revision that put() has returned is
on the server's disk (synchronous_commit, whatever the server's default is).
"""

from __future__ import annotations

import functools
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from hcall_service.device_tree_store.postgresql_absence import is_absent
from hcall_service.device_tree_store.sql_store import Execute, SqlStore
from hcall_service.device_tree_store.store import StoreAbsentError, StoreError

CONNECT_SECONDS = 5
DEADLINE_SECONDS = 10.0
"""For a transaction. A server that has not answered by then is taken for gone; the next call connects again."""
_REMEDY = "check that the server runs and that this user may use the database"
_PORTS = re.compile(r"[0-9,]*")
"""libpq takes as many ports as hosts; none: 5432."""
_PARAMETER = re.compile(r":([a-z_0-9]+)")

_SETTINGS = (
    "SET synchronous_commit = on",
    "SET lock_timeout = '5s'",
    "SET statement_timeout = '8s'",
    # A service that was stopped in a transaction must not keep others waiting for its row.
    "SET idle_in_transaction_session_timeout = '10s'",
    "SET search_path = splitvisor",
)


class PostgresqlStore(SqlStore):
    """See Store. It connects anew when the server was restarted.

    Args:
        location: a postgresql:// address as libpq has it; a password is better kept in ~/.pgpass or PGPASSWORD.
        retention: revisions to keep of each VM.
        deadline: seconds for a transaction.

    Raises StoreError; StoreAbsentError while the server is not up or does not have the database yet.
    """

    migrations: ClassVar[tuple[tuple[str, ...], ...]] = (
        (
            """
            CREATE TABLE machines (
                name TEXT PRIMARY KEY,
                head BIGINT NOT NULL
            )
            """,
            """
            CREATE TABLE revisions (
                vm TEXT NOT NULL REFERENCES machines (name),
                number BIGINT NOT NULL,
                time_ns BIGINT NOT NULL,
                origin INTEGER NOT NULL,
                sha256 BYTEA NOT NULL,
                size INTEGER NOT NULL,
                blob BYTEA NOT NULL,
                PRIMARY KEY (vm, number)
            )
            """,
        ),
    )
    # The number is arbitrary, and the same in every Splitvisor.
    schema_lock: ClassVar[str] = "SELECT pg_advisory_xact_lock(7310584043)"

    def __init__(self, location: str, retention: int, deadline: float = DEADLINE_SECONDS) -> None:
        super().__init__(without_password(location), retention)
        self._location = location
        self._deadline = deadline
        self._lock = threading.Lock()
        self._closed = False
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        try:
            self._prepare_schema()
            self._migrate()
        except StoreError as error:
            self.close()
            if is_absent(error.__cause__, location):
                raise StoreAbsentError(str(error)) from error
            raise

    def _prepare_schema(self) -> None:
        with self._transaction(write=True) as execute:
            execute(self.schema_lock)
            # Not CREATE IF NOT EXISTS alone: that needs the right to create schemas even when it is there.
            if not execute("SELECT 1 FROM pg_namespace WHERE nspname = 'splitvisor'"):
                execute("CREATE SCHEMA splitvisor")

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = psycopg.connect(
            self._location, autocommit=True, connect_timeout=CONNECT_SECONDS, fallback_application_name="splitvisor"
        )
        try:
            for setting in _SETTINGS:
                connection.execute(setting.encode())
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Begin a transaction, on a new connection when the server has dropped the old one."""
        if self._connection is not None:
            with suppress(psycopg.OperationalError), self._watched():
                self._connection.execute(b"BEGIN")
                return self._connection
            self._disconnect()
        self._connection = self._connect()
        self._connection.execute(b"BEGIN")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Execute]:
        with self._lock:
            if self._closed:
                raise StoreError(f"device-tree store {self._name}: closed")
            try:
                connection = self._begin()
                try:
                    with self._watched():
                        if not write:
                            connection.execute(b"SET TRANSACTION READ ONLY")
                        yield functools.partial(_execute, connection)
                        connection.execute(b"COMMIT")
                except psycopg.Error:
                    raise
                except BaseException:
                    # The caller's error: what it did is undone, and the connection stays.
                    connection.execute(b"ROLLBACK")
                    raise
            except psycopg.Error as error:
                self._disconnect()
                raise self._failed(error, _REMEDY) from error

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Let whoever waits for the server in this context wait no longer than the deadline."""
        watchdog = threading.Timer(self._deadline, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def _give_up(self) -> None:
        """Make the wait for the server end with an error. Runs in the watchdog's thread."""
        connection = self._connection
        if connection is not None:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as stream:
                stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See Store."""
        with self._lock:
            self._closed = True
            self._disconnect()


def _execute(connection: psycopg.Connection[tuple[Any, ...]], statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    cursor = connection.execute(_translated(statement), parameters or None, prepare=True if parameters else None)
    return cursor.fetchall() if cursor.description is not None else []


@functools.cache
def _translated(statement: str) -> bytes:
    """A statement with its parameters as psycopg has them."""
    return _PARAMETER.sub(r"%(\1)s", statement).encode()


def without_password(location: str) -> str:
    """What to call it in logs and errors. Raises StoreError when it is no address."""
    try:
        parts = conninfo_to_dict(location)
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise StoreError(f"device-tree store: {reason}; give postgresql://USER@HOST:PORT/DATABASE") from None
    user, host, port, database = (str(parts.get(key) or "") for key in ("user", "host", "port", "dbname"))
    if not _PORTS.fullmatch(port):
        raise StoreError(f"device-tree store: {port!r} is no port; give postgresql://USER@HOST:PORT/DATABASE")
    return f"postgresql://{user}{'@' if user else ''}{host}{':' if port else ''}{port}/{database}"
