# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a service cannot listen at an address, found out before gRPC tries, which says only that it failed, and logs as well."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from splitvisor.net.addresses import Address, AddressError

_WHY = {
    errno.EADDRINUSE: ("another program listens there", "end it, or choose another port; 0 is any that is free"),
    errno.EADDRNOTAVAIL: ("no interface of this host has that address", "give one of its own, 127.0.0.1 or 0.0.0.0"),
    errno.EACCES: ("this user may not listen there", "choose a port of 1024 or above"),
    errno.EAFNOSUPPORT: ("this host does not have that kind of address", "give one of its own, such as 127.0.0.1"),
}


def check_free(address: Address) -> None:
    """Raise AddressError unless a service can listen at an address, as far as can be known before it does.

    What is at a socket's path already is splitvisor.net.sockets' business.
    """
    if address.socket_path is not None:
        _check_path(address, Path(address.socket_path))
    else:
        _check_port(address)


def _check_path(address: Address, path: Path) -> None:
    if not path.parent.is_dir():
        raise AddressError(f"{address.text}: {path.parent} is not a directory", "make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise AddressError(f"{address.text}: this user may not make a socket in {path.parent}", "choose another directory")


def _check_port(address: Address) -> None:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
        raise AddressError(f"{address.text}: no address of host {address.host!r} ({why})", "give an IP address") from error
    failure: OSError | None = None
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                return  # gRPC listens at all that it can.
        except OSError as error:
            failure = failure or error
    if failure is not None:
        what, remedy = _WHY.get(failure.errno or 0, (str(failure.strerror), "choose another address"))
        raise AddressError(f"{address.text}: {what}", remedy) from failure
