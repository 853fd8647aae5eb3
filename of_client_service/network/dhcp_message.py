# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCP's messages (RFC 2131, options of RFC 2132): requests as bytes, and replies taken apart with everything checked."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network

from of_client_service.network.packets import MAC_BYTES, MAX_PAYLOAD, NOBODY

CLIENT_PORT, SERVER_PORT = 68, 67
_FIXED = struct.Struct(">4BIHH4s4s4s4s16s64s128s")
_COOKIE = bytes.fromhex("63825363")
_REQUEST, _REPLY, _ETHERNET = 1, 2, 1
_MINIMUM = 300
"""Bytes of a request: BOOTP's size, below which some relays drop it (RFC 1542, 2.1)."""
_PAD, _END = 0, 255
_SERVER_FIELD_AT = 20
"""Where siaddr is."""


class MessageType(IntEnum):
    """Option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5
    NAK = 6


class Option(IntEnum):
    """Codes of options."""

    SUBNET_MASK = 1
    ROUTER = 3
    NAME_SERVERS = 6
    HOST_NAME = 12
    DOMAIN = 15
    ROOT_PATH = 17
    REQUESTED_ADDRESS = 50
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER = 54
    PARAMETERS = 55
    MAX_MESSAGE = 57
    TFTP_SERVER = 66
    BOOT_FILE = 67
    ARCHITECTURE = 93


OPEN_FIRMWARE = 12
"""Of option 93: PowerPC with Open Firmware (RFC 4578, as IANA continues its list)."""
_WANTED = (
    Option.SUBNET_MASK, Option.ROUTER, Option.NAME_SERVERS, Option.HOST_NAME, Option.DOMAIN, Option.ROOT_PATH,
    Option.TFTP_SERVER, Option.BOOT_FILE,
)  # fmt: skip
"""Also what a boot loader finds in the reply, which /chosen has."""
_OVERLOAD_FILE, _OVERLOAD_NAME = 1, 2
_NO_HOSTS = tuple(IPv4Network(each) for each in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"))
"""Addresses that no host of a network has: of this host, of groups, reserved (RFC 6890)."""


@dataclass(frozen=True)
class Reply:
    """What a server says."""

    type: MessageType
    address: IPv4Address
    """For the client."""
    options: Mapping[int, bytes]
    next_server: IPv4Address
    """siaddr; 0.0.0.0: not said."""
    file_field: bytes
    data: bytes
    """The message."""

    @property
    def server(self) -> IPv4Address | None:
        """Who says it."""
        return _address(self.options.get(Option.SERVER))

    @property
    def prefix(self) -> int | None:
        """Bits of the network's part of the address; None: not said, or no mask."""
        mask = self.options.get(Option.SUBNET_MASK, b"")
        bits = f"{int.from_bytes(mask, 'big'):032b}" if len(mask) == 4 else "01"
        return None if "01" in bits else bits.count("1")

    @property
    def router(self) -> IPv4Address | None:
        """The first of the routers."""
        return _address(self.options.get(Option.ROUTER, b"")[:4])

    @property
    def file(self) -> str:
        """What to boot; empty: not said."""
        name = self.options.get(Option.BOOT_FILE) or self.file_field
        return name.partition(b"\0")[0].decode("latin-1")

    @property
    def file_server(self) -> IPv4Address | None:
        """Who has it: siaddr, or else option 66 where it is an address, or else who says it."""
        if self.next_server != NOBODY:
            return self.next_server
        name = self.options.get(Option.TFTP_SERVER, b"").rstrip(b"\0")
        try:
            return IPv4Address(name.decode("ascii"))
        except ValueError:
            return self.server

    def data_with(self, server: IPv4Address) -> bytes:
        """Return the message; siaddr is this server where it was not said, for clients that know no other way."""
        if self.next_server != NOBODY:
            return self.data
        return self.data[:_SERVER_FIELD_AT] + server.packed + self.data[_SERVER_FIELD_AT + 4 :]


def request(kind: MessageType, number: int, mac: bytes, seconds: int, chosen: Reply | None = None) -> bytes:
    """Return a DISCOVER, or a REQUEST for what a chosen offer has.

    number: of the transaction, 32 bits. seconds: since the start.
    """
    options: list[tuple[int, bytes]] = [(Option.MESSAGE_TYPE, bytes((kind,)))]
    if chosen is not None:
        options.append((Option.REQUESTED_ADDRESS, chosen.address.packed))
        if chosen.server is not None:
            options.append((Option.SERVER, chosen.server.packed))
    options += [
        (Option.MAX_MESSAGE, MAX_PAYLOAD.to_bytes(2, "big")),
        (Option.ARCHITECTURE, OPEN_FIRMWARE.to_bytes(2, "big")),
        (Option.PARAMETERS, bytes(_WANTED)),
    ]
    nobody = NOBODY.packed
    # No flag for a broadcast: whatever is sent to the MAC address is heard, also before there is another address.
    head = (_REQUEST, _ETHERNET, MAC_BYTES, 0, number, min(seconds, 0xFFFF), 0, nobody, nobody, nobody, nobody)
    fixed = _FIXED.pack(*head, mac, b"", b"") + _COOKIE
    listed = b"".join(bytes((code, len(value))) + value for code, value in options)
    return (fixed + listed + bytes((_END,))).ljust(_MINIMUM, b"\0")


def parse(data: bytes, number: int, mac: bytes) -> Reply | None:
    """Take a reply apart; None: it is for another request or client, or cannot be."""
    if len(data) < _FIXED.size + len(_COOKIE) or data[_FIXED.size : _FIXED.size + len(_COOKIE)] != _COOKIE:
        return None
    kind, _, length, _, transaction, _, _, _, yours, server, _, hardware, name, file = _FIXED.unpack_from(data)
    if (kind, transaction, length, hardware[:MAC_BYTES]) != (_REPLY, number, MAC_BYTES, mac):
        return None
    options: dict[int, bytes] = {}
    if not _collect(data[_FIXED.size + len(_COOKIE) :], options):
        return None
    overload = int.from_bytes(options.get(Option.OVERLOAD, b""), "big")
    # The file's field comes before the name's (RFC 2131, 4.1).
    for flag, field in ((_OVERLOAD_FILE, file), (_OVERLOAD_NAME, name)):
        if overload & flag and not _collect(field, options):
            return None
    said = int.from_bytes(options.get(Option.MESSAGE_TYPE, b""), "big")
    if said not in MessageType._value2member_map_:
        return None
    field = b"" if overload & _OVERLOAD_FILE else file
    return Reply(MessageType(said), IPv4Address(yours), options, IPv4Address(server), field, data)


def can_have(address: IPv4Address) -> bool:
    """Whether a host may have an address."""
    return not any(address in network for network in _NO_HOSTS)


def _collect(field: bytes, options: dict[int, bytes]) -> bool:
    """Add the options of a field; parts of one option are joined (RFC 3396). False: one of them has no end."""
    at = 0
    while at < len(field) and field[at] != _END:
        code = field[at]
        at += 1
        if code == _PAD:
            continue
        if at >= len(field) or at + 1 + field[at] > len(field):
            return False
        value = field[at + 1 : at + 1 + field[at]]
        options[code] = options.get(code, b"") + value
        at += 1 + len(value)
    return True


def _address(value: bytes | None) -> IPv4Address | None:
    return IPv4Address(value) if value is not None and len(value) == 4 else None
