# SPDX-License-Identifier: GPL-2.0-or-later
"""Large receive: segments of TCP that follow each other become one frame, for a guest that has said that it takes such frames.

What a received frame costs is the calls and the interrupt around it, hardly its bytes: the guest gives a buffer by one call, and
maps and unmaps it by others. So the data of up to 44 frames of 1,514 bytes cost what one did.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from typing import NamedTuple

from vio_service.devices.llan.offload import TcpFrame, find_tcp, is_checksum_good, ones_complement_sum, set_ipv4_checksum

MAX_IP_BYTES = 0xFFFF
"""Of an IPv4 packet, and of what follows an IPv6 header."""
_ACK, _PSH = 0x10, 0x08
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_IPV4_VARYING, _IPV6_VARYING = ((2, 4), (4, 6), (10, 12)), ((4, 6),)
"""Bytes of an IP header that differ from segment to segment: length, and with IPv4 identification and checksum."""
_TCP_VARYING = ((4, 8), (16, 18))
"""And of TCP's: sequence number and checksum. Of the flags, it is PSH."""


class Merged(NamedTuple):
    """Several frames as one."""

    frame: bytes
    """Its TCP checksum is 0: it has none, as the guest knows by the entry's flags."""
    mss: int
    """Bytes of data of each segment but the last."""
    frames: int
    """How many frames it stands for; more than 1."""


def merged(frames: Iterable[bytes], room: int, *, vouched: bool) -> Merged | None:
    """Return the first of frames merged with those that go on with its data; None: there is nothing to merge.

    Nothing gets lost: only segments with the same headers are merged, addresses, ports, acknowledged number, window and options
    alike. A segment that is short or pushes data (PSH) ends a frame.

    Args:
        frames: in the order in which they arrived.
        room: most bytes of the merged frame.
        vouched: checksums are known to be right.
    """
    iterator = iter(frames)
    first = next(iterator)
    found = find_tcp(first)
    if found is None or first[found.tcp + 13] != _ACK or len(first) != found.end or found.data == found.end:
        return None
    _, ip, tcp, data, end = found
    room = min(room, ip + MAX_IP_BYTES if found.version == 4 else tcp + MAX_IP_BYTES)
    mask = _mask(found.version, ip, tcp, data)
    common = int.from_bytes(first[:data], "big") & mask
    mss, length = end - data, end
    (sequence,) = _U32.unpack_from(first, tcp + 4)
    parts = [first]
    ip_length, ip_base = (ip + 2, ip) if found.version == 4 else (ip + 4, tcp)
    for frame in iterator:
        size = len(frame) - data
        if not 0 < size <= mss or length + size > room or int.from_bytes(frame[:data], "big") & mask != common:
            break
        if _U32.unpack_from(frame, tcp + 4)[0] != (sequence + length - data) & 0xFFFF_FFFF:
            break
        if _U16.unpack_from(frame, ip_length)[0] != len(frame) - ip_base:
            break
        if not vouched and len(parts) == 1 and not _is_intact(first, found):
            break
        if not (vouched or _is_intact(frame, TcpFrame(found.version, ip, tcp, data, len(frame)))):
            break
        parts.append(frame)
        length += size
        if size < mss or frame[tcp + 13] & _PSH:
            break
    if len(parts) == 1:
        return None
    header = bytearray(first[:data])
    _U16.pack_into(header, ip_length, length - ip_base)
    if found.version == 4:
        set_ipv4_checksum(header, ip, tcp)
    header[tcp + 13] = parts[-1][tcp + 13]
    _U16.pack_into(header, tcp + 16, 0)
    return Merged(b"".join((header, *(memoryview(part)[data:] for part in parts))), mss, len(parts))


def _is_intact(frame: bytes, found: TcpFrame) -> bool:
    """Whether both checksums are right."""
    return (found.version == 6 or not ones_complement_sum(frame[found.ip : found.tcp])) and is_checksum_good(frame, found)


@functools.lru_cache(maxsize=64)
def _mask(version: int, ip: int, tcp: int, data: int) -> int:
    """Return the bits of the headers that are alike in segments of one flow that follow each other, as a number."""
    mask = bytearray(b"\xff" * data)
    for start, stop in _IPV4_VARYING if version == 4 else _IPV6_VARYING:
        mask[ip + start : ip + stop] = bytes(stop - start)
    for start, stop in _TCP_VARYING:
        mask[tcp + start : tcp + stop] = bytes(stop - start)
    mask[tcp + 13] &= ~_PSH
    return int.from_bytes(mask, "big")
