# SPDX-License-Identifier: GPL-2.0-or-later
"""H_UPDATE_DT: what firmware hands over is checked, kept as it is, and kept for good."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from hcall_service.device_tree_store import Store, StoreError, open_store
from hcall_service.trees.update_dt import HEADER_BYTES, PIECE_BYTES, TreeUpdates
from splitvisor.papr.codes import H
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.tree import fdt
from splitvisor.tree.fdt import Node, Tree
from tests.fake_vm import BytesMemory

RAM = 1 << 20
ADDRESS = 0x8000
SEED = fdt.emit(Tree(Node("", {"model": b"seed\0", "padding": bytes(2000)})))
FINAL = fdt.emit(Tree(Node("", {"model": b"final\0"}, [Node("chosen", {"phandle": b"\0\0\0\7"})])))


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store(":memory:")
    opened.put("vm", pb.TREE_ORIGIN_SEED, SEED)
    yield opened
    opened.close()


def update(store: Store, blob: bytes, *, at: int = ADDRESS, given: int | None = None, memory: BytesMemory | None = None) -> H:
    """Put a blob into RAM at an address and give that address, or another one, to the hypercall."""
    memory = memory or BytesMemory(RAM)
    memory.data[at : at + len(blob)] = blob
    return asyncio.run(TreeUpdates(store).update("vm", memory, at if given is None else given))


def origins(store: Store) -> list[int]:
    return [revision.origin for revision in store.revisions("vm")]


def padded(blob: bytes, size: int) -> bytes:
    """The same tree with free space behind it, as firmware leaves it."""
    return (blob[:4] + size.to_bytes(4) + blob[8:]).ljust(size, b"\0")


def test_the_blob_is_the_head_byte_for_byte(store: Store) -> None:
    assert update(store, FINAL) == H.SUCCESS
    revision, blob = store.get("vm")
    assert (revision.origin, blob) == (pb.TREE_ORIGIN_UPDATE_DT, FINAL)


def test_the_top_nibble_of_the_address_does_not_count(store: Store) -> None:
    assert update(store, FINAL, given=0xC000_0000_0000_0000 + ADDRESS) == H.SUCCESS
    assert store.get("vm")[1] == FINAL


def test_the_same_tree_again_is_not_a_second_revision(store: Store) -> None:
    assert [update(store, FINAL), update(store, FINAL)] == [H.SUCCESS, H.SUCCESS]
    assert origins(store) == [pb.TREE_ORIGIN_UPDATE_DT, pb.TREE_ORIGIN_SEED]
    store.put("vm", pb.TREE_ORIGIN_SEED, SEED)
    assert update(store, FINAL) == H.SUCCESS
    assert origins(store)[:2] == [pb.TREE_ORIGIN_UPDATE_DT, pb.TREE_ORIGIN_SEED]


def test_a_tree_may_be_twice_as_large_as_what_the_guest_started_from(store: Store) -> None:
    assert update(store, padded(FINAL, 2 * len(SEED) + 1)) == H.PARAMETER
    assert update(store, padded(FINAL, 2 * len(SEED))) == H.SUCCESS
    # What the guest gave does not raise the limit.
    assert update(store, padded(FINAL, 2 * len(SEED) + 1)) == H.PARAMETER


@pytest.mark.parametrize("origin", [pb.TREE_ORIGIN_CAS, pb.TREE_ORIGIN_QUIESCE])
def test_the_limit_goes_by_the_newest_tree_of_ours(store: Store, origin: pb.TreeOrigin) -> None:
    store.put("vm", origin, padded(SEED, 2 * len(SEED)))
    assert update(store, padded(FINAL, 4 * len(SEED))) == H.SUCCESS
    assert update(store, padded(FINAL, 4 * len(SEED) + 1)) == H.PARAMETER


def test_no_tree_is_larger_than_any_blob_may_be(store: Store) -> None:
    store.put("vm", pb.TREE_ORIGIN_CAS, padded(SEED, fdt.MAX_SIZE))
    memory = BytesMemory(2 * fdt.MAX_SIZE)
    assert update(store, padded(FINAL, fdt.MAX_SIZE + 1), memory=memory) == H.PARAMETER
    assert update(store, padded(FINAL, fdt.MAX_SIZE), memory=memory) == H.SUCCESS


@pytest.mark.parametrize(
    ("blob", "at", "given", "check"),
    [
        (b"", 0, RAM - HEADER_BYTES + 1, "header address"),
        (b"", 0, 0x0FFF_FFFF_FFFF_FFFF, "header address"),
        (b"", 0, RAM - HEADER_BYTES, "magic"),
        (bytes(100), 0, 0, "magic"),
        (FINAL[:4] + (HEADER_BYTES - 1).to_bytes(4) + FINAL[8:], 0, 0, "size"),
        (FINAL[:4] + b"\xff\xff\xff\xff" + FINAL[8:], 0, 0, "size"),
        (FINAL[:-1], RAM - len(FINAL) + 1, RAM - len(FINAL) + 1, "blob address"),
        (FINAL[:20] + (99).to_bytes(4) + FINAL[24:], 0, 0, "version"),
        (FINAL[:12] + (1 << 24).to_bytes(4) + FINAL[16:], 0, 0, "strings block"),
    ],
)
def test_a_refused_tree_is_not_stored_and_the_log_names_the_check(
    store: Store, blob: bytes, at: int, given: int, check: str
) -> None:
    with capture_logs() as lines:
        assert update(store, blob, at=at, given=given) == H.PARAMETER
    assert [(line["event"], line["check"], line["vm"]) for line in lines] == [("H_UPDATE_DT refused", check, "vm")]
    assert lines[0]["detail"]
    assert origins(store) == [pb.TREE_ORIGIN_SEED]


def test_a_vm_without_a_seed_is_refused(store: Store) -> None:
    memory = BytesMemory(RAM)
    memory.data[: len(FINAL)] = FINAL
    assert asyncio.run(TreeUpdates(store).update("other", memory, 0)) == H.PARAMETER


def test_a_store_that_fails_is_hardware_trouble(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise StoreError("disk full")

    monkeypatch.setattr(store, "put", full)
    with capture_logs() as lines:
        assert update(store, FINAL) == H.HARDWARE
    assert (lines[0]["check"], lines[0]["detail"]) == ("store", "disk full")


class WatchedMemory(BytesMemory):
    """Notes how much is read at once; after the header was read, the guest writes to it."""

    def __init__(self, scribble: bytes = b"") -> None:
        super().__init__(RAM)
        self.lengths: list[int] = []
        self.scribble = scribble

    async def read(self, address: int, length: int) -> bytes:
        data = await super().read(address, length)
        self.lengths.append(length)
        self.data[address : address + len(self.scribble)] = self.scribble
        return data


def test_memory_is_read_in_bounded_pieces_once(store: Store) -> None:
    store.put("vm", pb.TREE_ORIGIN_CAS, padded(SEED, 300_000))
    memory = WatchedMemory()
    assert update(store, padded(FINAL, 200_000), memory=memory) == H.SUCCESS
    assert memory.lengths == [HEADER_BYTES, PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 200_000 - 3 * PIECE_BYTES]


def test_a_guest_that_changes_the_size_meanwhile_gains_nothing(store: Store) -> None:
    memory = WatchedMemory(FINAL[:4] + (len(FINAL) + 64).to_bytes(4))
    with capture_logs() as lines:
        assert update(store, FINAL, memory=memory) == H.PARAMETER
    assert lines[0]["check"] == "totalsize"


def test_no_blob_makes_it_fail_otherwise(store: Store) -> None:
    choose = random.Random(3)
    stored = 0
    for _ in range(500):
        blob = bytearray(FINAL)
        for _ in range(choose.randrange(1, 4)):
            blob[choose.randrange(len(blob))] = choose.randrange(256)
        result = update(store, bytes(blob))
        assert result in (H.SUCCESS, H.PARAMETER)
        stored += result == H.SUCCESS
    assert 0 < stored < 500
