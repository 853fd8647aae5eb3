# SPDX-License-Identifier: GPL-2.0-or-later
"""The store of device-tree revisions: append-only, one head, bounded, durable. The same in SQLite and in PostgreSQL."""

import hashlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from hcall_service.device_tree_store import (
    HeadMovedError,
    Revision,
    Store,
    StoreError,
    UnknownRevisionError,
    open_store,
)
from hcall_service.device_tree_store.postgresql import PostgresqlStore
from hcall_service.device_tree_store.sql_store import SqlStore
from hcall_service.device_tree_store.sqlite import SqliteStore
from splitvisor.rpc import device_tree_pb2 as pb
from tests.postgresql_server import PostgresqlServer

SEED, CAS = pb.TREE_ORIGIN_SEED, pb.TREE_ORIGIN_CAS


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is that does not exist yet, in each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/trees.sqlite"
    server: PostgresqlServer = request.getfixturevalue("server")
    return server.new_database()


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    store = open_store(location)
    yield store
    store.close()


def execute(location: str, statement: str) -> None:
    """Change a store's database behind its back."""
    if location.startswith("sqlite"):
        database = sqlite3.connect(location.removeprefix("sqlite:///"), isolation_level=None)
        database.execute(statement)
        database.close()
    else:
        with psycopg.connect(location, autocommit=True) as connection:
            connection.execute(b"SET search_path = splitvisor")
            connection.execute(statement.encode())


def numbers(store: Store, vm: str = "a") -> list[int]:
    return [revision.number for revision in store.revisions(vm)]


def test_a_revision_is_returned_as_it_was_put(store: Store) -> None:
    assert store.put("a", SEED, b"first") == 1
    assert store.put("a", CAS, b"second") == 2
    revision, blob = store.get("a")
    assert blob == b"second"
    assert revision == Revision(2, revision.time_ns, CAS, hashlib.sha256(b"second").digest(), 6)
    assert store.get("a", 1)[1] == b"first"
    assert numbers(store) == [2, 1]


def test_each_vm_counts_for_itself(store: Store) -> None:
    assert (store.put("a", SEED, b"1"), store.put("b", SEED, b"2"), store.put("a", SEED, b"3")) == (1, 1, 2)
    assert store.get("b")[1] == b"2"


@pytest.mark.parametrize("number", [0, 1, (1 << 64) - 1])
def test_what_was_never_put_is_unknown(store: Store, number: int) -> None:
    store.put("b", SEED, b"x")
    with pytest.raises(UnknownRevisionError):
        store.get("a", number)
    with pytest.raises(UnknownRevisionError):
        store.revisions("a")
    with pytest.raises(UnknownRevisionError):
        store.get("b", 2)


def test_the_head_moves_only_from_where_the_caller_has_seen_it(store: Store) -> None:
    with pytest.raises(HeadMovedError, match="revision 0, not 1"):
        store.put("a", CAS, b"x", expected=1)
    first = store.put("a", SEED, b"1")
    second = store.put("a", CAS, b"2", expected=first)
    with pytest.raises(HeadMovedError, match="revision 2, not 1"):
        store.put("a", CAS, b"3", expected=first)
    assert numbers(store) == [second, first]


def test_of_those_who_put_at_once_one_wins(location: str) -> None:
    stores = [open_store(location) for _ in range(2)]
    head = stores[0].put("a", SEED, b"seed")
    start = threading.Barrier(8)
    outcomes: list[int | None] = []

    def put(index: int) -> None:
        start.wait(timeout=10)
        try:
            outcomes.append(stores[index % 2].put("a", CAS, bytes([index]), expected=head))
        except HeadMovedError:
            outcomes.append(None)

    threads = [threading.Thread(target=put, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sorted(outcomes, key=lambda outcome: outcome or 0) == [None] * 7 + [2]
    assert numbers(stores[1]) == [2, 1]
    for store in stores:
        store.close()


def test_the_limit_drops_the_oldest_but_never_the_head_or_the_newest_seed(location: str) -> None:
    store = open_store(location, retention=3)
    store.put("b", SEED, b"stays")
    store.put("a", SEED, b"1")
    store.put("a", SEED, b"2")
    for content in b"3456":
        store.put("a", CAS, bytes([content]))
    assert numbers(store) == [6, 5, 2]
    assert store.put("a", SEED, b"7") == 7
    assert numbers(store) == [7, 6, 5]
    assert numbers(store, "b") == [1]
    store.close()


def test_the_head_is_known_without_its_bytes(store: Store) -> None:
    assert store.head("a") == 0
    store.put("a", SEED, b"1")
    assert store.put("a", CAS, b"2") == store.head("a") == 2


def test_every_byte_comes_back(store: Store) -> None:
    blob = bytes(range(256)) * 8192
    store.put("a", SEED, blob)
    assert store.get("a")[1] == blob


def test_revisions_outlive_the_process_and_numbers_go_on(location: str) -> None:
    store = open_store(location)
    store.put("a", SEED, b"1")
    store.close()
    store = open_store(location)
    assert store.get("a")[1] == b"1"
    assert store.put("a", SEED, b"2", expected=1) == 2
    store.close()


def test_a_damaged_revision_is_noticed(location: str, store: Store) -> None:
    store.put("a", SEED, b"good")
    execute(location, "UPDATE revisions SET sha256 = blob")
    with pytest.raises(StoreError, match="damaged"):
        store.get("a")


def test_a_newer_schema_is_refused(location: str) -> None:
    open_store(location).close()
    execute(location, "INSERT INTO schema_migrations VALUES (99, 0)")
    with pytest.raises(StoreError, match="newer"):
        open_store(location)


def test_an_older_store_is_brought_up_to_date_with_what_is_in_it(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(location)
    store.put("a", SEED, b"1")
    store.close()
    add_version(monkeypatch, "ALTER TABLE revisions ADD COLUMN note TEXT", "UPDATE revisions SET note = 'old'")
    for _ in range(2):
        store = open_store(location)
        assert store.get("a")[1] == b"1"
        store.close()
    execute(location, "INSERT INTO revisions (vm, number, time_ns, origin, sha256, size, blob, note) "
            "SELECT vm, 7, time_ns, origin, sha256, size, blob, note FROM revisions WHERE note = 'old'")  # fmt: skip
    store = open_store(location)
    assert numbers(store) == [7, 1]
    store.close()


def test_a_change_of_the_schema_that_fails_leaves_the_store_as_it_was(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(location)
    store.put("a", SEED, b"1")
    store.close()
    with monkeypatch.context() as patch:
        add_version(patch, "ALTER TABLE revisions RENAME TO gone", "SELECT * FROM nothing")
        with pytest.raises(StoreError, match="nothing"):
            open_store(location)
    store = open_store(location)
    assert store.get("a")[1] == b"1"
    store.close()


def test_those_who_open_a_new_store_at_once_all_can(location: str) -> None:
    start = threading.Barrier(4)
    opened: list[Store] = []

    def open_it() -> None:
        start.wait(timeout=10)
        opened.append(open_store(location))

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert [store.put("a", SEED, b"x") for store in opened] == [1, 2, 3, 4]
    for store in opened:
        store.close()


def add_version(monkeypatch: pytest.MonkeyPatch, *statements: str) -> None:
    """Give the schema a further version."""
    kinds: tuple[type[SqlStore], ...] = (SqliteStore, PostgresqlStore)
    for kind in kinds:
        monkeypatch.setattr(kind, "migrations", (*kind.migrations, statements))


def test_the_sqlite_database_is_as_durable_as_promised(tmp_path: Path) -> None:
    path = tmp_path / "trees.sqlite"
    store = open_store(str(path))
    assert isinstance(store, SqliteStore)
    assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_store_in_memory_is_a_store() -> None:
    store = open_store(":memory:")
    assert store.put("a", SEED, b"1") == 1
    assert store.get("a")[1] == b"1"
    store.close()


def test_the_postgresql_server_is_as_durable_as_promised_whatever_its_default(server: PostgresqlServer) -> None:
    location = server.new_database()
    with psycopg.connect(location, autocommit=True) as connection:
        connection.execute("ALTER ROLE splitvisor SET synchronous_commit = off")
    store = open_store(location)
    assert isinstance(store, PostgresqlStore)
    with store._transaction(write=False) as execute:
        assert execute("SHOW synchronous_commit") == [("on",)]
    store.close()


def test_what_was_put_survives_the_end_of_the_server_and_the_store_connects_again(server: PostgresqlServer) -> None:
    store = open_store(server.new_database())
    store.put("a", SEED, b"1")
    server.kill()
    try:
        with pytest.raises(StoreError, match="check that the server runs"):
            store.put("a", CAS, b"2")
    finally:
        server.start()
    assert store.get("a")[1] == b"1"
    server.kill()
    server.start()
    assert store.put("a", CAS, b"2", expected=1) == 2
    store.close()


@pytest.fixture
def impatient(server: PostgresqlServer) -> Iterator[PostgresqlStore]:
    store = PostgresqlStore(server.new_database(), 8, deadline=0.3)
    yield store
    store.close()


def test_a_server_that_does_not_answer_within_a_transaction_is_given_up(impatient: PostgresqlStore) -> None:
    def stop() -> None:
        with impatient._transaction(write=True) as execute:
            execute("INSERT INTO machines (name, head) VALUES ('half', 1)")
            [(pid,)] = execute("SELECT pg_backend_pid()")
            stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)
            execute("SELECT 1")

    stopped: list[int] = []
    with pytest.raises(StoreError, match="check that the server runs"):
        stop()
    os.kill(stopped[0], signal.SIGCONT)
    assert impatient.head("half") == 0
    assert impatient.put("a", SEED, b"1") == 1


def test_a_connection_that_does_not_answer_is_replaced(impatient: PostgresqlStore) -> None:
    impatient.put("a", SEED, b"1")
    with impatient._transaction(write=False) as execute:
        [(pid,)] = execute("SELECT pg_backend_pid()")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert impatient.put("a", CAS, b"2", expected=1) == 2
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_password_is_not_told(server: PostgresqlServer) -> None:
    location = f"postgresql://nobody:hunter2@/none?host={server.directory}"
    with pytest.raises(StoreError, match="nobody@") as caught:
        open_store(location)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    ["", "mysql://host/db", "sqlite://relative", "sqlite:///", "/nowhere/at/all/x.sqlite", "postgresql:///x?host=/nowhere",
     "postgresql://x:y/z"],
)  # fmt: skip
def test_a_place_that_cannot_be_opened_is_named(location: str) -> None:
    with pytest.raises(StoreError, match="device-tree store"):
        open_store(location)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trees.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"trees\.sqlite"):
        open_store(str(path))


def history(store: Store, vm: str) -> list[tuple[Revision, bytes]]:
    """What a snapshot has of a VM's trees."""
    return [store.get(vm, revision.number) for revision in reversed(store.revisions(vm))]


def test_a_saved_history_comes_back_with_numbers_and_times(store: Store) -> None:
    for number in range(3):
        store.put("old", SEED, b"tree %d" % number)
    saved = history(store, "old")
    assert store.restore("new", saved) == 3
    assert history(store, "new") == saved
    # Once more, it is what is there already.
    assert store.restore("new", saved) == 3
    assert history(store, "new") == saved
    assert store.put("new", CAS, b"next") == 4


def test_a_store_that_is_behind_gets_what_it_lacks(store: Store) -> None:
    for number in range(4):
        store.put("vm", SEED, b"tree %d" % number)
    saved = history(store, "vm")
    store.restore("other", saved[:2])
    assert store.restore("other", saved) == 4
    assert history(store, "other") == saved


def test_a_newer_history_is_kept_below_a_restored_tree(store: Store) -> None:
    store.put("vm", SEED, b"first")
    saved = history(store, "vm")
    store.put("vm", CAS, b"second")
    assert store.restore("vm", saved) == 3
    numbers = [(revision.number, revision.origin) for revision in store.revisions("vm")]
    assert numbers == [(3, pb.TREE_ORIGIN_RESTORE), (2, CAS), (1, SEED)]
    assert store.get("vm")[1] == b"first"
    # Once more, the head is that tree already.
    assert store.restore("vm", saved) == 3


def test_another_history_of_the_same_name_is_kept(store: Store) -> None:
    store.put("old", SEED, b"saved")
    store.put("vm", SEED, b"mine")
    assert store.restore("vm", history(store, "old")) == 2
    assert [blob for _, blob in history(store, "vm")] == [b"mine", b"saved"]
