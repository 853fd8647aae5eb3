# SPDX-License-Identifier: GPL-2.0-or-later
"""Device-tree nodes as a back end describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.tree.cells import cells, strings

PropertyValue = bytes | str | int | Sequence[int]
"""A property's value, as tree_node() takes it."""


def tree_node(path: str, properties: Mapping[str, PropertyValue]) -> pb.TreeNode:
    """Describe a device-tree node for Session.nodes().

    Args:
        path: the full path, such as "/vdevice/echo@30000000"; its parent exists or precedes it.
        properties: values by name, in order. A text gets its NUL; a number is one cell (32 bits, big-endian); numbers are several
            cells; bytes are used unchanged.

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
