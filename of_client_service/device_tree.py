# SPDX-License-Identifier: GPL-2.0-or-later
"""The device tree as the client interface sees it: packages with phandles, and properties that a client may change.

Packages are fixed from reset to reset; only properties change. A guest can make the tree grow by MAX_GROWTH and no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from splitvisor.tree import fdt

MAX_PROPERTY_BYTES = 64 << 10
"""The largest value that setprop takes. Linux's largest, a boot splash aside, is a command line of 2 KiB."""
MAX_GROWTH = 1 << 20
"""Bytes by which a guest may make the flattened tree grow between two resets."""
INVALID_PHANDLES = (0, 0xFFFF_FFFF)
MAX_PROPERTIES = fdt.MAX_PROPERTIES - 16
"""Properties of a package that setprop may reach; the rest is for the firmware's own."""
_PROPERTY_OVERHEAD = 12
_NAME = re.compile(r"[0-9A-Za-z,._+?#-]{1,31}")
"""Property names that setprop may make: IEEE 1275's length and the characters of the flattened format."""


class TreeFullError(Exception):
    """The guest has reached MAX_GROWTH or MAX_PROPERTIES."""


@dataclass(eq=False)
class Package:
    """A node of the tree; "package" is IEEE 1275's word for it."""

    node: fdt.Node
    phandle: int
    parent: Package | None
    children: list[Package] = field(default_factory=list)
    sibling: Package | None = None
    """The next child of the same parent."""

    @property
    def unit_name(self) -> str:
        """The name with its unit address: "vty@71000000". Empty for the root."""
        return self.node.name.strip("/")

    @property
    def path(self) -> str:
        """The full path."""
        names: list[str] = []
        package: Package | None = self
        while package is not None and package.parent is not None:
            names.append(package.unit_name)
            package = package.parent
        return "/" + "/".join(reversed(names))

    def get(self, name: str) -> bytes | None:
        """A property's value, None when there is none. Every package has "name" (IEEE 1275)."""
        value = self.node.properties.get(name)
        if value is None and name == "name":
            return self.unit_name.partition("@")[0].encode("ascii", "replace") + b"\0"
        return value

    def text(self, name: str) -> str:
        """A property as a string without its NUL; empty when there is none."""
        return (self.get(name) or b"").partition(b"\0")[0].decode("latin-1")

    def number(self, name: str) -> int | None:
        """The first cell of a property."""
        value = self.get(name)
        return None if value is None or len(value) < 4 else int.from_bytes(value[:4], "big")

    def following(self, previous: str) -> str | None:
        """The property after previous, the first for "". None after the last. Raises KeyError when there is no such property."""
        names = list(self.node.properties)
        if "name" not in self.node.properties:
            names.insert(0, "name")
        if not previous:
            return names[0]
        if previous not in names:
            raise KeyError(previous)
        position = names.index(previous) + 1
        return names[position] if position < len(names) else None


class DeviceTree:
    """A flattened tree made walkable: every package has a phandle, kept where the tree has one.

    Args:
        tree: what the store holds; taken over, not copied.
    """

    def __init__(self, tree: fdt.Tree) -> None:
        self._tree = tree
        self.growth = 0
        """Bytes by which the guest has made the tree grow."""
        self._by_phandle: dict[int, Package] = {}
        self.root = self._adopt()

    def _adopt(self) -> Package:
        root = Package(self._tree.root, 0, None)
        nameless: list[Package] = []
        pending = [root]
        while pending:
            package = pending.pop()
            wanted = package.number("phandle") or package.number("linux,phandle") or 0
            if wanted in INVALID_PHANDLES or wanted in self._by_phandle:
                nameless.append(package)
            else:
                package.phandle = wanted
                self._by_phandle[wanted] = package
            package.children = [Package(node, 0, package) for node in package.node.children]
            for child, sibling in zip(package.children, package.children[1:], strict=False):
                child.sibling = sibling
            pending.extend(reversed(package.children))
        unused = self._unused_phandles()
        for package in nameless:
            package.phandle = next(unused)
            package.node.properties["phandle"] = package.phandle.to_bytes(4, "big")
            self._by_phandle[package.phandle] = package
        return root

    def _unused_phandles(self) -> Iterator[int]:
        candidate = max(self._by_phandle, default=0)
        while True:
            candidate = candidate % (INVALID_PHANDLES[1] - 1) + 1
            if candidate not in self._by_phandle:
                yield candidate

    def package(self, phandle: int) -> Package | None:
        """The package of a phandle."""
        return self._by_phandle.get(phandle)

    def packages(self) -> Iterator[Package]:
        """Every package, parents first, in the tree's order."""
        pending = [self.root]
        while pending:
            package = pending.pop()
            yield package
            pending.extend(reversed(package.children))

    def set(self, package: Package, name: str, value: bytes) -> None:
        """Change or make a property on the guest's behalf.

        Raises ValueError for a name or size that a tree cannot hold, TreeFullError at a limit.
        """
        if len(value) > MAX_PROPERTY_BYTES:
            raise ValueError(f"{len(value)} bytes are more than a property holds")
        old = package.node.properties.get(name)
        if old is None:
            if not _NAME.fullmatch(name) or name == "name":
                raise ValueError(f"{name!r} cannot name a property")
            if len(package.node.properties) >= MAX_PROPERTIES:
                raise TreeFullError
            growth = _PROPERTY_OVERHEAD + len(name) + 1 + _padded(value)
        else:
            growth = _padded(value) - _padded(old)
        if self.growth + growth > MAX_GROWTH:
            raise TreeFullError
        self.growth += growth
        package.node.properties[name] = value

    def assign_phandles(self, phandles: Sequence[int]) -> None:
        """Give every package its phandle, in the order of packages(). Raises ValueError when they are not one for each."""
        packages = list(self.packages())
        by_phandle = dict(zip(phandles, packages, strict=False))
        if len(phandles) != len(packages) or len(by_phandle) != len(packages) or by_phandle.keys() & set(INVALID_PHANDLES):
            raise ValueError(f"{len(by_phandle)} phandles for {len(packages)} nodes")
        self._by_phandle = by_phandle
        for phandle, package in by_phandle.items():
            package.phandle = phandle

    def blob(self) -> bytes:
        """The tree, flattened."""
        return fdt.emit(self._tree)


def _padded(value: bytes) -> int:
    return (len(value) + 3) & ~3
