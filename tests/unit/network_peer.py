# SPDX-License-Identifier: GPL-2.0-or-later
"""A wire with servers at its other end and a clock that stands still: an exchange of the firmware, in no time at all."""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TypeVar

from of_client_service.network.exchange import Exchange
from of_client_service.network.host import Host
from of_client_service.network.packets import Arp, Datagram, arp_frame, parse, udp_frame

MAC, PEER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
CLIENT, SERVER = IPv4Address("192.0.2.9"), IPv4Address("192.0.2.1")
T = TypeVar("T")
Answer = Sequence[bytes]
MAX_ROUNDS = 200_000


class Clock:
    """The time in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Peer:
    """Who is at the other end."""

    server: Callable[[Datagram], Answer]
    """Takes a datagram and returns frames."""
    clock: Clock = field(default_factory=Clock)
    answers_arp: bool = True
    loss: float = 0.0
    """Of frames, in either direction."""
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    lost: int = 0
    heard: list[Arp | Datagram] = field(default_factory=list)
    later: list[tuple[float, bytes]] = field(default_factory=list)
    """Frames that arrive at a time."""

    def host(self, *, is_configured: bool = True) -> Host:
        host = Host(MAC, self.clock)
        if is_configured:
            host.configure(CLIENT, 24, None)
        return host

    def frames(self, frame: bytes) -> Answer:
        """What comes back for a frame."""
        arrival = parse(frame)
        assert arrival is not None, "what is sent can be understood"
        self.heard.append(arrival)
        if isinstance(arrival, Arp):
            answers = self.answers_arp and not arrival.is_reply
            return [arp_frame(PEER, arrival.wanted, arrival.mac, arrival.address, is_reply=True)] if answers else []
        return self.server(arrival)

    def is_lost(self) -> bool:
        is_lost = self.loss > 0 and self.dice.random() < self.loss
        self.lost += is_lost
        return is_lost

    def run(self, host: Host, exchange: Exchange[T]) -> T:
        """Carry frames to the end of an exchange; time passes when nothing else does."""
        arriving: deque[bytes] = deque()
        event: Arp | Datagram | None = None
        for _ in range(MAX_ROUNDS):
            try:
                until = exchange.send(event)
            except StopIteration as ended:
                result: T = ended.value
                return result
            finally:
                self._carry(host, arriving)
            event = None
            while event is None and self.clock.now < until:
                self._carry(host, arriving)
                if arriving:
                    event = host.receive(arriving.popleft())
                    continue
                due = min((each for each in self.later if each[0] <= until), default=None)
                if due is None:
                    self.clock.now = until
                else:
                    self.later.remove(due)
                    self.clock.now = max(self.clock.now, due[0])
                    arriving.append(due[1])
        raise AssertionError("it does not end")

    def _carry(self, host: Host, arriving: deque[bytes]) -> None:
        while host.outbox:
            frame = host.outbox.popleft()
            if not self.is_lost():
                arriving.extend(answer for answer in self.frames(frame) if not self.is_lost())


def reply(datagram: Datagram, payload: bytes, *, port: int | None = None, source: IPv4Address = SERVER) -> bytes:
    """A frame that answers a datagram."""
    return udp_frame(PEER, MAC, (source, datagram.source), (port or datagram.port, datagram.source_port), payload)


def dhcp_reply(
    request: bytes, kind: int, options: Sequence[tuple[int, bytes]] = (), *, file: bytes = b"", next_server: str = "0.0.0.0"
) -> bytes:
    """A message of DHCP, by the text of RFC 2131 and not by what this code does."""
    fixed = struct.pack(
        ">4s4sHH4s4s4s4s16s64s128s",
        b"\2\1\6\0", request[4:8], 0, 0,
        bytes(4), CLIENT.packed, IPv4Address(next_server).packed, bytes(4), request[28:44], b"", file,
    )  # fmt: skip
    listed = [(53, bytes((kind,))), *options]
    return fixed + b"\x63\x82\x53\x63" + b"".join(bytes((code, len(value))) + value for code, value in listed) + b"\xff"


class TftpServer:
    """A server of one file, after RFC 1350 and 2347 to 2349."""

    def __init__(self, files: dict[str, bytes], *, options: bool = True, block: int = 1428, silent_after: int = 1 << 40) -> None:
        self.files, self.with_options, self.largest, self.silent_after = files, options, block, silent_after
        self.port = 40000
        self.requests: list[bytes] = []
        self.errors: list[bytes] = []
        self.sent = 0
        self._data, self._block, self._bytes = b"", 0, 512

    def __call__(self, datagram: Datagram) -> Answer:
        packet = datagram.payload
        code = packet[1]
        if datagram.port == 69:
            assert code == 1
            return self._begin(datagram)
        assert datagram.port == self.port
        if code == 5:
            self.errors.append(packet)
            return []
        assert code == 4
        acknowledged = int.from_bytes(packet[2:4], "big")
        if acknowledged == self._block & 0xFFFF:
            if self._block and len(self._part(self._block)) < self._bytes:
                return []
            self._block += 1
        elif acknowledged != self._block - 1 & 0xFFFF:
            return []
        return self._send(datagram)

    def _begin(self, datagram: Datagram) -> Answer:
        self.requests.append(datagram.payload)
        name, mode, *words = datagram.payload[2:].split(b"\0")[:-1]
        assert mode == b"octet"
        asked = dict(zip(words[::2], words[1::2], strict=True))
        if name.decode() not in self.files:
            return [reply(datagram, b"\0\5\0\1no such file\0", port=self.port)]
        self._data, self._block, self._bytes = self.files[name.decode()], 0, 512
        if not self.with_options or not asked:
            self._block = 1
            return self._send(datagram)
        self._bytes = min(self.largest, int(asked[b"blksize"]))
        taken = {b"blksize": b"%d" % self._bytes, b"tsize": b"%d" % len(self._data), b"timeout": asked[b"timeout"]}
        body = b"".join(key + b"\0" + value + b"\0" for key, value in taken.items())
        return [reply(datagram, b"\0\6" + body, port=self.port)]

    def _part(self, block: int) -> bytes:
        return self._data[(block - 1) * self._bytes : block * self._bytes]

    def _send(self, datagram: Datagram) -> Answer:
        if self._block > self.silent_after:
            return []
        self.sent += 1
        packet = b"\0\3" + (self._block & 0xFFFF).to_bytes(2, "big") + self._part(self._block)
        return [reply(datagram, packet, port=self.port)]


class Bytes:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.data = b""

    def begin(self, size: int | None) -> None:
        self.size = size

    def write(self, data: bytes) -> None:
        self.data += data
