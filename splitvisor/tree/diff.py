# SPDX-License-Identifier: GPL-2.0-or-later
"""What two device trees differ in, by path and property. The order of nodes and properties does not count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from splitvisor.tree.fdt import Node, Tree


@dataclass(frozen=True)
class Change:
    """One difference."""

    path: str
    """Of the node; "" for what stands outside of the nodes."""
    name: str | None
    """The property; None: the node itself came or went, and its properties follow as changes of their own."""
    before: bytes | None
    """None: it was not there. For a node, b"" when it was."""
    after: bytes | None


def differences(before: Tree, after: Tree) -> Iterator[Change]:
    """Yield the differences of two trees, a node's before its children's, in the order of the second tree."""
    old, new = _reservations(before), _reservations(after)
    if old != new:
        yield Change("", "/memreserve/", old, new)
    pending: list[tuple[str, Node | None, Node | None]] = [("/", before.root, after.root)]
    while pending:
        path, left, right = pending.pop()
        if left is None or right is None:
            yield Change(path, None, None if left is None else b"", None if right is None else b"")
        left_properties = left.properties if left is not None else {}
        right_properties = right.properties if right is not None else {}
        for name in _union(right_properties, left_properties):
            one, other = left_properties.get(name), right_properties.get(name)
            if one != other:
                yield Change(path, name, one, other)
        left_children = {child.name: child for child in left.children} if left is not None else {}
        right_children = {child.name: child for child in right.children} if right is not None else {}
        prefix = path.rstrip("/")
        pending += [
            (f"{prefix}/{name}", left_children.get(name), right_children.get(name))
            for name in reversed(_union(right_children, left_children))
        ]


def _union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Names of both, those of the first before what only the second has."""
    return list(dict.fromkeys((*first, *second)))


def _reservations(tree: Tree) -> bytes:
    return b"".join(number.to_bytes(8, "big") for entry in tree.reservations for number in entry)
