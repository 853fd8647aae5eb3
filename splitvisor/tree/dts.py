# SPDX-License-Identifier: GPL-2.0-or-later
"""Device trees as text, as dtc 1.6 prints what it has read from a blob (Devicetree Specification 0.4, chapter 6).

A blob does not say what kind a value is, so that is guessed the way dtc does: text when it is printable and ends with a NUL and
has no more NULs than other bytes; else 32-bit cells when its length allows; else bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from splitvisor.tree.fdt import Node, Tree

_ESCAPES = {
    0x00: "\\0", 0x07: "\\a", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0B: "\\v", 0x0C: "\\f", 0x0D: "\\r",
    0x22: '\\"', 0x5C: "\\\\",
}  # fmt: skip
_TEXT = frozenset(range(0x20, 0x7F)) | {code for code in _ESCAPES if code < 0x20}
_CELL = 4


def format_tree(tree: Tree) -> Iterator[str]:
    """Yield the lines of a whole tree."""
    yield "/dts-v1/;"
    yield ""
    for address, size in tree.reservations:
        yield f"/memreserve/\t{address:#018x} {size:#018x};"
    yield from format_node(tree.root)


def format_node(top: Node) -> Iterator[str]:
    """Yield the lines of a node and everything under it."""
    # Not recursive; a text in the place of a node is the line that ends one.
    pending: list[tuple[Node | str, int]] = [(top, 0)]
    while pending:
        node, depth = pending.pop()
        indent = "\t" * depth
        if isinstance(node, str):
            yield indent + node
            continue
        if node is not top:
            yield ""
        yield f"{indent}{node.name or '/'} {{"
        for name, value in node.properties.items():
            yield f"{indent}\t{format_property(name, value)}"
        pending.append(("};", depth))
        pending += [(child, depth + 1) for child in reversed(node.children)]


def format_property(name: str, value: bytes) -> str:
    """Return a property as it stands in its node."""
    return f"{name} = {format_value(value)};" if value else f"{name};"


def format_value(value: bytes) -> str:
    """Return a value that is not empty."""
    if is_text(value):
        return '"' + "".join(_ESCAPES.get(code) or chr(code) for code in value[:-1]) + '"'
    if len(value) % _CELL == 0:
        cells = (int.from_bytes(value[offset : offset + _CELL], "big") for offset in range(0, len(value), _CELL))
        return f"<{' '.join(f'0x{cell:02x}' for cell in cells)}>"
    return f"[{value.hex(' ')}]"


def is_text(value: bytes) -> bool:
    """Tell whether a value is one or more texts, each with a NUL behind it."""
    return value[-1:] == b"\0" and 2 * value.count(0) <= len(value) and _TEXT.issuperset(value)
