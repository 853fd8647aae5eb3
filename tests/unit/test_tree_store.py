# SPDX-License-Identifier: GPL-2.0-or-later
"""The store of device-tree revisions: append-only, one head, bounded, durable."""

import hashlib
import sqlite3
import threading
from pathlib import Path

import pytest

from hcall_service.device_tree_store import (
    HeadMovedError,
    Revision,
    Store,
    StoreError,
    UnknownRevisionError,
    open_store,
)
from splitvisor.rpc import device_tree_pb2 as pb

SEED, CAS = pb.TREE_ORIGIN_SEED, pb.TREE_ORIGIN_CAS


def numbers(store: Store, vm: str = "a") -> list[int]:
    return [revision.number for revision in store.revisions(vm)]


def test_a_revision_is_returned_as_it_was_put() -> None:
    store = open_store(":memory:")
    assert store.put("a", SEED, b"first") == 1
    assert store.put("a", CAS, b"second") == 2
    revision, blob = store.get("a")
    assert blob == b"second"
    assert revision == Revision(2, revision.time_ns, CAS, hashlib.sha256(b"second").digest(), 6)
    assert store.get("a", 1)[1] == b"first"
    assert numbers(store) == [2, 1]
    store.close()


def test_each_vm_counts_for_itself() -> None:
    store = open_store(":memory:")
    assert (store.put("a", SEED, b"1"), store.put("b", SEED, b"2"), store.put("a", SEED, b"3")) == (1, 1, 2)
    assert store.get("b")[1] == b"2"
    store.close()


@pytest.mark.parametrize("number", [0, 1, (1 << 64) - 1])
def test_what_was_never_put_is_unknown(number: int) -> None:
    store = open_store(":memory:")
    store.put("b", SEED, b"x")
    with pytest.raises(UnknownRevisionError):
        store.get("a", number)
    with pytest.raises(UnknownRevisionError):
        store.revisions("a")
    with pytest.raises(UnknownRevisionError):
        store.get("b", 2)
    store.close()


def test_the_head_moves_only_from_where_the_caller_has_seen_it() -> None:
    store = open_store(":memory:")
    with pytest.raises(HeadMovedError, match="revision 0, not 1"):
        store.put("a", CAS, b"x", expected=1)
    first = store.put("a", SEED, b"1")
    second = store.put("a", CAS, b"2", expected=first)
    with pytest.raises(HeadMovedError, match="revision 2, not 1"):
        store.put("a", CAS, b"3", expected=first)
    assert numbers(store) == [second, first]
    store.close()


def test_of_those_who_put_at_once_one_wins(tmp_path: Path) -> None:
    stores = [open_store(str(tmp_path / "trees.sqlite")) for _ in range(2)]
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


def test_the_limit_drops_the_oldest_but_never_the_head_or_the_newest_seed() -> None:
    store = open_store(":memory:", retention=3)
    store.put("a", SEED, b"1")
    store.put("a", SEED, b"2")
    for content in b"3456":
        store.put("a", CAS, bytes([content]))
    assert numbers(store) == [6, 5, 2]
    assert store.put("a", SEED, b"7") == 7
    assert numbers(store) == [7, 6, 5]
    store.close()


def test_revisions_outlive_the_process_and_numbers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "trees.sqlite"
    store = open_store(f"sqlite:///{path}")
    store.put("a", SEED, b"1")
    store.close()
    store = open_store(str(path))
    assert store.get("a")[1] == b"1"
    assert store.put("a", SEED, b"2", expected=1) == 2
    store.close()


def test_the_database_is_as_durable_as_promised(tmp_path: Path) -> None:
    path = tmp_path / "trees.sqlite"
    store = open_store(str(path))
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT version FROM schema_migrations").fetchall() == [(1,)]
    database.close()
    store.close()


def test_a_damaged_revision_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "trees.sqlite"
    store = open_store(str(path))
    store.put("a", SEED, b"good")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE revisions SET blob = ?", (b"evil",))
    database.close()
    with pytest.raises(StoreError, match="damaged"):
        store.get("a")
    store.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trees.sqlite"
    open_store(str(path)).close()
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO schema_migrations VALUES (99, 0)")
    database.close()
    with pytest.raises(StoreError, match="newer"):
        open_store(str(path))


@pytest.mark.parametrize("location", ["", "postgresql://host/db", "sqlite://relative", "sqlite:///", "/nowhere/at/all/x.sqlite"])
def test_a_place_that_cannot_be_opened_is_named(location: str) -> None:
    with pytest.raises(StoreError, match="device-tree store"):
        open_store(location)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trees.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"trees\.sqlite"):
        open_store(str(path))
