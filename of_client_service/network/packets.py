# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames with ARP (RFC 826) and UDP (RFC 768) over IPv4 (RFC 791). One that arrives and is not right is ignored."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

MAC_BYTES = 6
BROADCAST_MAC = b"\xff" * MAC_BYTES
BROADCAST = IPv4Address("255.255.255.255")
NOBODY = IPv4Address(0)
MAX_PAYLOAD = 1500 - 20 - 8
"""Bytes of a datagram that fits into a frame of 1,514 bytes."""

_ETHERNET = struct.Struct(">6s6sH")
_ARP_TYPE, _IPV4_TYPE = 0x0806, 0x0800
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ARP_HEAD = (1, _IPV4_TYPE, MAC_BYTES, 4)
"""Addresses of Ethernet and of IPv4."""
_ARP_REQUEST, _ARP_REPLY = 1, 2
_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_UDP = struct.Struct(">4H")
_UDP_PROTOCOL = 17
_VERSION_4, _HOPS = 0x40, 64
_DO_NOT_FRAGMENT, _FRAGMENT = 0x4000, 0x3FFF
"""A flag; what says that a packet is not a whole one: more fragments follow, or some came before."""


@dataclass(frozen=True)
class Arp:
    """A question or an answer of ARP."""

    is_reply: bool
    mac: bytes
    """Of the sender, as its address."""
    address: IPv4Address
    wanted: IPv4Address
    """A question's subject; of an answer, whose question it was."""


@dataclass(frozen=True)
class Datagram:
    """A datagram that has arrived."""

    source: IPv4Address
    destination: IPv4Address
    source_port: int
    port: int
    payload: bytes


def checksum(data: bytes) -> int:
    """Return the Internet's checksum (RFC 1071), 0 for data that contain their own."""
    total = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def arp_frame(mac: bytes, address: IPv4Address, to: bytes, asked: IPv4Address, *, is_reply: bool) -> bytes:
    """Return a frame with a question, for everybody, or an answer.

    to: the asker's MAC address. asked: the asker's address, or the one that is wanted.
    """
    operation, target = (_ARP_REPLY, to) if is_reply else (_ARP_REQUEST, bytes(MAC_BYTES))
    body = _ARP.pack(*_ARP_HEAD, operation, mac, address.packed, target, asked.packed)
    return _ETHERNET.pack(to if is_reply else BROADCAST_MAC, mac, _ARP_TYPE) + body


def udp_frame(mac: bytes, to: bytes, addresses: tuple[IPv4Address, IPv4Address], ports: tuple[int, int], payload: bytes) -> bytes:
    """Return a frame with a datagram. addresses, ports: own, other. to: the next station's MAC address."""
    source, destination = (address.packed for address in addresses)
    length = _UDP.size + len(payload)
    pseudo = source + destination + struct.pack(">HH", _UDP_PROTOCOL, length)
    # A sum that comes out as 0 is sent as its other form, since 0 says that there is none.
    total = checksum(pseudo + _UDP.pack(*ports, length, 0) + payload) or 0xFFFF
    datagram = _UDP.pack(*ports, length, total) + payload

    def head(check: int) -> bytes:
        words = (_IPV4.size + length, 0, _DO_NOT_FRAGMENT, _HOPS, _UDP_PROTOCOL, check)
        return _IPV4.pack(_VERSION_4 | _IPV4.size // 4, 0, *words, source, destination)

    return _ETHERNET.pack(to, mac, _IPV4_TYPE) + head(checksum(head(0))) + datagram


def parse(frame: bytes) -> Arp | Datagram | None:
    """Return what a frame holds; None for anything else, and for what is damaged, cut off, or a fragment."""
    if len(frame) < _ETHERNET.size:
        return None
    _, _, kind = _ETHERNET.unpack_from(frame)
    body = frame[_ETHERNET.size :]
    if kind == _ARP_TYPE:
        return _parse_arp(body)
    return _parse_ipv4(body) if kind == _IPV4_TYPE else None


def _parse_arp(body: bytes) -> Arp | None:
    if len(body) < _ARP.size:
        return None
    *head, operation, mac, address, _, wanted = _ARP.unpack_from(body)
    if tuple(head) != _ARP_HEAD or operation not in (_ARP_REQUEST, _ARP_REPLY) or mac[0] & 1:
        return None
    return Arp(operation == _ARP_REPLY, mac, IPv4Address(address), IPv4Address(wanted))


def _parse_ipv4(body: bytes) -> Datagram | None:
    if len(body) < _IPV4.size:
        return None
    version, _, length, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(body)
    start = (version & 0xF) * 4
    if version >> 4 != 4 or start < _IPV4.size or not start + _UDP.size <= length <= len(body):
        return None
    if fragment & _FRAGMENT or protocol != _UDP_PROTOCOL or checksum(body[:start]):
        return None
    segment = body[start:length]
    source_port, port, size, total = _UDP.unpack_from(segment)
    if not _UDP.size <= size <= len(segment):
        return None
    pseudo = source + destination + struct.pack(">HH", _UDP_PROTOCOL, size)
    if total and checksum(pseudo + segment[:size]):
        return None
    return Datagram(IPv4Address(source), IPv4Address(destination), source_port, port, segment[_UDP.size : size])
