# SPDX-License-Identifier: GPL-2.0-or-later
"""Flattened device trees (Devicetree Specification 0.4, chapter 5): the one door through which a blob comes in or goes out.

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

from pyfdt.pyfdt import Fdt, FdtNode, FdtProperty, FdtPropertyBytes

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


class FdtError(ValueError):
    """A blob or tree breaks the format; the message names the check, and for a blob the offset of the byte."""


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
        raise FdtError(f"node name: {name[:MAX_NAME]!r}")


def check_property_name(name: str) -> None:
    """Raise FdtError unless name may stand in a tree as a property."""
    if len(name) > MAX_NAME or not _PROPERTY_NAME.fullmatch(name.encode(errors="replace")):
        raise FdtError(f"property name: {name[:MAX_NAME]!r}")


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
        raise FdtError(f"structure block: ends at {structure_end:#x}, header says {header.structure_end:#x}")
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
        raise FdtError(f"size: {size} bytes, at most {MAX_SIZE}")
    if size < _HEADER_16.size:
        raise FdtError(f"header: cut off at {size:#x}")
    magic, total, structure, strings, reservations, version, compatible, boot_cpu, strings_size = _HEADER_16.unpack_from(blob)
    if magic != MAGIC:
        raise FdtError(f"magic: {magic:#010x} at 0x0")
    if total != size:
        raise FdtError(f"totalsize: {total} at 0x4, blob has {size} bytes")
    if version not in (16, 17):
        raise FdtError(f"version: {version} at 0x14, known are 16 and 17")
    if not 16 <= compatible <= version:
        raise FdtError(f"last compatible version: {compatible} at 0x18")
    structure_end = size
    if version >= 17:
        if size < _HEADER_17.size:
            raise FdtError(f"header: cut off at {size:#x}")
        structure_end = structure + _HEADER_17.unpack_from(blob)[9]
    if structure % 4 or structure_end > size:
        raise FdtError(f"structure block: {structure:#x} to {structure_end:#x}")
    if reservations % 8:
        raise FdtError(f"reservation block: not aligned at {reservations:#x}")
    if strings + strings_size > size:
        raise FdtError(f"strings block: {strings:#x} to {strings + strings_size:#x}")
    return _Header(structure, structure_end, strings, strings + strings_size, reservations, version, boot_cpu)


def _read_reservations(blob: bytes, header: _Header) -> tuple[list[tuple[int, int]], int]:
    """Return the entries and the offset behind the terminator."""
    entries: list[tuple[int, int]] = []
    offset = header.reservations
    while True:
        if offset + _RESERVATION.size > len(blob):
            raise FdtError(f"reservation block: not terminated at {offset:#x}")
        address, size = _RESERVATION.unpack_from(blob, offset)
        offset += _RESERVATION.size
        if not address and not size:
            return entries, offset
        if address + size > 1 << 64:
            raise FdtError(f"reservation: wraps around at {offset - _RESERVATION.size:#x}")
        if len(entries) == MAX_RESERVATIONS:
            raise FdtError(f"reservations: more than {MAX_RESERVATIONS} at {offset:#x}")
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
            raise FdtError(f"tag: {tag:#x} at {start:#x}")
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
            raise FdtError(f"structure block: no end tag before {self._end:#x}")
        (tag,) = _WORD.unpack_from(self._blob, start)
        return start, tag

    def read_property(self, start: int) -> None:
        if not self._open or self._open[-1][0].children:
            raise FdtError(f"property: not before a node's children at {start:#x}")
        value = self.offset + 8
        if value > self._end:
            raise FdtError(f"property: cut off at {start:#x}")
        length, name_offset = _TWO_WORDS.unpack_from(self._blob, self.offset)
        if value + length > self._end:
            raise FdtError(f"property: {length} bytes leave the structure block at {start:#x}")
        if name_offset not in self._names:
            self._names[name_offset] = self._property_name(name_offset, start)
        name = self._names[name_offset]
        properties = self._open[-1][0].properties
        if name in properties:
            raise FdtError(f"property: second {name!r} at {start:#x}")
        if len(properties) == MAX_PROPERTIES:
            raise FdtError(f"properties: more than {MAX_PROPERTIES} at {start:#x}")
        properties[name] = self._blob[value : value + length]
        self.offset = value + ((length + 3) & ~3)

    def _property_name(self, name_offset: int, start: int) -> str:
        begin, limit = self._strings[0] + name_offset, self._strings[1]
        end = self._blob.find(b"\0", begin, min(limit, begin + MAX_NAME + 1)) if begin < limit else -1
        if end < 0 or not _PROPERTY_NAME.fullmatch(self._blob, begin, end):
            raise FdtError(f"property name: string {name_offset:#x}, used at {start:#x}")
        return self._blob[begin:end].decode("ascii")

    def begin_node(self, start: int) -> None:
        node = Node(self._node_name())
        self._count += 1
        if self._count > MAX_NODES or len(self._open) == MAX_DEPTH:
            raise FdtError(f"nodes: more than {MAX_NODES}, or deeper than {MAX_DEPTH} at {start:#x}")
        if self._root is None:
            self._root = node
        elif not self._open:
            raise FdtError(f"node: second root at {start:#x}")
        else:
            parent, siblings = self._open[-1]
            if node.name in siblings:
                raise FdtError(f"node: second {node.name!r} at {start:#x}")
            siblings.add(node.name)
            parent.children.append(node)
        self._open.append((node, set()))

    def _node_name(self) -> str:
        begin = self.offset
        end = self._blob.find(b"\0", begin, min(self._end, begin + MAX_NAME + 1))
        if end < 0 or (begin != end if self._root is None else not _NODE_NAME.fullmatch(self._blob, begin, end)):
            raise FdtError(f"node name: at {begin:#x}")
        self.offset = (end + 4) & ~3
        return self._blob[begin:end].decode("ascii")

    def end_node(self, start: int) -> None:
        if not self._open:
            raise FdtError(f"end of node: none is open at {start:#x}")
        self._open.pop()

    def finish(self, start: int) -> Node:
        """Return the root."""
        if self._root is None or self._open:
            raise FdtError(f"end tag: {'a node is open' if self._open else 'no root'} at {start:#x}")
        return self._root


def _check_overlap(*blocks: tuple[str, int, int]) -> None:
    ordered = sorted((begin, end, name) for name, begin, end in blocks if begin < end)
    for (_, end, name), (begin, _, other) in itertools.pairwise(ordered):
        if begin < end:
            raise FdtError(f"{other}: overlaps the {name} at {begin:#x}")


def emit(tree: Tree) -> bytes:
    """Return the version 17 blob of a tree. Equal trees give equal bytes.

    Raises FdtError when the tree breaks a rule that read() holds a blob to.
    """
    if len(tree.reservations) > MAX_RESERVATIONS:
        raise FdtError(f"reservations: {len(tree.reservations)}, at most {MAX_RESERVATIONS}")
    for address, size in tree.reservations:
        if address < 0 or size < 0 or not 0 < address + size <= 1 << 64 or max(address, size) >= 1 << 64:
            raise FdtError(f"reservation: {address:#x}+{size:#x}")
    if not 0 <= tree.boot_cpu < 1 << 32:
        raise FdtError(f"boot CPU: {tree.boot_cpu}")
    blob = Fdt(version=17, last_comp_version=16, boot_cpuid_phys=tree.boot_cpu)
    blob.add_rootnode(_to_pyfdt(tree.root))
    blob.add_reserve_entries([{"address": address, "size": size} for address, size in tree.reservations])
    emitted: bytes = blob.to_dtb()
    if len(emitted) > MAX_SIZE:
        raise FdtError(f"size: {len(emitted)} bytes, at most {MAX_SIZE}")
    return emitted


def _to_pyfdt(root: Node) -> FdtNode:
    """Check a tree and return it as pyfdt has it, whose name for the root is "/"."""
    if root.name:
        raise FdtError(f"root: is named {root.name!r}")
    top = FdtNode("/")
    pending = [(root, top, 1)]
    count = value_bytes = 0
    while pending:
        node, target, depth = pending.pop()
        count += 1
        value_bytes += sum(map(len, node.properties.values()))
        if count > MAX_NODES or depth > MAX_DEPTH or value_bytes > MAX_SIZE or len(node.properties) > MAX_PROPERTIES:
            raise FdtError(
                f"limits: at node {node.name!r}; {MAX_NODES} nodes, {MAX_DEPTH} levels, "
                f"{MAX_PROPERTIES} properties a node, {MAX_SIZE} bytes"
            )
        # subdata is filled directly: append() looks through all of it for each name, and refuses a child named like a property.
        for name, value in node.properties.items():
            check_property_name(name)
            target.subdata.append(FdtPropertyBytes.init_raw(name, value) if value else FdtProperty(name))
        if len({child.name for child in node.children}) != len(node.children):
            raise FdtError(f"node: {node.name!r} has two children of one name")
        for child in node.children:
            check_node_name(child.name)
            emitted = FdtNode(child.name)
            target.subdata.append(emitted)
            pending.append((child, emitted, depth + 1))
    return top
