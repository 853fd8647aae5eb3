# SPDX-License-Identifier: GPL-2.0-or-later
"""Where gRPC may be spoken, on either side of a connection, and how: plaintext on this host, mutual TLS beyond it.

unix:/path          plaintext; the file's permissions say who may connect
127.0.0.1:7000      plaintext; any user of this host may connect
tls:127.0.0.1:7000  mutual TLS
vio.example:7000    mutual TLS: everything that is not on this host; tls:vio.example:7000 is the same
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from splitvisor.errors.problem import ProblemError
from splitvisor.process.text import is_text

TLS_PREFIX = "tls:"
SOCKET_PATH_BYTES = 100
"""A unix socket's path is at most 108 bytes on Linux; gRPC and the NUL need some of it."""


class AddressError(ProblemError, ValueError):
    """An address cannot be used; the message says why and what to give instead."""


@dataclass(frozen=True)
class Address:
    """Where a service is."""

    text: str
    """As it was given."""
    target: str
    """As gRPC wants it."""
    tls: bool
    host: str = ""
    """Empty for a unix socket."""
    port: int = 0

    @property
    def socket_path(self) -> str | None:
        """The path of a unix socket; None for a host and port."""
        return self.target.removeprefix("unix:").removeprefix("//") if self.target.startswith("unix:") else None


def parse_address(text: str) -> Address:
    """Return what an address means. Raises AddressError when it means nothing."""
    if not is_text(text):
        raise AddressError(f"{text}: not UTF-8", "give an address in UTF-8")
    if text.startswith("unix:"):
        address = Address(text, text, False)
        path = address.socket_path or ""
        if not path.startswith("/"):
            raise AddressError(f"{text}: a unix address needs an absolute path, such as unix:/run/splitvisor/cpu.sock")
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            raise AddressError(f"{text}: the path is longer than {SOCKET_PATH_BYTES} bytes", "use a shorter directory")
        return address
    target = text.removeprefix(TLS_PREFIX)
    host, port = parse_host_port(target) or ("", 0)
    if not host:
        raise AddressError(f"{text}: not an address", "give unix:/path, host:port or tls:host:port")
    return Address(text, target, target != text or not is_loopback(host), host, port)


def parse_host_port(text: str) -> tuple[str, int] | None:
    """Return host and port of "HOST:PORT" or "[IPV6]:PORT"; None when it is neither. The host may be empty."""
    host, separator, port = text.rpartition(":")
    if not separator or not (port.isascii() and port.isdecimal()) or int(port) > 0xFFFF or "/" in host:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether nothing that is sent to a host, which is a name or an IP address, leaves this one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
