# SPDX-License-Identifier: GPL-2.0-or-later
"""Device specifiers: "/vdevice/vty@71000000", "/memory", "hvterm:args" (IEEE 1275, "Path resolution").

A block device's package without an address of its own, a wildcard node, stands for every unit address: disk@8100000000000000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from of_client_service.device_tree import Package

_UNIT = re.compile(r"[0-9A-Fa-f]{1,16}")
"""A unit address of SCSI: a 64-bit LUN."""


@dataclass(frozen=True)
class Resolved:
    """What a device specifier leads to."""

    package: Package
    arguments: str
    """What follows the last component's colon."""
    unit: str = ""
    """The unit address, in lower case, that the specifier gives a wildcard node."""

    @property
    def path(self) -> str:
        """The full path, with every unit address."""
        return self.package.path + (f"@{self.unit}" if self.unit else "")

    @property
    def canonical(self) -> str:
        """The specifier without aliases and with every unit address."""
        return self.path + (f":{self.arguments}" if self.arguments else "")


def resolve(root: Package, specifier: str) -> Resolved | None:
    """Follow a device specifier; None when it leads nowhere.

    A component may lack its unit address (the first child of that name is taken) or its name ("@71000000").
    """
    specifier = _expand_alias(root, specifier)
    if not specifier.startswith("/"):
        return None
    package, arguments, unit = root, "", ""
    for component in specifier.split("/"):
        if not component:
            continue
        name, _, arguments = component.partition(":")
        child = _child(package, name)
        if child is None:
            return None
        package, unit = child, name.partition("@")[2].lower() if is_wildcard(child) else ""
    return Resolved(package, arguments, unit)


def is_wildcard(package: Package) -> bool:
    """Whether a package stands for every unit address."""
    return package.text("device_type") == "block" and "@" not in package.unit_name and package.get("reg") is None


def _expand_alias(root: Package, specifier: str) -> str:
    if specifier.startswith("/"):
        return specifier
    head, slash, rest = specifier.partition("/")
    name, colon, arguments = head.partition(":")
    aliases = _child(root, "aliases")
    target = aliases.text(name) if aliases is not None and name != "name" else ""
    return target + colon + arguments + slash + rest if target.startswith("/") else ""


def _child(package: Package, wanted: str) -> Package | None:
    name, at, unit = wanted.partition("@")
    for child in package.children:
        child_name, _, child_unit = child.unit_name.partition("@")
        if name not in ("", child_name) or not (name or unit):
            continue
        if not at or _same_unit(unit, child_unit) or (is_wildcard(child) and _UNIT.fullmatch(unit)):
            return child
    return None


def _same_unit(left: str, right: str) -> bool:
    """Unit addresses are numbers in hexadecimal: case and leading zeros do not count."""
    return [part.lstrip("0") for part in left.lower().split(",")] == [part.lstrip("0") for part in right.lower().split(",")]
