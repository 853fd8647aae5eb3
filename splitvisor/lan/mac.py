# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses of Ethernet devices."""

from __future__ import annotations

import hashlib
import re

from splitvisor.lan.wire import WireError

MAC_BYTES = 6

_TEXT = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}", re.ASCII)
_GROUP, _LOCAL = 1, 2
"""Of the first byte: several devices are meant; whoever runs the network chose it (IEEE 802-2014, 8.2)."""


def parse_mac(text: str) -> bytes:
    """Return the address of a device from "02:00:00:12:34:56". Raises WireError, also for one that no single device can have.

    Linux's ibmveth reads an address of 6 bytes right only when its first byte has the lower bits 10, as addresses that are
    administered locally have. Those of a vendor are refused: they would be a real device's anyway.
    """
    if not _TEXT.fullmatch(text):
        raise WireError(f"{text!r} is not a MAC address", "give six bytes such as 02:00:00:12:34:56")
    mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if mac[0] & _GROUP:
        raise WireError(f"{text} is a multicast address", "give one with an even first byte, such as 02:00:00:12:34:56")
    if not mac[0] & _LOCAL:
        remedy = f"give a locally administered one, such as {format_mac(bytes((mac[0] | _LOCAL,)) + mac[1:])}"
        raise WireError(f"{text} is a vendor's address", remedy)
    return mac


def format_mac(mac: bytes) -> str:
    """Return the text of an address: "02:00:00:12:34:56"."""
    return mac.hex(":")


def default_mac(vm: str, unit_address: int) -> bytes:
    """Return the address of a device for which none is given: the same in every run, another for another VM or device.

    It is locally administered; 46 bits of it are of a hash, so two devices of a network of 1,000 have the same one with a
    probability of less than 1 in 100,000,000.
    """
    digest = hashlib.sha256(f"{vm}\0{unit_address:#x}".encode(errors="surrogateescape")).digest()
    return bytes(((digest[0] & ~_GROUP & 0xFF) | _LOCAL, *digest[1:MAC_BYTES]))
