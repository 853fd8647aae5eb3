# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes that come to and go from a stored tree while a guest runs."""

from __future__ import annotations

from collections.abc import Sequence

from hcall_service.device_tree_store import HeadMovedError, Store
from hcall_service.trees.builder import add_nodes
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import trap_pb2
from splitvisor.tree import fdt
from splitvisor.tree.fdt import Node

ATTEMPTS = 8
"""How often a change is tried on a head that others move at the same time."""


def change_head(store: Store, vm: str, remove: Sequence[str], add: Sequence[trap_pb2.TreeNode]) -> int:
    """Take nodes out of a VM's head and put others in; return the revision that has them so, a new one only if it must be.

    Raises TreeBuildError and FdtError for nodes that cannot stand in the tree, HeadMovedError when the head never stands still,
    UnknownRevisionError, StoreError.
    """
    for attempt in range(ATTEMPTS):
        head, blob = store.get(vm)
        tree = fdt.read(blob)
        removed = [path for path in remove if _remove(tree.root, path)]
        missing = [node for node in add if not _stands(tree.root, node)]
        if not removed and not missing:
            return head.number
        add_nodes(tree.root, missing)
        try:
            return store.put(vm, pb.TREE_ORIGIN_HOTPLUG, fdt.emit(tree), head.number)
        except HeadMovedError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _remove(root: Node, path: str) -> bool:
    parent_path, _, name = path.rpartition("/")
    parent = root.find(parent_path or "/")
    node = parent.child(name) if parent is not None else None
    if parent is None or node is None:
        return False
    parent.children.remove(node)
    return True


def _stands(root: Node, described: trap_pb2.TreeNode) -> bool:
    node = root.find(described.path)
    return node is not None and all(node.properties.get(entry.name) == entry.value for entry in described.properties)
