# SPDX-License-Identifier: GPL-2.0-or-later
"""What is looked up in stored trees, and how they change when devices come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from hcall_service.device_tree_store import HeadMovedError, Store, UnknownRevisionError, open_store
from hcall_service.trees.builder import TreeBuildError
from hcall_service.trees.changes import ATTEMPTS, change_head
from hcall_service.trees.lookup import NodeNotFoundError, TreeLookup
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import trap_pb2
from splitvisor.tree import fdt
from splitvisor.tree.fdt import Node, Tree


def cell(value: int) -> bytes:
    return value.to_bytes(4)


def blob_with(*nodes: Node) -> bytes:
    return fdt.emit(Tree(Node("", {"phandle": cell(1)}, list(nodes))))


def controller(**properties: bytes) -> Node:
    return Node("interrupt-controller@f", {"compatible": b"vendor,xics\0IBM,ppc-xicp\0", **properties})


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store(":memory:")
    opened.put("vm", pb.TREE_ORIGIN_SEED, blob_with(Node("vdevice", {}, [Node("vty@1", {"phandle": cell(0x20)})])))
    yield opened
    opened.close()


def test_a_node_is_found_by_path_and_by_phandle(store: Store) -> None:
    lookup = TreeLookup(store)
    by_path = lookup.by_path("vm", "/vdevice/vty@1")
    assert (by_path.revision, by_path.phandle, by_path.node.name) == (1, 0x20, "vty@1")
    assert lookup.by_phandle("vm", 0x20) == by_path
    assert lookup.by_phandle("vm", 1).path == "/"
    assert lookup.by_path("vm", "/vdevice").phandle == 0


def test_the_head_is_meant_unless_a_revision_is_named(store: Store) -> None:
    store.put("vm", pb.TREE_ORIGIN_UPDATE_DT, blob_with(Node("moved", {"linux,phandle": cell(0x20)})))
    lookup = TreeLookup(store)
    assert lookup.by_phandle("vm", 0x20).path == "/moved"
    assert lookup.by_phandle("vm", 0x20, 1).path == "/vdevice/vty@1"


@pytest.mark.parametrize("value", [b"", b"\0\0\0\x20\0", cell(0), cell(0xFFFF_FFFF)])
def test_what_cannot_be_a_phandle_is_none(store: Store, value: bytes) -> None:
    store.put("vm", pb.TREE_ORIGIN_UPDATE_DT, blob_with(Node("odd", {"phandle": value})))
    lookup = TreeLookup(store)
    assert lookup.by_path("vm", "/odd").phandle == 0
    for phandle in (0, 0x20, 0xFFFF_FFFF):
        with pytest.raises(NodeNotFoundError, match=f"phandle {phandle:#x} in revision 2"):
            lookup.by_phandle("vm", phandle)


def test_a_phandle_that_two_nodes_claim_is_that_of_the_one_nearer_to_the_root(store: Store) -> None:
    deep = Node("a", {}, [Node("deep", {"phandle": cell(9)})])
    store.put("vm", pb.TREE_ORIGIN_UPDATE_DT, blob_with(deep, Node("b", {"phandle": cell(9)})))
    assert TreeLookup(store).by_phandle("vm", 9).path == "/b"


def test_what_is_not_there_is_named(store: Store) -> None:
    lookup = TreeLookup(store)
    with pytest.raises(NodeNotFoundError, match="'/none' in revision 1 of VM 'vm'"):
        lookup.by_path("vm", "/none")
    with pytest.raises(UnknownRevisionError):
        lookup.by_path("other", "/")
    with pytest.raises(UnknownRevisionError):
        lookup.by_phandle("vm", 1, 7)


def test_the_interrupt_parent_is_the_controller_of_the_stored_head(store: Store) -> None:
    store.put("vm", pb.TREE_ORIGIN_QUIESCE, blob_with(controller(phandle=cell(0x77))))
    parent = TreeLookup(store).interrupt_parent("vm")
    assert (parent.phandle, parent.from_tree, parent.path, parent.revision) == (0x77, True, "/interrupt-controller@f", 2)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (Node("vdevice", {"interrupt-controller": b""}), "revision 2 has no interrupt controller under its root"),
        (controller(), "/interrupt-controller@f in revision 2 has no phandle"),
        (controller(phandle=cell(0)), "/interrupt-controller@f in revision 2 has no phandle"),
    ],
)
def test_without_one_it_is_the_fallback_and_it_says_why(store: Store, node: Node, reason: str) -> None:
    store.put("vm", pb.TREE_ORIGIN_UPDATE_DT, blob_with(node))
    parent = TreeLookup(store).interrupt_parent("vm")
    assert (parent.phandle, parent.from_tree, parent.reason) == (0x1111, False, reason)


def test_a_vm_without_a_tree_gets_the_fallback(store: Store) -> None:
    parent = TreeLookup(store).interrupt_parent("other")
    assert (parent.phandle, parent.revision, parent.from_tree) == (0x1111, 0, False)
    assert "no device tree of VM 'other'" in parent.reason


def described(path: str, **properties: bytes) -> trap_pb2.TreeNode:
    return trap_pb2.TreeNode(
        path=path, properties=[trap_pb2.TreeProperty(name=name, value=value) for name, value in properties.items()]
    )


def test_a_node_is_added_and_removed_as_hotplug_revisions(store: Store) -> None:
    node = described("/vdevice/vty@2", reg=cell(2))
    assert change_head(store, "vm", [], [node]) == 2
    assert TreeLookup(store).by_path("vm", "/vdevice/vty@2").node.properties == {"reg": cell(2)}
    assert change_head(store, "vm", [], [node]) == 2, "it is there already"
    assert change_head(store, "vm", ["/vdevice/vty@1", "/none/at/all"], []) == 3
    assert [child.name for child in fdt.read(store.get("vm")[1]).root.children[0].children] == ["vty@2"]
    assert change_head(store, "vm", ["/vdevice/vty@1", "/"], []) == 3, "it is gone already"
    assert [revision.origin for revision in store.revisions("vm")][:2] == [pb.TREE_ORIGIN_HOTPLUG] * 2


@pytest.mark.parametrize("path", ["/none/vty@2", "/vdevice/vty@1", "/vdevice/bad name", "vty", ""])
def test_a_node_that_cannot_stand_there_changes_nothing(store: Store, path: str) -> None:
    with pytest.raises(TreeBuildError):
        change_head(store, "vm", [], [described(path, reg=cell(9))])
    assert len(store.revisions("vm")) == 1


class Racing:
    """A store whose head somebody else moves before each of the first puts."""

    def __init__(self, store: Store, times: int) -> None:
        self.store, self.times = store, times
        self.get, self.revisions = store.get, store.revisions

    def put(self, vm: str, origin: int, blob: bytes, expected: int = 0) -> int:
        if self.times:
            self.times -= 1
            self.store.put(vm, pb.TREE_ORIGIN_UPDATE_DT, blob_with(Node("vdevice", {"count": cell(self.times)})))
        return self.store.put(vm, origin, blob, expected)


def test_a_change_is_made_on_the_head_that_there_is(store: Store) -> None:
    number = change_head(cast(Store, Racing(store, 3)), "vm", [], [described("/vdevice/vty@2")])
    root = fdt.read(store.get("vm", number)[1]).root
    bus = root.child("vdevice")
    assert bus is not None
    assert (bus.properties["count"], [child.name for child in bus.children]) == (cell(0), ["vty@2"])
    with pytest.raises(HeadMovedError):
        change_head(cast(Store, Racing(store, ATTEMPTS)), "vm", [], [described("/vdevice/vty@3")])
