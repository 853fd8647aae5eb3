# SPDX-License-Identifier: GPL-2.0-or-later
"""Differences of trees, and what is wrong with a tree beyond its format."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from splitvisor.tree import fdt
from splitvisor.tree.check import findings
from splitvisor.tree.diff import Change, differences
from splitvisor.tree.fdt import Node, Tree
from tests.real_trees import seed_blob


def test_equal_trees_have_no_differences_whatever_their_order() -> None:
    one = Tree(Node("", {"a": b"1", "b": b"2"}, [Node("x"), Node("y")]))
    other = Tree(Node("", {"b": b"2", "a": b"1"}, [Node("y"), Node("x")]))
    assert list(differences(one, other)) == []


def test_each_difference_is_told_by_path_and_property() -> None:
    before = Tree(Node("", {"same": b"", "gone": b"1", "other": b"1"}, [Node("a", {"p": b""}, [Node("b")]), Node("keep")]))
    after = Tree(Node("", {"same": b"", "other": b"2", "new": b""}, [Node("keep", {}, [Node("c", {"q": b"3"})])]), [(1, 2)])
    reserved = (1).to_bytes(8, "big") + (2).to_bytes(8, "big")
    assert list(differences(before, after)) == [
        Change("", "/memreserve/", b"", reserved),
        Change("/", "other", b"1", b"2"),
        Change("/", "new", None, b""),
        Change("/", "gone", b"1", None),
        Change("/keep/c", None, None, b""),
        Change("/keep/c", "q", None, b"3"),
        Change("/a", None, b"", None),
        Change("/a", "p", b"", None),
        Change("/a/b", None, b"", None),
    ]


def machine() -> Tree:
    """A tree without anything wrong."""
    tree = fdt.read(seed_blob())
    bus = tree.root.find("/vdevice")
    assert bus is not None
    bus.properties |= {"#address-cells": b"\0\0\0\1", "#size-cells": b"\0\0\0\0"}
    assert findings(tree) == []
    return tree


def _node(tree: Tree, path: str) -> Node:
    node = tree.root.find(path)
    assert node is not None
    return node


def _remove_cpus(tree: Tree) -> None:
    tree.root.children.remove(_node(tree, "/cpus"))


@pytest.mark.parametrize(
    ("spoil", "path", "text"),
    [
        (_remove_cpus, "/cpus", "is missing"),
        (lambda tree: _node(tree, "/rtas").properties.update(phandle=b"\0\0\x11\x11"), "/interrupt-controller", "/rtas"),
        (lambda tree: _node(tree, "/rtas").properties.update(phandle=b"\0\0\0\0"), "/rtas", "not a phandle"),
        (lambda tree: _node(tree, "/rtas").properties.update({"interrupt-parent": b"\0\0\0\7"}), "/rtas", "0x7 is no node's"),
        (lambda tree: _node(tree, "/rtas").properties.update({"interrupt-parent": b"7"}), "/rtas", "not a phandle"),
        (lambda tree: _node(tree, "/memory@0").properties.update(reg=bytes(12)), "/memory@0", "12 bytes"),
        (lambda tree: _node(tree, "/memory@0").properties.update(reg=b"\1" + bytes(15)), "/memory@0", "unit address"),
        (lambda tree: tree.root.properties.update({"#size-cells": b"\xff" * 4}), "/memory@0", "size cells"),
        (lambda tree: _node(tree, "/event-sources").properties.pop("#interrupt-cells"), "/event-sources", "#interrupt-cells"),
        (lambda tree: _node(tree, "/chosen").properties.update({"stdout-path": b"/no/where\0"}), "/chosen", "/no/where"),
        (lambda tree: _node(tree, "/chosen").properties.update({"linux,initrd-start": bytes(8)}), "/chosen", "range"),
    ],
)
def test_what_is_wrong_is_found_where_it_is(spoil: Callable[[Tree], object], path: str, text: str) -> None:
    tree = machine()
    spoil(tree)
    assert any(finding.path == path and text in finding.text for finding in findings(tree))
