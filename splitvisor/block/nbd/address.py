# SPDX-License-Identifier: GPL-2.0-or-later
"""Where an NBD export is: the URIs of the protocol's uri.md, without TLS, and a socket that is connected to one."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

from splitvisor.errors.problem import ProblemError
from splitvisor.net.addresses import SOCKET_PATH_BYTES

PORT = 10809
"""That IANA gave NBD."""
NAME_BYTES = 4096
"""The longest name of an export (NBD: a string is at most 4096 bytes)."""
_SCHEMES = ("nbd:", "nbds:", "nbd+unix:", "nbds+unix:", "nbd+vsock:", "nbds+vsock:")


class NbdAddressError(ProblemError):
    """No NBD server can be at an address."""


@dataclass(frozen=True)
class NbdAddress:
    """An export of an NBD server. As a text, its URI."""

    export: str
    host: str = ""
    port: int = PORT
    socket_path: str = ""
    """Of a unix socket; then there is no host."""

    def __str__(self) -> str:
        export = quote(self.export)
        if self.socket_path:
            return f"nbd+unix:///{export}?socket={quote(self.socket_path)}"
        return f"nbd://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/{export}"

    async def connect(self) -> socket.socket:
        """Return a socket that is connected to the server. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.socket_path:
            return await _connected(socket.AF_UNIX, self.socket_path)
        failure = OSError("no address")
        for family, *_, address in await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            try:
                found = await _connected(family, address)
            except OSError as error:
                failure = error
                continue
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return found
        raise failure


async def _connected(family: int, address: object) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setblocking(False)
        await asyncio.get_running_loop().sock_connect(found, address)  # type: ignore[arg-type]  # whatever the family has
    except BaseException:
        found.close()
        raise
    return found


def is_nbd(text: str) -> bool:
    """Whether a text is meant as such a URI."""
    return text.startswith(_SCHEMES)


def parse_nbd(text: str) -> NbdAddress:
    """Return what a URI means. Raises NbdAddressError."""
    if not text.startswith(("nbd://", "nbd+unix://")):
        raise NbdAddressError(f"{text} cannot be used", "give nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH")
    try:
        parts = urlsplit(text)
        port = parts.port
        query = parse_qs(parts.query, strict_parsing=bool(parts.query), errors="strict", max_num_fields=4)
        export = unquote(parts.path.removeprefix("/"), errors="strict")
    except ValueError:
        raise NbdAddressError(f"{text} is no URI", "give nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH") from None
    if len(export.encode()) > NAME_BYTES or "\0" in export:
        raise NbdAddressError(f"{text}: no export has such a name", f"give a name of at most {NAME_BYTES} bytes")
    if parts.fragment or parts.username is not None:
        raise NbdAddressError(f"{text} has a user or a fragment", "leave it out; % in a name is written %25, # %23, ? %3F")
    if parts.scheme == "nbd+unix":
        paths = query.pop("socket", [])
        if query or parts.netloc or len(paths) != 1 or not os.path.isabs(paths[0]) or "\0" in paths[0]:
            raise NbdAddressError(f"{text} does not say one socket", "give nbd+unix:///EXPORT?socket=/PATH")
        if len(os.fsencode(paths[0])) > SOCKET_PATH_BYTES:
            raise NbdAddressError(f"{text}: the path is longer than {SOCKET_PATH_BYTES} bytes", "use a shorter directory")
        return NbdAddress(export, port=0, socket_path=paths[0])
    if query or not parts.hostname or port == 0:
        raise NbdAddressError(f"{text} does not say one host", "give nbd://HOST:PORT/EXPORT")
    return NbdAddress(export, parts.hostname, port or PORT)
