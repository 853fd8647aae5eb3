# SPDX-License-Identifier: GPL-2.0-or-later
"""`--net switch=NAME`: a learning switch inside this process, and its connections to the switches of others.

Every guest's device is a port, and so is every connection to a peer. A frame for an address that was heard is for its port alone;
others are for all ports. Each port has a queue of its own, from which its device is served in turns of its own: one that is slow
loses what it has no room for, and nobody waits for it.

There is no spanning tree. Instead nothing that came from a peer is for another peer, so that nothing goes round; switches of more
than two processes are therefore connected each with each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from splitvisor.lan.dial import Dialler, dial_address
from splitvisor.lan.link import FrameLink
from splitvisor.lan.listen import Listener
from splitvisor.lan.mac_table import MacTable
from splitvisor.lan.options import MAX_PEERS, SwitchNet
from splitvisor.lan.stream import tls_for
from splitvisor.lan.wire import MAX_FRAME, MIN_FRAME, Receive, Wire, WireError
from splitvisor.net.addresses import Address

QUEUE_FRAMES, QUEUE_BYTES = 1024, 4 << 20
"""What waits for a port."""
GUEST_MACS, PEER_MACS = 64, 4096
"""Addresses that are learnt at a guest's port, which may have bridges behind it, and at a peer's."""
MAX_PORTS = 256
BATCH = 64
"""Frames that a device is given at a time; then others have a turn."""

_LINK_LOCAL = bytes.fromhex("0180c20000")
"""Of addresses that no bridge passes on: they are for the device at the other end of a cable (IEEE 802.1Q-2018, 8.6.3)."""


class SwitchPort(Wire):
    """A guest's port of a switch."""

    is_peer = False
    macs = GUEST_MACS

    def __init__(self, net: SwitchNet, vm: str, switches: Switches) -> None:
        super().__init__(net.text)
        self.net, self.vm, self._switches = net, vm, switches
        self._switch: Switch | None = None
        self._device: Receive | None = None
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._scheduled = False
        self._full = False
        """The device has no room."""

    async def open(self, receive: Receive) -> None:
        """Join the switch, and connect it to the peers. Raises WireError."""
        self._device = receive
        self._switch = await self._switches.join(self)

    def send(self, frame: bytes) -> None:
        """Send a frame, or drop and count it."""
        if self._switch is None or not MIN_FRAME <= len(frame) <= MAX_FRAME:
            self._sent_dropped += 1
            return
        self._sent += 1
        self._sent_bytes += len(frame)
        self._switch.forward(frame, self)

    def take(self, frame: bytes) -> None:
        """Have a frame for the device, as soon as it has room; drop it when too many wait."""
        if len(self._queue) >= QUEUE_FRAMES or self._queued_bytes + len(frame) > QUEUE_BYTES:
            self._received_dropped += 1
            return
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        if not self._full:
            self._schedule()

    def resume(self) -> None:
        """The device has room again."""
        if self._full:
            self._full = False
            self._deliver()

    async def close(self) -> None:
        """Leave the switch; its peers are disconnected when no port wants them any more."""
        if self._switch is not None:
            self._switch = None
            await self._switches.leave(self)
        self._device = None
        self._queue.clear()
        self._queued_bytes = 0

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if not self._full:
            self._deliver()

    def _deliver(self) -> None:
        queue, receive = self._queue, self._device
        for _ in range(BATCH):
            if not queue or receive is None:
                return
            frame = queue[0]
            if not receive(frame):
                self._full = True
                return
            queue.popleft()
            self._queued_bytes -= len(frame)
            self._received += 1
            self._received_bytes += len(frame)
        self._schedule()


class PeerPort:
    """A connection to another switch, as a port."""

    is_peer = True
    macs = PEER_MACS

    def __init__(self, link: FrameLink) -> None:
        self.link = link
        self.dropped = 0
        """Frames that the connection had no room for."""

    def take(self, frame: bytes) -> None:
        """Send a frame to the peer, or drop it."""
        if not self.link.send(frame):
            self.dropped += 1


Port = SwitchPort | PeerPort


class Switch:
    """The ports that have one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.guests: list[SwitchPort] = []
        self._ports: list[Port] = []
        self.table: MacTable[Port] = MacTable(asyncio.get_running_loop().time)
        self._peers: dict[FrameLink, PeerPort] = {}
        self._diallers: dict[str, tuple[Dialler, list[SwitchPort]]] = {}
        self._listeners: dict[str, tuple[Listener, list[SwitchPort]]] = {}

    @property
    def peers(self) -> int:
        """Connections to other switches that are there."""
        return len(self._peers)

    @property
    def listening(self) -> Sequence[int]:
        """The TCP ports where other switches connect to this one."""
        return [listener.port for listener, _ in self._listeners.values()]

    def forward(self, frame: bytes, source: Port) -> None:
        """Pass a frame on to the port of its destination, or to all but its own."""
        destination, sender = frame[:6], frame[6:12]
        if not sender[0] & 1:
            self.table.learn(sender, source, source.macs)
        if not destination[0] & 1:
            target = self.table.find(destination)
            if target is not None:
                if target is not source and not (target.is_peer and source.is_peer):
                    target.take(frame)
                return
        elif destination[:5] == _LINK_LOCAL and destination[5] < 0x10:
            return
        from_peer = source.is_peer
        for port in self._ports:
            if port is not source and not (from_peer and port.is_peer):
                port.take(frame)

    def add(self, port: SwitchPort) -> None:
        """Have a guest's port, and connect what it asks for. Raises WireError."""
        if len(self.guests) >= MAX_PORTS:
            raise WireError(f"switch: {self.name} has {MAX_PORTS} ports already", "give another name")
        if port.net.listen is not None:
            self._listen(port.net.listen, port)
        for peer in port.net.peers:
            self._connect(peer, port)
        self.guests.append(port)
        self._ports.append(port)

    async def remove(self, port: SwitchPort) -> None:
        """Let a guest's port go, and what only it has asked for."""
        if port in self.guests:
            self.guests.remove(port)
            self._ports.remove(port)
            self.table.forget(port)
        unwanted: list[Dialler | Listener] = []
        for address, (dialler, wanted_by) in list(self._diallers.items()):
            if _only(port, wanted_by):
                del self._diallers[address]
                unwanted.append(dialler)
        for address, (listener, wanted_by) in list(self._listeners.items()):
            if _only(port, wanted_by):
                del self._listeners[address]
                unwanted.append(listener)
        for connector in unwanted:
            await connector.close()

    def _connect(self, address: Address, port: SwitchPort) -> None:
        known = self._diallers.get(address.text)
        if known is not None:
            known[1].append(port)
            return
        if len(self._diallers) >= MAX_PEERS:
            raise WireError(f"switch: {self.name} has {MAX_PEERS} peers already", "connect fewer")
        tls = tls_for(address, port.vm)
        name = f"switch={self.name},peer={address.text}"
        dialler = Dialler(name, dial_address(address, tls), self._receiver, tls, self._gain, self._lose)
        self._diallers[address.text] = (dialler, [port])
        dialler.start()

    def _listen(self, address: Address, port: SwitchPort) -> None:
        known = self._listeners.get(address.text)
        if known is not None:
            known[1].append(port)
            return
        name = f"switch={self.name},listen={address.text}"
        tls = tls_for(address, port.vm)
        listener = Listener(name, address, MAX_PEERS, self._receiver, tls, self._gain, self._lose)
        self._listeners[address.text] = (listener, [port])

    def _receiver(self, link: FrameLink) -> Receive:
        def receive(frame: bytes) -> bool:
            peer = self._peers.get(link)
            if peer is not None:
                self.forward(frame, peer)
            return True  # What a guest has no room for, its port drops: a peer serves others too.

        return receive

    def _gain(self, link: FrameLink) -> None:
        peer = PeerPort(link)
        self._peers[link] = peer
        self._ports.append(peer)

    def _lose(self, link: FrameLink) -> None:
        peer = self._peers.pop(link, None)
        if peer is not None:
            self._ports.remove(peer)
            self.table.forget(peer)


def _only(port: SwitchPort, wanted_by: list[SwitchPort]) -> bool:
    """Take a port from those that want something; return whether it was the last."""
    if port not in wanted_by:
        return False
    wanted_by.remove(port)
    return not wanted_by


class Switches:
    """The switches of a process, by name. A switch is there while it has ports."""

    def __init__(self) -> None:
        self._named: dict[str, Switch] = {}

    def find(self, name: str) -> Switch | None:
        """Return a switch; None: nobody has a port of that name."""
        return self._named.get(name)

    async def join(self, port: SwitchPort) -> Switch:
        """Return the switch that a port is for, with the port added. Raises WireError."""
        name = port.net.switch
        switch = self._named.setdefault(name, Switch(name))
        try:
            switch.add(port)
        except WireError:
            await self._remove(switch, port)
            raise
        return switch

    async def leave(self, port: SwitchPort) -> None:
        """Take a port away."""
        switch = self._named.get(port.net.switch)
        if switch is not None:
            await self._remove(switch, port)

    async def _remove(self, switch: Switch, port: SwitchPort) -> None:
        await switch.remove(port)
        if not switch.guests and self._named.get(switch.name) is switch:
            del self._named[switch.name]
