# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a connection that listens."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from splitvisor.lan.link import FrameLink
from splitvisor.lan.tls import WireTls
from splitvisor.lan.wire import Receive, WireError
from splitvisor.net.addresses import Address, AddressError
from splitvisor.net.listening import check_free
from splitvisor.net.sockets import make_way
from splitvisor.process.logging import get_logger

HANDSHAKES = 8
"""Connections whose TLS is not there yet, at most; each takes memory before anybody is known to be at its other end."""
HANDSHAKE_S = 10.0
_BACKLOG = 16
_PAUSE_S = 1.0
"""After an accept() that failed for want of something."""
_log = get_logger(__name__)


class Listener:
    """Takes connections.

    Args:
        name: of the wire, for the log.
        address: where it listens; port 0 is any.
        most: connections at a time; further ones are closed at once.
        receiver: returns what takes the frames of a new connection.
        tls: None: plaintext.
        gained: is called when there is a connection, before its first frame.
        gone: is called when that is gone.

    Raises WireError when it cannot listen there.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        most: int,
        receiver: Callable[[FrameLink], Receive],
        tls: WireTls | None = None,
        gained: Callable[[FrameLink], None] = lambda _link: None,
        gone: Callable[[FrameLink], None] = lambda _link: None,
    ) -> None:
        self.links: set[FrameLink] = set()
        """The connections that are there."""
        self._name, self._most, self._receiver, self._tls = name, most, receiver, tls
        self._gained, self._gone = gained, gone
        self._said = ""
        """Why the last peer was refused, since one was not."""
        self._path = address.socket_path
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._socket = _listening_socket(address)
        self._inode = os.lstat(self._path).st_ino if self._path is not None else 0
        self._watch()

    @property
    def link(self) -> FrameLink | None:
        """One of the connections; None: there is none now."""
        return next(iter(self.links), None)

    @property
    def port(self) -> int:
        """The TCP port; 0 for a unix socket."""
        return 0 if self._path is not None else int(self._socket.getsockname()[1])

    async def close(self) -> None:
        """Stop listening, and end all connections."""
        if self._socket.fileno() < 0:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        if self._path is not None:
            with suppress(OSError):
                if os.lstat(self._path).st_ino == self._inode:
                    os.unlink(self._path)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in list(self.links):
            link.close()
        await self._idle.wait()

    def _watch(self) -> None:
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            connected, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return  # It is gone again.
        except OSError as error:  # This process has no descriptor left, most likely; the peer waits in the backlog.
            _log.warning("a peer of a network cannot be accepted", network=self._name, reason=error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.call_later(_PAUSE_S, self._watch)
            return
        if len(self.links) >= self._most or len(self._tasks) >= HANDSHAKES:
            connected.close()
            return
        connected.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._begin(connected))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, connected: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._tls is None:
                await loop.connect_accepted_socket(self._make, connected)
            else:
                context = self._tls.server()
                await loop.connect_accepted_socket(self._make, connected, ssl=context, ssl_handshake_timeout=HANDSHAKE_S)
        except OSError as error:  # ssl.SSLError is one.
            self._refused(error)

    def _refused(self, why: Exception | None) -> None:
        """Log a peer that got no connection; one that tries again and again for the same reason, once."""
        reason = str(why or "") or "it ended the handshake; its own log says why"
        if reason != self._said:
            self._said = reason
            _log.warning("a peer of a network is refused", network=self._name, reason=reason)

    def _make(self) -> FrameLink:
        return FrameLink(self._receiver, self._admit, self._ended)

    def _admit(self, link: FrameLink, transport: asyncio.Transport) -> None:
        if self._tls is not None:
            self._tls.check(transport)
        if len(self.links) >= self._most or self._socket.fileno() < 0:
            raise ConnectionError("others are connected")
        self.links.add(link)
        self._idle.clear()
        self._said = ""
        _log.info("network connected", network=self._name)
        self._gained(link)

    def _ended(self, link: FrameLink, why: Exception | None) -> None:
        if link not in self.links:
            self._refused(why)
            return
        self.links.discard(link)
        if not self.links:
            self._idle.set()
        _log.info("network disconnected", network=self._name, reason=str(why) if why is not None else "closed")
        self._gone(link)


def _listening_socket(address: Address) -> socket.socket:
    path = address.socket_path
    try:
        check_free(address)
        if path is not None:
            make_way(path)
    except AddressError as error:
        raise WireError(error.problem.what, error.problem.remedy) from None
    try:
        if path is not None:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            before = os.umask(0o177)
            try:
                listening.bind(path)
            finally:
                os.umask(before)
        else:
            family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
        listening.listen(_BACKLOG)
    except OSError as error:
        raise WireError(f"{address.text}: {error.strerror or error}", "give another address") from None
    listening.setblocking(False)
    return listening
