# SPDX-License-Identifier: GPL-2.0-or-later
"""A host with one address of IPv4 on one wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

from of_client_service.network.exchange import Arrival, Exchange, NetworkError
from of_client_service.network.packets import BROADCAST, BROADCAST_MAC, NOBODY, Arp, Datagram, arp_frame, parse, udp_frame

ARP_WAITS_S = (1.0, 1.0, 2.0, 2.0)
"""How long an answer to each question of ARP is waited for."""
MAX_OUTBOX = 16
"""Frames that wait to be sent; what answers a flood is lost."""


class Host:
    """A host.

    Args:
        mac: its hardware address.
        clock: the time in seconds.
    """

    def __init__(self, mac: bytes, clock: Callable[[], float]) -> None:
        self.mac, self.clock = mac, clock
        self.address = NOBODY
        self.outbox: deque[bytes] = deque(maxlen=MAX_OUTBOX)
        """Frames to send, the oldest first."""
        self._network: IPv4Network | None = None
        self._router: IPv4Address | None = None
        self._neighbours: dict[IPv4Address, bytes] = {}
        """Those that were asked for, and no others."""

    def configure(self, address: IPv4Address, prefix: int | None, router: IPv4Address | None) -> None:
        """Have an address. prefix: bits of the network's part; None: whatever is spoken to is on the wire."""
        self.address, self._router = address, router
        self._network = None if prefix is None else IPv4Network((address, prefix), strict=False)

    def broadcast(self, ports: tuple[int, int], payload: bytes) -> None:
        """Send a datagram to everybody. ports: own, other."""
        self.outbox.append(udp_frame(self.mac, BROADCAST_MAC, (self.address, BROADCAST), ports, payload))

    def send(self, destination: IPv4Address, ports: tuple[int, int], payload: bytes) -> None:
        """Send a datagram to a host that the way to is known: find_way() came before. ports: own, other."""
        to = self._neighbours[self._next_station(destination)]
        self.outbox.append(udp_frame(self.mac, to, (self.address, destination), ports, payload))

    def find_way(self, destination: IPv4Address) -> Exchange[None]:
        """Learn the hardware address of a host, or of the router to it. Raises NetworkError."""
        station = self._next_station(destination)
        for wait in ARP_WAITS_S:
            self.outbox.append(arp_frame(self.mac, self.address, BROADCAST_MAC, station, is_reply=False))
            until = self.clock() + wait
            while (arrival := (yield until)) is not None:
                if isinstance(arrival, Arp) and arrival.is_reply and arrival.address == station:
                    self._neighbours[station] = arrival.mac
                    return
        what = f"server {destination}" if station == destination else f"router {station}"
        raise NetworkError(f"{what} does not answer ARP")

    def receive(self, frame: bytes) -> Arrival | None:
        """Take a frame. Returns what of it concerns a conversation; a question of ARP is answered here."""
        arrival = parse(frame)
        if isinstance(arrival, Arp):
            if arrival.is_reply or arrival.wanted != self.address or self.address == NOBODY:
                return arrival if arrival.is_reply else None
            self.outbox.append(arp_frame(self.mac, self.address, arrival.mac, arrival.address, is_reply=True))
            return None
        if isinstance(arrival, Datagram) and (self.address == NOBODY or arrival.destination in (self.address, BROADCAST)):
            return arrival
        return None

    def _next_station(self, destination: IPv4Address) -> IPv4Address:
        if self._network is None or self._router is None or destination in self._network:
            return destination
        return self._router
