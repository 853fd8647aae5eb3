# SPDX-License-Identifier: GPL-2.0-or-later
"""Which consoles of which VMs may be taken by a vty-server, which is a terminal in a guest instead of one on the host."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from vio_service.console.console import Console


def partition_id(vm: str) -> int:
    """Return the number by which guests know a VM: 31 bits of its name's checksum."""
    return zlib.crc32(vm.encode()) & 0x7FFF_FFFF


@dataclass(frozen=True)
class Partner:
    """A VTY that a vty-server can be connected to."""

    console: Console

    @property
    def key(self) -> tuple[int, int]:
        """Its partition's number and its unit address, in whose order partners are listed."""
        return partition_id(self.console.vm), self.console.unit_address

    @property
    def location(self) -> str:
        """What the guest's administrator knows it by."""
        return f"{self.console.vm}-{self.console.unit_address:#x}"


class Exchange:
    """The consoles of all VMs of one vio_service that are open to vty-servers."""

    def __init__(self) -> None:
        self._open: dict[Console, str] = {}
        """To the VM whose vty-servers may take it."""

    def add(self, console: Console, server: str) -> None:
        """Let vty-servers of a VM take a console."""
        self._open[console] = server

    def remove(self, console: Console) -> None:
        """Nobody takes it any more."""
        self._open.pop(console, None)

    def partners(self, server: str) -> Sequence[Partner]:
        """Return the VTYs that vty-servers of a VM may take, in order."""
        found = (Partner(console) for console, name in self._open.items() if name == server)
        return sorted(found, key=lambda partner: partner.key)

    def find(self, server: str, key: tuple[int, int]) -> Partner | None:
        """Return one of them."""
        return next((partner for partner in self.partners(server) if partner.key == key), None)
