# SPDX-License-Identifier: GPL-2.0-or-later
"""A wire over one stream: QEMU's `-netdev stream` at the other end, another Splitvisor, or a child process."""

from __future__ import annotations

from collections.abc import Callable

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


class LinkWire(Wire):
    """A wire that is one connection at a time, however that comes about."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._device: Receive | None = None
        self._misfits = 0
        """Frames of impossible lengths that connections dropped which are gone."""

    @property
    def link(self) -> FrameLink | None:
        """The connection; None: there is none now."""
        raise NotImplementedError

    @property
    def counters(self) -> Counters:
        """What went over it so far."""
        self._received_dropped = self._misfits + (self.link.dropped if self.link is not None else 0)
        return super().counters

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

    def _receiver(self, _link: FrameLink) -> Receive:
        return self._receive

    def _receive(self, frame: bytes) -> bool:
        if self._device is None or not self._device(frame):
            return False
        self._received += 1
        self._received_bytes += len(frame)
        return True

    def _gone(self, link: FrameLink) -> None:
        self._misfits += link.dropped


class DialledWire(LinkWire):
    """A wire whose connection is made from here, again whenever it is gone.

    Args:
        name: for messages.
        dial: connects.
        tls: what TLS needs, when it is wanted.
        at_once: open() fails unless the first attempt succeeds.
    """

    def __init__(self, name: str, dial: Dial, tls: WireTls | None = None, *, at_once: bool = False) -> None:
        super().__init__(name)
        self._make: Callable[[], Dialler] = lambda: Dialler(name, dial, self._receiver, tls, gone=self._gone)
        self._dialler: Dialler | None = None
        self._at_once = at_once

    @property
    def link(self) -> FrameLink | None:
        """The connection; None: there is none now."""
        return self._dialler.link if self._dialler is not None else None

    async def open(self, receive: Receive) -> None:
        """Begin to connect."""
        self._device = receive
        self._dialler = self._make()
        if self._at_once:
            try:
                await self._dialler.connect()
            except OSError as error:
                raise WireError(f"{self.name}: {error}", "see the log") from None
        self._dialler.start()

    async def close(self) -> None:
        """Disconnect."""
        if self._dialler is not None:
            await self._dialler.close()
            self._dialler = None


class ListeningWire(LinkWire):
    """A wire that waits for the other end. One may be connected at a time."""

    def __init__(self, name: str, address: Address, tls: WireTls | None) -> None:
        super().__init__(name)
        self._address, self._tls = address, tls
        self._listener: Listener | None = None

    @property
    def link(self) -> FrameLink | None:
        """The connection; None: there is none now."""
        return next(iter(self._listener.links), None) if self._listener is not None else None

    @property
    def port(self) -> int:
        """The TCP port that it listens on; 0: it does not, or at a unix socket."""
        return self._listener.port if self._listener is not None else 0

    async def open(self, receive: Receive) -> None:
        """Listen. Raises WireError."""
        self._device = receive
        self._listener = Listener(self.name, self._address, 1, self._receiver, self._tls, gone=self._gone)

    async def close(self) -> None:
        """Stop listening, and disconnect."""
        if self._listener is not None:
            await self._listener.close()
            self._listener = None


def stream_wire(net: StreamNet, vm: str) -> LinkWire:
    """Return the wire of a stream. vm: whose frames these are. Raises WireError."""
    tls = tls_for(net.address, vm)
    if net.listen:
        return ListeningWire(net.text, net.address, tls)
    return DialledWire(net.text, dial_address(net.address, tls), tls)
