# SPDX-License-Identifier: GPL-2.0-or-later
"""What is the same in every SQL database: a row per VM with its head, a row per revision, and how they change."""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from hcall_service.device_tree_store.revision_counts import RevisionCounts
from hcall_service.device_tree_store.store import HeadMovedError, Revision, Store, StoreError, UnknownRevisionError
from splitvisor.rpc import device_tree_pb2 as pb

MAX_NUMBER = (1 << 63) - 1
"""The largest number that the databases hold."""

Execute = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement, whose parameters stand in it as `:name` and follow by name, and returns its rows."""

_CREATE_MIGRATIONS = "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, applied_ns BIGINT NOT NULL)"

# The head is always the newest, so numbers are never used twice. The row stays locked until the transaction ends.
_NEXT_NUMBER = """
    INSERT INTO machines (name, head) VALUES (:vm, 1)
    ON CONFLICT (name) DO UPDATE SET head = machines.head + 1
    RETURNING head
"""

# The same for a head that may stay as it is; 0: there was no such row.
_HEAD_TO_CHANGE = """
    INSERT INTO machines (name, head) VALUES (:vm, 0)
    ON CONFLICT (name) DO UPDATE SET head = machines.head
    RETURNING head
"""

_INSERT = """
    INSERT INTO revisions (vm, number, time_ns, origin, sha256, size, blob)
    VALUES (:vm, :number, :time_ns, :origin, :sha256, :size, :blob)
"""

_PRUNE = """
    DELETE FROM revisions WHERE vm = :vm AND number NOT IN (
        SELECT number FROM revisions WHERE vm = :vm
        ORDER BY
            CASE
                WHEN number = :head THEN 0
                WHEN number = (SELECT max(number) FROM revisions WHERE vm = :vm AND origin = :seed) THEN 0
                ELSE 1
            END,
            number DESC
        LIMIT :retention
    )
"""


class SqlStore(Store):
    """See Store. A subclass opens a database, sets what is below, calls _migrate, and gives transactions."""

    migrations: ClassVar[tuple[tuple[str, ...], ...]]
    """Statements that lead from each version of the schema to the next; one that was released is never changed."""
    schema_lock: ClassVar[str] = ""
    """A statement that makes others who migrate the same database wait for this transaction to end."""

    def __init__(self, name: str, retention: int) -> None:
        self._name = name
        self._retention = retention
        self._subscribers: list[Callable[[], None]] = []
        self.counts = RevisionCounts()

    @abstractmethod
    def _transaction(self, *, write: bool) -> AbstractContextManager[Execute]:
        """What is executed in it happens as a whole, durably, or not at all. Raises StoreError."""

    def _failed(self, reason: object, remedy: str) -> StoreError:
        return StoreError(f"device-tree store {self._name}: {' '.join(str(reason).split())}; {remedy}")

    def _migrate(self) -> None:
        """Bring the schema up to date, all of it or nothing. Raises StoreError, also for a schema that is newer than this."""
        with self._transaction(write=True) as execute:
            if self.schema_lock:
                execute(self.schema_lock)
            execute(_CREATE_MIGRATIONS)
            [(version,)] = execute("SELECT coalesce(max(version), 0) FROM schema_migrations")
            if version > len(self.migrations):
                found = f"schema version {version} is newer than this Splitvisor knows ({len(self.migrations)})"
                raise self._failed(found, "use the newer Splitvisor or another store")
            for number, statements in enumerate(self.migrations[version:], version + 1):
                for statement in statements:
                    execute(statement)
                execute(
                    "INSERT INTO schema_migrations (version, applied_ns) VALUES (:version, :now)",
                    version=number, now=time.time_ns(),
                )  # fmt: skip

    def put(self, vm: str, origin: int, blob: bytes, expected: int = 0) -> int:
        """See Store."""
        with self._transaction(write=True) as execute:
            [(number,)] = execute(_NEXT_NUMBER, vm=vm)
            head = int(number) - 1
            if expected not in (0, head):
                raise HeadMovedError(f"the head of VM {vm!r} is revision {head}, not {expected}; read it and try again")
            execute(
                _INSERT, vm=vm, number=number, time_ns=time.time_ns(), origin=int(origin), sha256=hashlib.sha256(blob).digest(),
                size=len(blob), blob=blob,
            )  # fmt: skip
            self._prune(execute, vm, int(number))
        self.counts.add(vm, int(origin), head + 1)
        self._tell()
        return head + 1

    def restore(self, vm: str, history: Sequence[tuple[Revision, bytes]]) -> int:
        """See Store."""
        newest, blob = history[-1]
        with self._transaction(write=True) as execute:
            [(head,)] = execute(_HEAD_TO_CHANGE, vm=vm)
            rows = execute("SELECT number, sha256 FROM revisions WHERE vm = :vm", vm=vm)
            stored = {int(number): bytes(digest) for number, digest in rows}
            saved = {revision.number: revision.sha256 for revision, _ in history}
            is_part = all(saved[number] == digest for number, digest in stored.items() if number in saved)
            if is_part and (int(head) in saved or not head):
                for revision, contents in history:
                    if revision.number > int(head):
                        self._insert(execute, vm, revision, contents)
            elif stored.get(int(head)) != newest.sha256:
                number = int(head) + 1
                again = Revision(number, time.time_ns(), pb.TREE_ORIGIN_RESTORE, newest.sha256, newest.size)
                self._insert(execute, vm, again, blob)
            [(head,)] = execute("SELECT head FROM machines WHERE name = :vm", vm=vm)
            self._prune(execute, vm, int(head))
        self._tell()
        return int(head)

    def _insert(self, execute: Execute, vm: str, revision: Revision, blob: bytes) -> None:
        execute(
            _INSERT, vm=vm, number=revision.number, time_ns=revision.time_ns, origin=int(revision.origin), sha256=revision.sha256,
            size=revision.size, blob=blob,
        )  # fmt: skip
        execute("UPDATE machines SET head = :head WHERE name = :vm", head=revision.number, vm=vm)

    def _prune(self, execute: Execute, vm: str, head: int) -> None:
        execute(_PRUNE, vm=vm, head=head, seed=int(pb.TREE_ORIGIN_SEED), retention=self._retention)

    def _tell(self) -> None:
        for tell in self._subscribers:
            tell()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """See Store."""
        self._subscribers.append(callback)

    def get(self, vm: str, number: int = 0) -> tuple[Revision, bytes]:
        """See Store."""
        wanted = ":number" if number else "(SELECT head FROM machines WHERE name = :vm)"
        query = f"SELECT number, time_ns, origin, sha256, size, blob FROM revisions WHERE vm = :vm AND number = {wanted}"
        with self._transaction(write=False) as execute:
            # A number that the database cannot hold is one that never was.
            rows = execute(query, vm=vm, **({"number": min(number, MAX_NUMBER)} if number else {}))
        if not rows:
            raise UnknownRevisionError(f"no revision {number} of VM {vm!r}" if number else f"no device tree of VM {vm!r}")
        *fields, blob = rows[0]
        revision = Revision(*fields)
        if hashlib.sha256(blob).digest() != revision.sha256:
            raise self._failed(f"revision {revision.number} of VM {vm!r} is damaged", "use another revision, or a backup")
        return revision, blob

    def head(self, vm: str) -> int:
        """See Store."""
        with self._transaction(write=False) as execute:
            rows = execute("SELECT head FROM machines WHERE name = :vm", vm=vm)
        return int(rows[0][0]) if rows else 0

    def revisions(self, vm: str) -> Sequence[Revision]:
        """See Store."""
        with self._transaction(write=False) as execute:
            rows = execute(
                "SELECT number, time_ns, origin, sha256, size FROM revisions WHERE vm = :vm ORDER BY number DESC", vm=vm
            )
        if not rows:
            raise UnknownRevisionError(f"no device tree of VM {vm!r}")
        return [Revision(*row) for row in rows]
