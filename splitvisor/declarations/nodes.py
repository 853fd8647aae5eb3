# SPDX-License-Identifier: GPL-2.0-or-later
"""Device-tree nodes as a back end describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.tree.cells import cells, strings

PropertyValue = bytes | str | int | Sequence[int]
"""A property of a node: bytes as they are, text with its NUL, a 32-bit cell, or several cells."""


def tree_node(path: str, properties: Mapping[str, PropertyValue]) -> pb.TreeNode:
    """Describe a device-tree node for Session.nodes().

    Args:
        path: the full path, such as "/vdevice/echo@30000000"; its parent is there, or comes before it.
        properties: by name, in order. A text gets its NUL, a number is one cell (32 bits, big-endian), numbers are as many cells,
            bytes are taken as they are.

    Raises struct.error for a number that does not fit a cell.
    """
    encoded = [pb.TreeProperty(name=name, value=_property_value(value)) for name, value in properties.items()]
    return pb.TreeNode(path=path, properties=encoded)


def _property_value(value: PropertyValue) -> bytes:
    match value:
        case bytes():
            return value
        case str():
            return strings(value)
        case int():
            return cells(value)
        case _:
            return cells(*value)
