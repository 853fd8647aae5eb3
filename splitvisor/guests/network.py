# SPDX-License-Identifier: GPL-2.0-or-later
"""The network of the guest "debian-io": an address by DHCP."""

from __future__ import annotations

from dataclasses import dataclass

from splitvisor.guests.commands import Commands

LEASE_S = 60.0


@dataclass(frozen=True)
class Lease:
    """What DHCP gave."""

    address: str
    """Dotted, without the length of its network."""
    gateway: str
    """The router; on a network of kind "user" the host answers there, with its loopback."""


def lease(commands: Commands, interface: str = "eth0") -> Lease:
    """Ask for an address and take it. Raises CommandError when there is none."""
    commands.ok(f"udhcpc -i {interface} -n -q -t 10", LEASE_S)
    words = commands.ok(f"ip -4 -brief address show dev {interface}; ip -4 route show default dev {interface}").split()
    return Lease(words[2].partition("/")[0], words[words.index("via") + 1])
