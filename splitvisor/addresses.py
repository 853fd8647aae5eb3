# SPDX-License-Identifier: GPL-2.0-or-later
"""Where plaintext gRPC may be spoken, on either side of a connection."""

from __future__ import annotations

import ipaddress
import os

SOCKET_PATH_BYTES = 100
"""A unix socket's path is at most 108 bytes on Linux; gRPC and the NUL need some of it."""


class AddressError(ValueError):
    """An address cannot be used; the message says why and what to give instead."""


def check_address(address: str) -> str:
    """Return address when plaintext gRPC may be spoken there: `unix:/path`, or a loopback `host:port`.

    Raises AddressError for everything else: whoever is on the way could read and change guest memory.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise AddressError(f"{address}: a unix address needs an absolute path, such as unix:/run/splitvisor/cpu.sock")
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            raise AddressError(f"{address}: the path is longer than {SOCKET_PATH_BYTES} bytes; use a shorter directory")
        return address
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 0xFFFF:
        raise AddressError(f"{address}: not an address; give unix:/path or host:port")
    if not _is_loopback(host.removeprefix("[").removesuffix("]")):
        raise AddressError(f"{address}: plaintext is for unix sockets and loopback only; give 127.0.0.1:{port} or unix:/path")
    return address


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
