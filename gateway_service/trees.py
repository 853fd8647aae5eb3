# SPDX-License-Identifier: GPL-2.0-or-later
"""Device trees as the page gets them: JSON, values formatted as dtc prints them.

A guest can make its tree as large as a blob may be, so what one answer holds is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.tree import fdt
from splitvisor.tree.diff import Change, differences
from splitvisor.tree.dts import format_value

MAX_VALUE = 1024
"""Bytes of a value that are shown."""
MAX_TEXT = 4 << 20
"""Characters of names and values in one answer."""

Json = dict[str, Any]


class TooLargeError(ValueError):
    """A tree or a difference is larger than an answer may be."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_TEXT >> 20} MiB of text; splitvisor dt shows it whole")


class _Budget:
    """Counts the text of an answer."""

    def __init__(self) -> None:
        self._left = MAX_TEXT

    def take(self, *texts: str) -> None:
        """Add texts, and what JSON puts around them. Raises TooLargeError."""
        self._left -= sum(len(text) + 8 for text in texts)
        if self._left < 0:
            raise TooLargeError


def revision_json(revision: pb.TreeRevision) -> Json:
    """Describe a revision."""
    return {
        "number": revision.number,
        "time_ms": revision.time.ToMilliseconds(),
        "origin": pb.TreeOrigin.Name(revision.origin).removeprefix("TREE_ORIGIN_").lower().replace("_", "-"),
        "size": revision.size,
        "sha256": revision.sha256.hex(),
    }


def tree_json(blob: bytes) -> Json:
    """Return the root of a blob with everything under it. Raises FdtError, TooLargeError."""
    return _node_json(fdt.read(blob).root, _Budget())


def _node_json(node: fdt.Node, budget: _Budget) -> Json:
    # Recursion is as deep as the reader lets a tree be, fdt.MAX_DEPTH.
    properties = [(name, _value_text(value)) for name, value in node.properties.items()]
    budget.take(node.name, *(text or "" for pair in properties for text in pair))
    return {
        "name": node.name or "/",
        "properties": properties,
        "children": [_node_json(child, budget) for child in node.children],
    }


def _value_text(value: bytes) -> str | None:
    """Return a value for people; None: there is a property, but no value."""
    if not value:
        return None
    if len(value) > MAX_VALUE:
        return f"[{value[:MAX_VALUE].hex(' ')} ... {len(value)} bytes]"
    return format_value(value)


def diff_json(before: bytes, after: bytes) -> list[Json]:
    """Return what two blobs differ in. Raises FdtError, TooLargeError."""
    return list(_changes(differences(fdt.read(before), fdt.read(after))))


def _changes(changes: Iterator[Change]) -> Iterator[Json]:
    budget = _Budget()
    for change in changes:
        kind = "added" if change.before is None else "removed" if change.after is None else "changed"
        found: Json = {"path": change.path, "name": change.name, "kind": kind}
        if change.name is not None:
            found["before"] = _value_text(change.before) if change.before is not None else None
            found["after"] = _value_text(change.after) if change.after is not None else None
        budget.take(*(text for text in found.values() if text is not None))
        yield found
