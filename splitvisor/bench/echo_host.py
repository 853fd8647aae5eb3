# SPDX-License-Identifier: GPL-2.0-or-later
"""A host at the other end of a guest's wire that answers pings, the same for Splitvisor and QEMU.

passt asks this system for the right to ping, which it often does not have, and libslirp answers for itself: neither is a measure
for the other. This host speaks the framing of QEMU's `-netdev stream`, and answers ARP (RFC 826) and echo requests (RFC 792).
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from splitvisor.bench.peers import BenchError
from splitvisor.lan.link import FrameLink
from splitvisor.lan.listen import Listener
from splitvisor.lan.wire import Receive, WireError
from splitvisor.net.addresses import parse_address

ADDRESS, PREFIX = "192.0.2.1", 24
"""Of the host, on a network for documentation (RFC 5737)."""
MAC = bytes.fromhex("020000000001")
MOST_GUESTS = 4
START_S = 10.0

_ARP, _IPV4 = b"\x08\x06", b"\x08\x00"
_ICMP = 1
_ARP_END, _ICMP_START = 42, 34
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_REQUEST, _REPLY = b"\0\1", b"\0\2"
_OWN = socket.inet_aton(ADDRESS)


def answer(frame: bytes) -> bytes | None:
    """Return what the host answers to a frame; None: nothing."""
    kind = frame[12:14]
    if kind == _ARP and len(frame) >= _ARP_END and frame[20:22] == _REQUEST and frame[38:42] == _OWN:
        return frame[6:12] + MAC + frame[12:20] + _REPLY + MAC + _OWN + frame[22:32]
    if kind != _IPV4 or len(frame) < _ICMP_START + 8 or frame[14] != 0x45 or frame[23] != _ICMP or frame[30:34] != _OWN:
        return None
    if frame[_ICMP_START] != _ECHO_REQUEST:
        return None
    # Swapped addresses have the same sum; one byte of the message is less by 8, so its checksum is more by 0x0800 (RFC 1624).
    total = int.from_bytes(frame[36:38], "big") + (_ECHO_REQUEST - _ECHO_REPLY << 8)
    checksum = (total & 0xFFFF) + (total >> 16)
    swapped = frame[12:26] + frame[30:34] + frame[26:30]
    return frame[6:12] + MAC + swapped + bytes((_ECHO_REPLY, 0)) + checksum.to_bytes(2, "big") + frame[38:]


@contextmanager
def echo_host(path: Path) -> Iterator[None]:
    """Have the host at a unix socket, in a thread of its own, for as many as MOST_GUESTS guests. Raises BenchError."""
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    started = threading.Event()
    failures: list[WireError] = []

    def receiver(link: FrameLink) -> Receive:
        def receive(frame: bytes) -> bool:
            reply = answer(frame)
            if reply is not None:
                link.send(reply)
            return True

        return receive

    async def serve() -> None:
        try:
            listener = Listener("echo host", parse_address(f"unix:{path}"), MOST_GUESTS, receiver)
        except WireError as error:
            failures.append(error)
            return
        finally:
            started.set()
        await ended.wait()
        await listener.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="echo host", daemon=True)
    thread.start()
    try:
        if not started.wait(START_S) or failures:
            raise BenchError(str(failures[0]) if failures else "the host that answers pings did not start")
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(START_S)
        loop.close()
