# SPDX-License-Identifier: GPL-2.0-or-later
"""A file by TFTP (RFC 1350) with the options blksize, timeout and tsize (RFC 2347 to 2349).

    RRQ    1, name, NUL, "octet", NUL, and for each option its name, NUL, its value, NUL
    DATA   3, number of the block (16 bits, 0 after 65,535), its bytes; one with fewer than blksize is the last
    ACK    4, number of the block; 0 answers an OACK
    ERROR  5, code, text, NUL
    OACK   6, the options that the server has taken

The client answers each block, and says again what it said last when nothing comes, so that either side may lose packets.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Protocol

from of_client_service.network.exchange import Exchange, NetworkError, shown
from of_client_service.network.host import Host
from of_client_service.network.packets import MAX_PAYLOAD, Datagram

PORT = 69
DEFAULT_BLOCK, SMALLEST_BLOCK = 512, 8
WANTED_BLOCK = MAX_PAYLOAD - 4
"""Bytes of a block that fits into a frame: 1,468."""
WAITS_S = (1.0, 2.0, 4.0, 8.0)
"""How long the server may be silent before the last packet is sent again; after all of them it is given up."""
MAX_NAME = 400
"""Bytes of a file's name: a request fits into what every server takes, 512 bytes (RFC 2347)."""
_SERVER_TIMEOUT_S = 1
"""After which the server is to send a block again."""
_FIRST_EPHEMERAL = 0xC000
_HEAD = struct.Struct(">HH")
_NO_FILE, _UNKNOWN_TRANSFER, _BAD_OPTIONS = 1, 5, 8
_OPTIONS = {"blksize": str(WANTED_BLOCK), "timeout": str(_SERVER_TIMEOUT_S), "tsize": "0"}


class Opcode(IntEnum):
    """The kinds of packets."""

    READ = 1
    DATA = 3
    ACK = 4
    ERROR = 5
    OPTIONS = 6


class Sink(Protocol):
    """Takes a file. What it raises ends the transfer, and is raised by fetch(), too."""

    def begin(self, size: int | None) -> None:
        """Say how many bytes there will be; None: the server does not say."""

    def write(self, data: bytes) -> None:
        """Take the next bytes, which are a block's at most."""


def fetch(host: Host, server: IPv4Address, name: str, sink: Sink, largest: int) -> Exchange[int]:
    """Read a file. Returns its bytes. largest: the most that it may have. Raises NetworkError, and what the sink does."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise NetworkError(f"{shown(name)!r} cannot be the name of a file")
    yield from host.find_way(server)
    transfer = _Transfer(host, server, name, sink, largest)
    try:
        try:
            return (yield from transfer.run(_OPTIONS))
        except _OptionsRefusedError:
            transfer = _Transfer(host, server, name, sink, largest)
            return (yield from transfer.run({}))
    except BaseException:
        transfer.end()
        raise


class _OptionsRefusedError(Exception):
    """The server takes no options, and says so by an error."""


class _Transfer:
    """One request and what follows it."""

    def __init__(self, host: Host, server: IPv4Address, name: str, sink: Sink, largest: int) -> None:
        self._host, self._server, self._name, self._sink, self._largest = host, server, name, sink, largest
        self._port = random.randrange(_FIRST_EPHEMERAL, 1 << 16)
        self._server_port = 0
        """Of the transfer, once the server has answered."""
        self._block_bytes = DEFAULT_BLOCK
        self._size: int | None = None
        self._received = 0
        self._last = b""
        """What was sent last."""
        self._waits, self._until = iter(WAITS_S), 0.0
        """What is left of them since there was progress, and when the present one ends."""

    def run(self, options: Mapping[str, str]) -> Exchange[int]:
        words = [self._name, "octet", *(word for option in options.items() for word in option)]
        self._send(Opcode.READ.to_bytes(2, "big") + b"".join(word.encode("latin-1") + b"\0" for word in words))
        self._progress()
        opcode, body = yield from self._next()
        if opcode is Opcode.OPTIONS:
            self._agree(body, options)
            self._acknowledge(0)
        self._progress()
        self._sink.begin(self._size)
        block = 1
        while True:
            # A block that comes again is not answered again, and neither are options: two sides that both do so never end it
            # (RFC 1123, 4.2.3.1). When an answer was lost, the wait ends, and it is sent again.
            if opcode is Opcode.DATA and int.from_bytes(body[:2], "big") == block & 0xFFFF:
                is_last = self._take(body[2:])
                self._acknowledge(block)
                self._progress()
                if is_last:
                    return self._received
                block += 1
            opcode, body = yield from self._next()

    def end(self) -> None:
        """Tell the server that nothing more is wanted."""
        if self._server_port:
            self._error(self._server_port, 0, "given up")

    def _next(self) -> Exchange[tuple[Opcode, bytes]]:
        """Return the next packet of the transfer that is none of an error, and what follows its opcode."""
        while True:
            arrival = yield self._until
            if arrival is None:
                self._wait_on()
                self._send(self._last)
                continue
            if not isinstance(arrival, Datagram) or arrival.source != self._server or arrival.port != self._port:
                continue
            if self._server_port and arrival.source_port != self._server_port:
                self._error(arrival.source_port, _UNKNOWN_TRANSFER, "unknown transfer")
                continue
            opcode, body = int.from_bytes(arrival.payload[:2], "big"), arrival.payload[2:]
            if opcode == Opcode.ERROR:
                self._fail(body)
            if opcode == Opcode.OPTIONS or (opcode == Opcode.DATA and len(body) >= 2):
                self._server_port = arrival.source_port
                return Opcode(opcode), body

    def _progress(self) -> None:
        """Something new has come: all waits are left."""
        self._waits = iter(WAITS_S)
        self._wait_on()

    def _wait_on(self) -> None:
        """Begin the next wait. Raises NetworkError when the server has been silent for all of them."""
        wait = next(self._waits, None)
        if wait is None:
            raise NetworkError(self._silence())
        self._until = self._host.clock() + wait

    def _agree(self, body: bytes, asked: Mapping[str, str]) -> None:
        """Take what the server has taken of the options (RFC 2347: not one that was not asked for)."""
        words = [word.decode("latin-1").lower() for word in body.split(b"\0")]
        taken = dict(zip(words[::2], words[1::2], strict=False)) if len(words) % 2 else {"": ""}
        for name, value in taken.items():
            if name not in asked or not value.isascii() or not value.isdecimal() or len(value) > len(str(1 << 64)):
                raise NetworkError(f"server {self._server} answers with options that were not asked for")
        self._block_bytes = int(taken.get("blksize", DEFAULT_BLOCK))
        if not SMALLEST_BLOCK <= self._block_bytes <= WANTED_BLOCK:
            raise NetworkError(f"server {self._server} wants blocks of {self._block_bytes} bytes, not of {WANTED_BLOCK} at most")
        if "tsize" in taken:
            self._size = int(taken["tsize"])
            self._check_size(self._size)

    def _take(self, data: bytes) -> bool:
        """Take a block. Returns whether it is the last one."""
        if len(data) > self._block_bytes:
            raise NetworkError(f"server {self._server} sends blocks of {len(data)} bytes, not of {self._block_bytes} at most")
        self._received += len(data)
        self._check_size(self._received)
        is_last = len(data) < self._block_bytes
        if self._size is not None and (self._received > self._size or (is_last and self._received < self._size)):
            raise NetworkError(f"{shown(self._name)} has {self._received} bytes; the server said {self._size}")
        self._sink.write(data)
        return is_last

    def _check_size(self, size: int) -> None:
        if size > self._largest:
            raise NetworkError(f"{shown(self._name)} is too large: {size} bytes; {self._largest} is the most")

    def _fail(self, body: bytes) -> None:
        code, text = int.from_bytes(body[:2], "big"), body[2:].partition(b"\0")[0].decode("latin-1")
        self._server_port = 0
        if code == _BAD_OPTIONS:
            raise _OptionsRefusedError
        if code == _NO_FILE:
            raise NetworkError(f"server {self._server} has no file {shown(self._name)}")
        raise NetworkError(f"server {self._server} does not send {shown(self._name)}: {shown(text) or f'error {code}'}")

    def _silence(self) -> str:
        if not self._server_port:
            return f"server {self._server} does not answer TFTP"
        of_all = "" if self._size is None else f" of {self._size}"
        seconds = sum(WAITS_S)
        return f"server {self._server} is silent for {seconds:.0f} s, after {self._received}{of_all} bytes of {shown(self._name)}"

    def _acknowledge(self, block: int) -> None:
        self._send(_ack(block))

    def _send(self, packet: bytes) -> None:
        self._last = packet
        self._host.send(self._server, (self._port, self._server_port or PORT), packet)

    def _error(self, port: int, code: int, text: str) -> None:
        packet = _HEAD.pack(Opcode.ERROR, code) + text.encode() + b"\0"
        self._host.send(self._server, (self._port, port), packet)


def _ack(block: int) -> bytes:
    return _HEAD.pack(Opcode.ACK, block & 0xFFFF)
