# SPDX-License-Identifier: GPL-2.0-or-later
"""Flattened device trees (Devicetree Specification 0.4, chapter 5): the only reader and writer of blobs.

Guests and networks give us blobs, so read() is a reader of our own: every offset is checked before use, every count is
bounded, and nothing recurses. emit() writes with pyfdt, which is fine for trees that we made or checked ourselves. What one
accepts the other does: read(emit(tree)) == tree, and emit() of equal trees gives equal bytes.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyfdt.pyfdt import FdtNode

MAGIC = 0xD00DFEED
MAX_SIZE = 2 << 20
"""Bytes of a blob: what SLOF and QEMU reserve for one."""
MAX_DEPTH = 64
"""Nodes on the way from the root to a leaf, the root included; pyfdt recurses as deep."""
MAX_NODES = 1 << 14
MAX_PROPERTIES = 1 << 10
"""Properties of one node."""
MAX_RESERVATIONS = 1 << 10
MAX_NAME = 127
"""Characters of a name. The specification's 31 is exceeded by PAPR itself (ibm,associativity-reference-points)."""

_BEGIN_NODE, _END_NODE, _PROPERTY, _NOP, _END = 1, 2, 3, 4, 9

_HEADER_16 = struct.Struct(">9I")
_HEADER_17 = struct.Struct(">10I")
_RESERVATION = struct.Struct(">QQ")
_WORD = struct.Struct(">I")
_TWO_WORDS = struct.Struct(">II")

_NODE_NAME = re.compile(rb"[0-9A-Za-z,._+-]+(@[0-9A-Za-z,._+-]+)?", re.ASCII)
_PROPERTY_NAME = re.compile(rb"[0-9A-Za-z,._+*#?-]+", re.ASCII)


class Check(StrEnum):
    """What read() and emit() look at; errors begin with these. docs/blob-reader.md compares them with libfdt's."""

    SIZE = "size"
    HEADER = "header"
    MAGIC = "magic"
    TOTAL_SIZE = "totalsize"
    VERSION = "version"
    COMPATIBLE = "last compatible version"
    RESERVATION_BLOCK = "reservation block"
    RESERVATION_ALIGNMENT = "reservation block's alignment"
    RESERVATION = "reservation"
    RESERVATION_COUNT = "reservation count"
    STRUCTURE_BLOCK = "structure block"
    STRUCTURE_ALIGNMENT = "structure block's alignment"
    STRUCTURE_SIZE = "structure block's size"
    STRINGS_BLOCK = "strings block"
    OVERLAP = "overlap"
    TAG = "tag"
    END_TAG = "end tag"
    ROOT = "root"
    DEPTH = "depth"
    NODE_COUNT = "node count"
    NODE_NAME = "node name"
    NODE_TWICE = "node twice"
    NODE_END = "end of node"
    PROPERTY_PLACE = "property's place"
    PROPERTY_SIZE = "property's size"
    PROPERTY_NAME = "property name"
    PROPERTY_TWICE = "property twice"
    PROPERTY_COUNT = "property count"
    BOOT_CPU = "boot CPU"


class FdtError(ValueError):
    """A blob or tree breaks the format.

    Args:
        check: what was looked at.
        found: what was found there, for people.
        offset: of the byte in the blob; None for a tree.
    """

    def __init__(self, check: Check, found: str, offset: int | None = None) -> None:
        super().__init__(f"{check}: {found}" if offset is None else f"{check}: {found} at {offset:#x}")
        self.check = check
        self.offset = offset


@dataclass
class Node:
    """A node: its name with unit address ("" for the root), its properties and children in their order."""

    name: str
    properties: dict[str, bytes] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def child(self, name: str) -> Node | None:
        """Return the child of exactly this name, unit address included."""
        return next((node for node in self.children if node.name == name), None)

    def find(self, path: str) -> Node | None:
        """Return the node at a full path that starts here; "/" is this node."""
        if not path.startswith("/"):
            return None
        node: Node | None = self
        for name in path.split("/")[1:] if path != "/" else ():
            node = node.child(name) if node is not None else None
        return node


@dataclass
class Tree:
    """What a blob holds."""

    root: Node
    reservations: list[tuple[int, int]] = field(default_factory=list)
    """(address, size) pairs that are not to be used as free memory."""
    boot_cpu: int = 0


def check_node_name(name: str) -> None:
    """Raise FdtError unless name may stand in a tree as a node other than the root."""
    if len(name) > MAX_NAME or not _NODE_NAME.fullmatch(name.encode(errors="replace")):
        raise FdtError(Check.NODE_NAME, repr(name[:MAX_NAME]))


def check_property_name(name: str) -> None:
    """Raise FdtError unless name may stand in a tree as a property."""
    if len(name) > MAX_NAME or not _PROPERTY_NAME.fullmatch(name.encode(errors="replace")):
        raise FdtError(Check.PROPERTY_NAME, repr(name[:MAX_NAME]))


@dataclass(frozen=True)
class _Header:
    structure: int
    structure_end: int
    strings: int
    strings_end: int
    reservations: int
    version: int
    boot_cpu: int


def read(blob: bytes) -> Tree:
    """Return the tree of a version 16 or 17 blob whose totalsize is its length. Raises FdtError, and nothing else."""
    header = _read_header(blob)
    reservations, reservations_end = _read_reservations(blob, header)
    root, structure_end = _read_structure(blob, header)
    if header.version >= 17 and structure_end != header.structure_end:
        raise FdtError(Check.STRUCTURE_SIZE, f"header has its end at {header.structure_end:#x}, the end tag ends", structure_end)
    _check_overlap(
        ("header", 0, _HEADER_17.size if header.version >= 17 else _HEADER_16.size),
        ("reservation block", header.reservations, reservations_end),
        ("structure block", header.structure, structure_end),
        ("strings block", header.strings, header.strings_end),
    )
    return Tree(root, reservations, header.boot_cpu)


def _read_header(blob: bytes) -> _Header:
    size = len(blob)
    if size > MAX_SIZE:
        raise FdtError(Check.SIZE, f"{size} bytes, at most {MAX_SIZE},", MAX_SIZE)
    if size < _HEADER_16.size:
        raise FdtError(Check.HEADER, "cut off", size)
    magic, total, structure, strings, reservations, version, compatible, boot_cpu, strings_size = _HEADER_16.unpack_from(blob)
    if magic != MAGIC:
        raise FdtError(Check.MAGIC, f"{magic:#010x}", 0)
    if total != size:
        raise FdtError(Check.TOTAL_SIZE, f"blob has {size} bytes, {total} stands", 4)
    if version not in (16, 17):
        raise FdtError(Check.VERSION, f"16 and 17 are known, {version} stands", 20)
    if not 16 <= compatible <= version:
        raise FdtError(Check.COMPATIBLE, f"{compatible}", 24)
    structure_end = size
    if version >= 17:
        if size < _HEADER_17.size:
            raise FdtError(Check.HEADER, "cut off", size)
        structure_end = structure + _HEADER_17.unpack_from(blob)[9]
    if structure % 4:
        raise FdtError(Check.STRUCTURE_ALIGNMENT, "begins", structure)
    if structure_end > size:
        raise FdtError(Check.STRUCTURE_BLOCK, f"{structure:#x} to {structure_end:#x} of {size:#x} bytes, header", 8)
    if reservations % 8:
        raise FdtError(Check.RESERVATION_ALIGNMENT, "begins", reservations)
    if strings + strings_size > size:
        raise FdtError(Check.STRINGS_BLOCK, f"{strings:#x} to {strings + strings_size:#x} of {size:#x} bytes, header", 12)
    return _Header(structure, structure_end, strings, strings + strings_size, reservations, version, boot_cpu)


def _read_reservations(blob: bytes, header: _Header) -> tuple[list[tuple[int, int]], int]:
    """Return the entries and the offset behind the terminator."""
    entries: list[tuple[int, int]] = []
    offset = header.reservations
    while True:
        if offset + _RESERVATION.size > len(blob):
            raise FdtError(Check.RESERVATION_BLOCK, "not terminated", offset)
        address, size = _RESERVATION.unpack_from(blob, offset)
        offset += _RESERVATION.size
        if not address and not size:
            return entries, offset
        if address + size > 1 << 64:
            raise FdtError(Check.RESERVATION, "wraps around", offset - _RESERVATION.size)
        if len(entries) == MAX_RESERVATIONS:
            raise FdtError(Check.RESERVATION_COUNT, f"more than {MAX_RESERVATIONS}", offset)
        entries.append((address, size))


def _read_structure(blob: bytes, header: _Header) -> tuple[Node, int]:
    """Return the root and the offset behind FDT_END."""
    structure = _StructureReader(blob, header)
    actions: dict[int, Callable[[int], None]] = {
        _PROPERTY: structure.read_property,
        _BEGIN_NODE: structure.begin_node,
        _END_NODE: structure.end_node,
    }
    while True:
        start, tag = structure.next_tag()
        if tag == _END:
            return structure.finish(start), structure.offset
        if tag == _NOP:
            continue
        if tag not in actions:
            raise FdtError(Check.TAG, f"{tag:#x}", start)
        actions[tag](start)


class _StructureReader:
    """The place in a structure block, and the nodes that are open there. A method's start is the offset of its tag."""

    def __init__(self, blob: bytes, header: _Header) -> None:
        self.offset = header.structure
        self._blob = blob
        self._end = header.structure_end
        self._strings = (header.strings, header.strings_end)
        self._names: dict[int, str] = {}
        self._root: Node | None = None
        self._open: list[tuple[Node, set[str]]] = []
        self._count = 0

    def next_tag(self) -> tuple[int, int]:
        """Return the next tag's offset and the tag."""
        start = self.offset
        self.offset += 4
        if self.offset > self._end:
            raise FdtError(Check.END_TAG, "none before the structure block ends", self._end)
        (tag,) = _WORD.unpack_from(self._blob, start)
        return start, tag

    def read_property(self, start: int) -> None:
        if not self._open or self._open[-1][0].children:
            raise FdtError(Check.PROPERTY_PLACE, "not before a node's children", start)
        value = self.offset + 8
        if value > self._end:
            raise FdtError(Check.PROPERTY_SIZE, "cut off", start)
        length, name_offset = _TWO_WORDS.unpack_from(self._blob, self.offset)
        if value + length > self._end:
            raise FdtError(Check.PROPERTY_SIZE, f"{length} bytes leave the structure block", start)
        if name_offset not in self._names:
            self._names[name_offset] = self._property_name(name_offset, start)
        name = self._names[name_offset]
        properties = self._open[-1][0].properties
        if name in properties:
            raise FdtError(Check.PROPERTY_TWICE, f"second {name!r}", start)
        if len(properties) == MAX_PROPERTIES:
            raise FdtError(Check.PROPERTY_COUNT, f"more than {MAX_PROPERTIES}", start)
        properties[name] = self._blob[value : value + length]
        self.offset = value + ((length + 3) & ~3)

    def _property_name(self, name_offset: int, start: int) -> str:
        begin, limit = self._strings[0] + name_offset, self._strings[1]
        end = self._blob.find(b"\0", begin, min(limit, begin + MAX_NAME + 1)) if begin < limit else -1
        if end < 0 or not _PROPERTY_NAME.fullmatch(self._blob, begin, end):
            raise FdtError(Check.PROPERTY_NAME, f"string {name_offset:#x}, used", start)
        return self._blob[begin:end].decode("ascii")

    def begin_node(self, start: int) -> None:
        node = Node(self._node_name())
        self._count += 1
        if self._count > MAX_NODES:
            raise FdtError(Check.NODE_COUNT, f"more than {MAX_NODES}", start)
        if len(self._open) == MAX_DEPTH:
            raise FdtError(Check.DEPTH, f"more than {MAX_DEPTH}", start)
        if self._root is None:
            self._root = node
        elif not self._open:
            raise FdtError(Check.ROOT, "second", start)
        else:
            parent, siblings = self._open[-1]
            if node.name in siblings:
                raise FdtError(Check.NODE_TWICE, f"second {node.name!r}", start)
            siblings.add(node.name)
            parent.children.append(node)
        self._open.append((node, set()))

    def _node_name(self) -> str:
        begin = self.offset
        end = self._blob.find(b"\0", begin, min(self._end, begin + MAX_NAME + 1))
        if self._root is None and end != begin:
            raise FdtError(Check.ROOT, "has a name", begin)
        if end < 0 or not (self._root is None or _NODE_NAME.fullmatch(self._blob, begin, end)):
            raise FdtError(Check.NODE_NAME, "not one", begin)
        self.offset = (end + 4) & ~3
        return self._blob[begin:end].decode("ascii")

    def end_node(self, start: int) -> None:
        if not self._open:
            raise FdtError(Check.NODE_END, "none is open", start)
        self._open.pop()

    def finish(self, start: int) -> Node:
        """Return the root."""
        if self._root is None or self._open:
            raise FdtError(Check.END_TAG, "a node is open" if self._open else "no root", start)
        return self._root


def _check_overlap(*blocks: tuple[str, int, int]) -> None:
    ordered = sorted((begin, end, name) for name, begin, end in blocks if begin < end)
    for (_, end, name), (begin, _, other) in itertools.pairwise(ordered):
        if begin < end:
            raise FdtError(Check.OVERLAP, f"{other} begins in the {name}", begin)


def emit(tree: Tree) -> bytes:
    """Return the version 17 blob of a tree. Equal trees give equal bytes.

    Raises FdtError when the tree breaks a rule that read() holds a blob to.
    """
    if len(tree.reservations) > MAX_RESERVATIONS:
        raise FdtError(Check.RESERVATION_COUNT, f"{len(tree.reservations)}, at most {MAX_RESERVATIONS}")
    for address, size in tree.reservations:
        if address < 0 or size < 0 or not 0 < address + size <= 1 << 64 or max(address, size) >= 1 << 64:
            raise FdtError(Check.RESERVATION, f"{address:#x}+{size:#x}")
    if not 0 <= tree.boot_cpu < 1 << 32:
        raise FdtError(Check.BOOT_CPU, f"{tree.boot_cpu}")
    from pyfdt.pyfdt import Fdt  # slow to load, and who only reads does without

    blob = Fdt(version=17, last_comp_version=16, boot_cpuid_phys=tree.boot_cpu)
    blob.add_rootnode(_to_pyfdt(tree.root))
    blob.add_reserve_entries([{"address": address, "size": size} for address, size in tree.reservations])
    emitted: bytes = blob.to_dtb()
    if len(emitted) > MAX_SIZE:
        raise FdtError(Check.SIZE, f"{len(emitted)} bytes, at most {MAX_SIZE}")
    return emitted


def _to_pyfdt(root: Node) -> FdtNode:
    """Check a tree and return it as pyfdt has it, whose name for the root is "/"."""
    from pyfdt.pyfdt import FdtNode, FdtProperty, FdtPropertyBytes  # as above

    if root.name:
        raise FdtError(Check.ROOT, f"is named {root.name!r}")
    top = FdtNode("/")
    pending = [(root, top, 1)]
    count = value_bytes = 0
    while pending:
        node, target, depth = pending.pop()
        count += 1
        value_bytes += sum(map(len, node.properties.values()))
        for check, found, most in (
            (Check.NODE_COUNT, count, MAX_NODES),
            (Check.DEPTH, depth, MAX_DEPTH),
            (Check.PROPERTY_COUNT, len(node.properties), MAX_PROPERTIES),
            (Check.SIZE, value_bytes, MAX_SIZE),
        ):
            if found > most:
                raise FdtError(check, f"{found} with node {node.name!r}, at most {most}")
        # subdata is filled directly: append() looks through all of it for each name, and refuses a child named like a property.
        for name, value in node.properties.items():
            check_property_name(name)
            target.subdata.append(FdtPropertyBytes.init_raw(name, value) if value else FdtProperty(name))
        if len({child.name for child in node.children}) != len(node.children):
            raise FdtError(Check.NODE_TWICE, f"{node.name!r} has two children of one name")
        for child in node.children:
            check_node_name(child.name)
            emitted = FdtNode(child.name)
            target.subdata.append(emitted)
            pending.append((child, emitted, depth + 1))
    return top
