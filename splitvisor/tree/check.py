# SPDX-License-Identifier: GPL-2.0-or-later
"""What a well-formed blob can still get wrong: references, sizes and nodes that every PAPR guest relies on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from splitvisor.tree.fdt import Node, Tree

REQUIRED = ("/cpus", "/memory@0", "/chosen", "/rtas")
"""Nodes without which a PAPR guest does not start (LoPAPR appendix B)."""
_CELL = 4
_DEFAULT_ADDRESS_CELLS, _DEFAULT_SIZE_CELLS = 2, 1
"""What counts without #address-cells and #size-cells (Devicetree Specification 0.4, 2.3.5)."""
_MAX_CELLS = 4


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a tree."""

    path: str
    text: str


@dataclass(frozen=True)
class _Place:
    path: str
    node: Node
    parent: Node | None


def findings(tree: Tree) -> list[Finding]:
    """Return what is wrong with a tree, in its order; nothing when it is fine."""
    places = list(_walk(tree.root))
    phandles: dict[int, str] = {}
    found = [Finding(path, "is missing") for path in REQUIRED if tree.root.find(path) is None]
    for place in places:
        found += (Finding(place.path, text) for text in _phandle(place, phandles))
        found += (Finding(place.path, text) for text in _reg(place))
    for place in places:
        found += (Finding(place.path, text) for text in _interrupts(place, phandles))
    found += _chosen(tree.root)
    return found


def _walk(root: Node) -> Iterator[_Place]:
    pending = [_Place("/", root, None)]
    while pending:
        place = pending.pop()
        yield place
        prefix = place.path.rstrip("/")
        pending += [_Place(f"{prefix}/{child.name}", child, place.node) for child in reversed(place.node.children)]


def _cell(node: Node, name: str, default: int | None = None) -> int | None:
    value = node.properties.get(name)
    return default if value is None or len(value) != _CELL else int.from_bytes(value, "big")


def _phandle(place: _Place, phandles: dict[int, str]) -> Iterator[str]:
    for name in ("phandle", "linux,phandle"):
        if name not in place.node.properties:
            continue
        value = _cell(place.node, name)
        if value in (None, 0, 0xFFFFFFFF):
            yield f"{name} is not a phandle"
        elif phandles.setdefault(value or 0, place.path) != place.path:
            yield f"{name} {value:#x} is that of {phandles[value or 0]} too"


def _reg(place: _Place) -> Iterator[str]:
    value = place.node.properties.get("reg")
    if value is None or place.parent is None:
        return
    address = _cell(place.parent, "#address-cells", _DEFAULT_ADDRESS_CELLS) or 0
    size = _cell(place.parent, "#size-cells", _DEFAULT_SIZE_CELLS) or 0
    if max(address, size) > _MAX_CELLS:
        yield f"its parent has {address} address cells and {size} size cells, at most {_MAX_CELLS} mean something"
    elif address + size and (not value or len(value) % (_CELL * (address + size))):
        yield f"reg has {len(value)} bytes, not a multiple of {_CELL * (address + size)} as its parent's cells say"
    else:
        unit = place.node.name.partition("@")[2]
        first = int.from_bytes(value[: _CELL * address], "big")
        if unit and address and all(character in "0123456789abcdefABCDEF" for character in unit) and int(unit, 16) != first:
            yield f"its unit address is not that of reg, {first:x}"


def _interrupts(place: _Place, phandles: dict[int, str]) -> Iterator[str]:
    if "interrupt-parent" in place.node.properties:
        value = _cell(place.node, "interrupt-parent")
        if value not in phandles:
            shown = "is not a phandle" if value is None else f"{value:#x} is no node's phandle"
            yield f"interrupt-parent {shown}"
    if "interrupt-controller" in place.node.properties and _cell(place.node, "#interrupt-cells") is None:
        yield "is an interrupt controller without #interrupt-cells"


def _chosen(root: Node) -> Iterator[Finding]:
    chosen = root.find("/chosen")
    if chosen is None:
        return
    for name in ("stdout-path", "linux,stdout-path"):
        path = chosen.properties.get(name, b"").rstrip(b"\0").decode("ascii", "replace").partition(":")[0]
        if path.startswith("/") and root.find(path) is None:
            yield Finding("/chosen", f"{name} is {path}, which is not a node")
    start, end = (chosen.properties.get(f"linux,initrd-{which}") for which in ("start", "end"))
    if (start is None) != (end is None) or (
        start is not None and end is not None and int.from_bytes(start, "big") > int.from_bytes(end, "big")
    ):
        yield Finding("/chosen", "linux,initrd-start and linux,initrd-end do not make a range")
