# SPDX-License-Identifier: GPL-2.0-or-later
"""A wire over one stream: QEMU's `-netdev stream` at the other end, another Splitvisor, or a child process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from splitvisor.lan.dial import Dial, Dialler, dial_address
from splitvisor.lan.link import FrameLink
from splitvisor.lan.listen import Listener
from splitvisor.lan.options import StreamNet
from splitvisor.lan.tls import WireTls
from splitvisor.lan.wire import MAX_FRAME, MIN_FRAME, Counters, Receive, Wire, WireError
from splitvisor.net.addresses import Address, AddressError


def tls_for(address: Address, vm: str) -> WireTls | None:
    """Return what an address that is not on this host needs; None: plaintext. Raises WireError without a certificate."""
    try:
        return WireTls(address, vm) if address.tls else None
    except AddressError as error:
        raise WireError(error.problem.what, error.problem.remedy) from None


class Connector(Protocol):
    """Keeps at most one connection: Dialler or Listener."""

    @property
    def link(self) -> FrameLink | None:
        """The connection; None: there is none now."""

    @property
    def port(self) -> int:
        """The TCP port that it listens on; 0: it does not, or at a unix socket."""

    async def close(self) -> None:
        """Disconnect, and connect no more."""


Connect = Callable[[Callable[[FrameLink], Receive], Callable[[FrameLink], None]], Awaitable[Connector]]
"""Begins to connect. Arguments: what returns who takes the frames of a new connection; what is called when that is gone.

Raises WireError.
"""


class LinkWire(Wire):
    """A wire that is one connection at a time.

    Args:
        name: for messages.
        connect: brings connections about.
    """

    def __init__(self, name: str, connect: Connect) -> None:
        super().__init__(name)
        self._connect = connect
        self._connector: Connector | None = None
        self._misfits = 0
        """Frames of impossible lengths that connections dropped which are gone."""

    @property
    def link(self) -> FrameLink | None:
        """The connection; None: there is none now."""
        return self._connector.link if self._connector is not None else None

    @property
    def port(self) -> int:
        """The TCP port that it listens on; 0: it does not, or at a unix socket."""
        return self._connector.port if self._connector is not None else 0

    @property
    def counters(self) -> Counters:
        """What went over it so far."""
        self._received_dropped = self._misfits + (self.link.dropped if self.link is not None else 0)
        return super().counters

    async def open(self, receive: Receive) -> None:
        """Begin to connect. Raises WireError."""
        self._device = receive
        self._connector = await self._connect(lambda _link: self._offer, self._gone)

    def send(self, frame: bytes) -> None:
        """Send a frame, or drop and count it."""
        link = self.link
        if link is not None and MIN_FRAME <= len(frame) <= MAX_FRAME and link.send(frame):
            self._sent += 1
            self._sent_bytes += len(frame)
        else:
            self._sent_dropped += 1

    def resume(self) -> None:
        """The device has room again."""
        if self.link is not None:
            self.link.resume()

    async def close(self) -> None:
        """Disconnect."""
        if self._connector is not None:
            await self._connector.close()
            self._connector = None

    def _gone(self, link: FrameLink) -> None:
        self._misfits += link.dropped


def dialling(name: str, dial: Dial, tls: WireTls | None = None) -> Connect:
    """Return what connects from here, again whenever the connection is gone.

    Args:
        name: for messages.
        dial: makes a connection.
        tls: what TLS needs, when it is wanted.
    """

    async def connect(receiver: Callable[[FrameLink], Receive], gone: Callable[[FrameLink], None]) -> Connector:
        dialler = Dialler(name, dial, receiver, tls, gone=gone)
        dialler.start()
        return dialler

    return connect


def listening(name: str, address: Address, tls: WireTls | None) -> Connect:
    """Return what waits for the other end to connect; one may at a time. Arguments as those of dialling()."""

    async def connect(receiver: Callable[[FrameLink], Receive], gone: Callable[[FrameLink], None]) -> Connector:
        return Listener(name, address, 1, receiver, tls, gone=gone)

    return connect


def stream_wire(net: StreamNet, vm: str) -> LinkWire:
    """Return the wire of a stream. vm: whose frames these are. Raises WireError."""
    tls = tls_for(net.address, vm)
    connect = listening(net.text, net.address, tls) if net.listen else dialling(net.text, dial_address(net.address, tls), tls)
    return LinkWire(net.text, connect)
