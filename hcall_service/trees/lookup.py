# SPDX-License-Identifier: GPL-2.0-or-later
"""What others look up in a VM's stored tree: nodes by path and by phandle, and the interrupt parent of a device added later.

Firmware numbers nodes as it likes and hands its final tree back (H_UPDATE_DT, quiesce), so the phandles that a guest knows
stand in the stored head and nowhere else. A guest whose firmware was bypassed has the seed's, where the interrupt controller is
PHANDLE_XICS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from hcall_service.device_tree_store import Store, UnknownRevisionError
from hcall_service.trees.builder import PHANDLE_XICS
from splitvisor.tree import fdt
from splitvisor.tree.fdt import Node, Tree

INVALID_PHANDLES = frozenset({0, 0xFFFF_FFFF})
INTERRUPT_CONTROLLER = "interrupt-controller"
_CONTROLLER_COMPATIBLE = b"IBM,ppc-xicp"
_PHANDLE_PROPERTIES = ("phandle", "linux,phandle")


class NodeNotFoundError(LookupError):
    """A stored tree does not have the node that was asked for; the text names node and revision."""


@dataclass(frozen=True)
class FoundNode:
    """A node of a stored tree."""

    revision: int
    path: str
    phandle: int
    """0: the node has none."""
    node: Node


@dataclass(frozen=True)
class InterruptParent:
    """What the `interrupt-parent` of a device that is added to a running guest has to be."""

    phandle: int
    revision: int
    """The head it was looked up in; 0 when there is none."""
    path: str
    """The interrupt controller in that tree; empty: phandle is the fixed fallback."""
    reason: str
    """Why the fallback; empty when the tree has it."""

    @property
    def from_tree(self) -> bool:
        """True when the stored tree has it, False for the fallback."""
        return bool(self.path)


def phandle_of(node: Node) -> int:
    """Return a node's phandle, 0 when it has none that could be one."""
    for name in _PHANDLE_PROPERTIES:
        value = node.properties.get(name, b"")
        if len(value) == 4 and int.from_bytes(value) not in INVALID_PHANDLES:
            return int.from_bytes(value)
    return 0


def walk(tree: Tree) -> Iterator[tuple[str, Node]]:
    """Yield every node with its full path, the root first and levels in order."""
    pending = deque([("/", tree.root)])
    while pending:
        path, node = pending.popleft()
        yield path, node
        prefix = "" if path == "/" else path
        pending.extend((f"{prefix}/{child.name}", child) for child in node.children)


class TreeLookup:
    """Looks things up in a store. Methods block, as the store does.

    Every lookup reads the stored bytes anew: lookups are rare, and the head moves.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def by_path(self, vm: str, path: str, revision: int = 0) -> FoundNode:
        """Return the node at a full path. Raises NodeNotFoundError, UnknownRevisionError, StoreError."""
        number, tree = self._tree(vm, revision)
        node = tree.root.find(path)
        if node is None:
            raise NodeNotFoundError(f"no node {path[: fdt.MAX_NAME]!r} in revision {number} of VM {vm!r}")
        return FoundNode(number, path, phandle_of(node), node)

    def by_phandle(self, vm: str, phandle: int, revision: int = 0) -> FoundNode:
        """Return the node that has a phandle, the one nearest to the root when a guest gave it to several.

        Raises NodeNotFoundError, UnknownRevisionError, StoreError.
        """
        number, tree = self._tree(vm, revision)
        if phandle not in INVALID_PHANDLES:
            for path, node in walk(tree):
                if phandle_of(node) == phandle:
                    return FoundNode(number, path, phandle, node)
        raise NodeNotFoundError(f"no node with phandle {phandle:#x} in revision {number} of VM {vm!r}")

    def interrupt_parent(self, vm: str) -> InterruptParent:
        """Return the interrupt parent for a device added now; the fallback when the head has none. Raises StoreError."""
        try:
            number, tree = self._tree(vm, 0)
        except UnknownRevisionError as error:
            return InterruptParent(PHANDLE_XICS, 0, "", str(error))
        controller = next((node for node in tree.root.children if _is_controller(node)), None)
        if controller is None:
            return InterruptParent(PHANDLE_XICS, number, "", f"revision {number} has no interrupt controller under its root")
        phandle = phandle_of(controller)
        if not phandle:
            return InterruptParent(PHANDLE_XICS, number, "", f"/{controller.name} in revision {number} has no phandle")
        return InterruptParent(phandle, number, f"/{controller.name}", "")

    def _tree(self, vm: str, revision: int) -> tuple[int, Tree]:
        found, blob = self._store.get(vm, revision)
        return found.number, fdt.read(blob)


def _is_controller(node: Node) -> bool:
    compatible = node.properties.get("compatible", b"").split(b"\0")
    return _CONTROLLER_COMPATIBLE in compatible or node.name.partition("@")[0] == INTERRUPT_CONTROLLER
