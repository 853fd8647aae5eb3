# SPDX-License-Identifier: GPL-2.0-or-later
"""The network devices of a machine: which there are, and their aliases net, net1, ... in the order of their paths."""

from __future__ import annotations

from dataclasses import dataclass

from of_client_service.device_tree import DeviceTree, Package
from of_client_service.network.packets import MAC_BYTES
from splitvisor.tree import fdt
from splitvisor.tree.cells import strings

NETWORK_TYPE = "network"
ALIAS = "net"
_ADDRESSES = ("mac-address", "local-mac-address")
"""Properties with a device's address, the one in use first."""


@dataclass(frozen=True)
class NetworkDevice:
    """A network device."""

    path: str
    unit: int
    """Its unit address."""
    mac: bytes
    alias: str

    @property
    def name(self) -> str:
        """For a line on the console."""
        return f"{self.alias} ({self.path})"


def is_network(package: Package) -> bool:
    """Whether a package is a network device with an address on its bus and one on the wire."""
    return package.text("device_type") == NETWORK_TYPE and package.number("reg") is not None and _mac(package) is not None


def find_networks(tree: DeviceTree) -> tuple[NetworkDevice, ...]:
    """Return the network devices."""
    packages = sorted((package for package in tree.packages() if is_network(package)), key=lambda package: package.path)
    return tuple(
        NetworkDevice(package.path, package.number("reg") or 0, _mac(package) or b"", f"{ALIAS}{number or ''}")
        for number, package in enumerate(packages)
    )


def add_aliases(tree: DeviceTree) -> None:
    """Write the aliases of the network devices, where the tree has a place for aliases."""
    aliases = next((child for child in tree.root.children if child.unit_name == "aliases"), None)
    if aliases is not None:
        aliases.node.properties |= {device.alias: strings(device.path) for device in find_networks(tree)}


def has_network(tree: fdt.Tree) -> bool:
    """Whether a tree has a network device on its VIO bus."""
    bus = tree.root.child("vdevice")
    return bus is not None and any(node.properties.get("device_type") == strings(NETWORK_TYPE) for node in bus.children)


def _mac(package: Package) -> bytes | None:
    """Return a device's address: the last six bytes of the property, since some have it in a cell of eight."""
    for name in _ADDRESSES:
        value = package.get(name) or b""
        if len(value) in (MAC_BYTES, 8):
            return value[-MAC_BYTES:]
    return None
