# SPDX-License-Identifier: GPL-2.0-or-later
"""A host on a wire, without a system: it makes and reads the few packets that show that a network works.

ARP (RFC 826), IPv4 (RFC 791), ICMP (RFC 792), UDP (RFC 768), TCP (RFC 9293) without loss, DHCP (RFC 2131), TFTP (RFC 1350).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable

from splitvisor.lan.wire import Wire

WAIT_S = 20.0
BROADCAST = b"\xff" * 6
ARP, IPV4 = b"\x08\x06", b"\x08\x00"
ICMP, TCP, UDP = 1, 6, 17
FIN, SYN, PSH, ACK = 1, 2, 8, 16


def checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(destination: bytes, source: bytes, payload: bytes = b"", kind: bytes = b"\x88\xb5") -> bytes:
    """A frame; without a kind, of one that is for experiments (IEEE 802)."""
    return destination + source + kind + payload


def ip_packet(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet."""
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(payload),
        1,
        0,
        64,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


class Host:
    """A host at the end of a wire that is open with its receive()."""

    def __init__(self, mac: bytes, address: str = "0.0.0.0") -> None:
        self.mac, self.address = mac, address
        self.wire: Wire
        self.frames: list[bytes] = []
        self.has_room = True
        self._changed = asyncio.Event()

    def receive(self, frame: bytes) -> bool:
        """The device's side."""
        if self.has_room:
            self.frames.append(frame)
            self._changed.set()
        return self.has_room

    async def open(self, wire: Wire) -> Host:
        """Be at the end of a wire."""
        self.wire = wire
        await wire.open(self.receive)
        return self

    async def until(self, wanted: Callable[[bytes], bool], again: Callable[[], None] = lambda: None) -> bytes:
        """The first frame that is wanted; what came before it is gone. again: what is done each second until then."""
        async with asyncio.timeout(WAIT_S):
            while True:
                while self.frames:
                    frame = self.frames.pop(0)
                    if wanted(frame):
                        return frame
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 1.0)
                except TimeoutError:
                    again()

    async def count(self, wanted: int) -> None:
        """Wait until so many frames are there."""
        async with asyncio.timeout(WAIT_S):
            while len(self.frames) < wanted:
                self._changed.clear()
                await self._changed.wait()

    async def arp(self, address: str) -> bytes:
        """The MAC address of a neighbour."""
        wanted = socket.inet_aton(address)
        body = struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, self.mac, socket.inet_aton(self.address), bytes(6), wanted)
        request = ethernet(BROADCAST, self.mac, body, ARP)

        def answers(frame: bytes) -> bool:
            return frame[12:14] == ARP and frame[20:22] == b"\0\2" and frame[28:32] == wanted

        self.wire.send(request)
        return (await self.until(answers, lambda: self.wire.send(request)))[22:28]

    def send_ip(self, to: bytes, destination: str, protocol: int, payload: bytes) -> None:
        """Send a packet to a neighbour's MAC address."""
        self.wire.send(ethernet(to, self.mac, ip_packet(self.address, destination, protocol, payload), IPV4))

    def send_udp(self, to: bytes, destination: str, ports: tuple[int, int], payload: bytes) -> None:
        """Send a datagram. ports: own, other."""
        self.send_ip(to, destination, UDP, struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload)

    async def ping(self, to: bytes, destination: str, payload: bytes) -> bytes:
        """The payload of the answer to an echo request."""
        body = struct.pack(">BBHHH", 8, 0, 0, 77, 1) + payload
        body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
        self.send_ip(to, destination, ICMP, body)
        reply = await self.until(
            lambda frame: frame[12:14] == IPV4 and frame[23] == ICMP and frame[34] == 0,
            lambda: self.send_ip(to, destination, ICMP, body),
        )
        return reply[42 : 14 + int.from_bytes(reply[16:18], "big")]

    async def udp(self, port: int) -> tuple[bytes, int, bytes]:
        """The next datagram for a port: the sender's MAC address, its port, the payload."""
        frame = await self.until(lambda each: each[12:14] == IPV4 and each[23] == UDP and each[36:38] == port.to_bytes(2, "big"))
        return frame[6:12], int.from_bytes(frame[34:36], "big"), frame[42 : 34 + int.from_bytes(frame[38:40], "big")]

    async def dhcp(self) -> dict[int, bytes]:
        """Take a lease; return its options: 1 the mask, 3 the router, 6 name servers, 26 the MTU, 67 the file; and fields.

        The field of the address is 0, that of the file -1.
        """
        number = random.randbytes(4)

        def message(kind: int, more: bytes = b"") -> bytes:
            head = struct.pack(">BBBB4sHH16s16s192s", 1, 1, 6, 0, number, 0, 0x8000, bytes(16), self.mac + bytes(10), bytes(192))
            return head + bytes.fromhex("63825363") + bytes((53, 1, kind)) + more + bytes((55, 4, 1, 3, 6, 26, 255)) + bytes(60)

        async def ask(kind: int, more: bytes = b"") -> dict[int, bytes]:
            self.address = "0.0.0.0"
            self.send_udp(BROADCAST, "255.255.255.255", (68, 67), message(kind, more))
            _, _, reply = await self.udp(68)
            assert reply[4:8] == number
            found, rest = {0: reply[16:20], -1: reply[108:236].rstrip(b"\0")}, reply[240:]
            while rest and rest[0] != 255:
                length = rest[1] if rest[0] else -1
                found[rest[0]] = rest[2 : 2 + length]
                rest = rest[2 + length :]
            return found

        offer = await ask(1)
        address = offer[0]
        taken = await ask(3, bytes((50, 4)) + address + (bytes((54, 4)) + offer[54] if 54 in offer else b""))
        assert taken[53] == b"\5"
        assert taken[0] == address
        self.address = socket.inet_ntoa(address)
        return taken

    async def tftp(self, to: bytes, server: str, name: str) -> bytes:
        """A file, or what the server says is wrong."""
        self.send_udp(to, server, (2000, 69), struct.pack(">H", 1) + name.encode() + b"\0octet\0")
        data = b""
        while True:
            _, port, packet = await self.udp(2000)
            if packet[1] == 5:
                raise FileNotFoundError(packet[4:].rstrip(b"\0").decode())
            data += packet[4:]
            self.send_udp(to, server, (2000, port), struct.pack(">H", 4) + packet[2:4])
            if len(packet) < 516:
                return data


class TcpConnection:
    """One of a Host. Both ends send little enough to need no windows; what is lost is sent again after a second.

    checksums: segments have them; otherwise they have 0, which is wrong for those of a test.
    """

    def __init__(self, host: Host, to: bytes, address: str, ports: tuple[int, int], *, checksums: bool = True) -> None:
        self._host, self._to, self._address, self._ports, self._checksums = host, to, address, ports, checksums
        self._sent, self._received = 1000, 0
        self._last = (0, 0, b"")

    def _send(self, flags: int, data: bytes = b"") -> None:
        if flags & (SYN | FIN) or data:
            self._last = (self._sent, flags, data)
        self._transmit(self._sent, flags, data)
        self._sent += len(data) + (1 if flags & (SYN | FIN) else 0)

    def _transmit(self, number: int, flags: int, data: bytes) -> None:
        head = struct.pack(">HHIIBBHHH", *self._ports, number, self._received, 0x50, flags, 0xFFFF, 0, 0)
        pseudo = (
            socket.inet_aton(self._host.address) + socket.inet_aton(self._address) + struct.pack(">HH", TCP, len(head + data))
        )
        if self._checksums:
            head = head[:16] + checksum(pseudo + head + data).to_bytes(2, "big") + head[18:]
        self._host.send_ip(self._to, self._address, TCP, head + data)

    async def _segment(self) -> tuple[int, bytes]:
        """The flags and the data of the next segment that is new."""
        port = self._ports[0].to_bytes(2, "big")
        while True:
            frame = await self._host.until(
                lambda each: each[12:14] == IPV4 and each[23] == TCP and each[36:38] == port,
                lambda: self._transmit(*self._last) if self._last[1] else None,
            )
            tcp = frame[34 : 14 + int.from_bytes(frame[16:18], "big")]
            flags, data = tcp[13], tcp[(tcp[12] >> 4) * 4 :]
            number = int.from_bytes(tcp[4:8], "big")
            if flags & SYN:
                self._ports = (self._ports[0], int.from_bytes(tcp[:2], "big"))
                self._received = number + 1
                return flags, data
            if number == self._received:
                self._received += len(data) + (1 if flags & FIN else 0)
                return flags, data

    async def connect(self) -> TcpConnection:
        """Connect to the other end."""
        self._send(SYN)
        flags, _ = await self._segment()
        assert flags & (SYN | ACK) == SYN | ACK
        self._send(ACK)
        return self

    async def accept(self) -> TcpConnection:
        """Be connected to, at one's own port."""
        flags, _ = await self._segment()
        assert flags & (SYN | ACK) == SYN
        self._send(SYN | ACK)
        return self

    def send(self, data: bytes) -> None:
        """Send a segment."""
        self._send(PSH | ACK, data)

    async def receive(self) -> bytes:
        """The next data."""
        data = b""
        while not data:
            _, data = await self._segment()
        self._send(ACK)
        return data

    async def receive_all(self) -> bytes:
        """What the other end sends until it finishes; then this end has finished, too."""
        found = b""
        while True:
            flags, data = await self._segment()
            found += data
            if flags & FIN:
                self._send(FIN | ACK)
                return found
            if data:
                self._send(ACK)
