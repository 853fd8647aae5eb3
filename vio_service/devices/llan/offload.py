# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest leaves to its network device: TCP checksums, and cutting what it sends (RFC 9293, 1071, 791, 8200)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from splitvisor.lan.wire import MIN_FRAME

MIN_MSS = 48
"""Linux sends no smaller segments (net.ipv4.tcp_min_snd_mss); it also bounds how many frames a call can make."""

_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_VLAN, _IPV4, _IPV6, _TCP = 0x8100, 0x0800, 0x86DD, 6
_IPV4_HEADER, _IPV6_HEADER, _TCP_HEADER = 20, 40, 20
_FRAGMENT = 0x3FFF
"""More fragments, or an offset."""
_FIN_PSH, _CWR = 0x09, 0x80
_ONES = 0xFFFF


class TcpFrame(NamedTuple):
    """Where things are in a frame that holds a whole segment of TCP."""

    version: int
    """Of IP."""
    ip: int
    """Where its header begins."""
    tcp: int
    """Where TCP's header begins."""
    data: int
    """Where TCP's data begin."""
    end: int
    """Where the segment ends; behind it may be padding."""


def find_tcp(frame: bytes) -> TcpFrame | None:
    """Return where a frame has what; None: it is no segment of TCP that is whole and directly behind its IP header."""
    ip = MIN_FRAME
    if len(frame) < ip + _IPV4_HEADER:
        return None
    (kind,) = _U16.unpack_from(frame, ip - 2)
    if kind == _VLAN:
        (kind,) = _U16.unpack_from(frame, ip + 2)
        ip += 4
    if kind == _IPV4 and len(frame) >= ip + _IPV4_HEADER:
        tcp = ip + 4 * (frame[ip] & 0xF)
        end = ip + _U16.unpack_from(frame, ip + 2)[0]
        if (
            frame[ip] >> 4 != 4
            or tcp < ip + _IPV4_HEADER
            or frame[ip + 9] != _TCP
            or _U16.unpack_from(frame, ip + 6)[0] & _FRAGMENT
        ):
            return None
        version = 4
    elif kind == _IPV6 and len(frame) >= ip + _IPV6_HEADER:
        tcp = ip + _IPV6_HEADER
        end = tcp + _U16.unpack_from(frame, ip + 4)[0]
        if frame[ip] >> 4 != 6 or frame[ip + 6] != _TCP:
            return None
        version = 6
    else:
        return None
    if end > len(frame) or tcp + _TCP_HEADER > end:
        return None
    data = tcp + 4 * (frame[tcp + 12] >> 4)
    return TcpFrame(version, ip, tcp, data, end) if tcp + _TCP_HEADER <= data <= end else None


def ones_complement_sum(data: bytes | bytearray) -> int:
    """Return the ones' complement sum of 16-bit words, as a remainder: 0 stands for 0xFFFF.

    65,536 is 1 more than 65,535, so that a number has the remainder of the sum of its 16-bit digits: one division of a long
    number, which Python makes in C, instead of a loop.
    """
    return int.from_bytes(data, "big") % _ONES if len(data) % 2 == 0 else (int.from_bytes(data, "big") << 8) % _ONES


def _pseudo_header(frame: bytes | bytearray, found: TcpFrame) -> int:
    addresses = frame[found.ip + 12 : found.ip + 20] if found.version == 4 else frame[found.ip + 8 : found.ip + 40]
    return ones_complement_sum(addresses) + _TCP + found.end - found.tcp


def _folded(total: int) -> int:
    """Return the checksum for a sum."""
    return _ONES - (total % _ONES or _ONES)


def is_checksum_good(frame: bytes, found: TcpFrame) -> bool:
    """Whether a segment's TCP checksum is right."""
    return (_pseudo_header(frame, found) + ones_complement_sum(frame[found.tcp : found.end])) % _ONES == 0


def with_checksum(frame: bytes) -> bytes:
    """Return a frame with its TCP checksum; without TCP, as it is."""
    found = find_tcp(frame)
    if found is None:
        return frame
    filled = bytearray(frame)
    _fill(filled, found)
    return bytes(filled)


def set_ipv4_checksum(frame: bytearray, ip: int, tcp: int) -> None:
    """Compute the checksum of an IPv4 header. ip, tcp: where it begins and ends."""
    _U16.pack_into(frame, ip + 10, 0)
    _U16.pack_into(frame, ip + 10, _folded(ones_complement_sum(frame[ip:tcp])))


def _fill(frame: bytearray, found: TcpFrame) -> None:
    place = found.tcp + 16
    _U16.pack_into(frame, place, 0)
    _U16.pack_into(frame, place, _folded(_pseudo_header(frame, found) + ones_complement_sum(frame[found.tcp : found.end])))


def segments(frame: bytes, mss: int) -> Iterator[bytes]:
    """Cut a frame's TCP data into segments.

    Args:
        frame: with the headers of the first segment; IP's length and identification, both checksums and TCP's sequence number and
            flags are made for each.
        mss: most bytes of data in each; 0: the guest put it into the TCP checksum, as old drivers do.

    Yields the frame as it is without TCP, and nothing for an MSS below MIN_MSS.
    """
    found = find_tcp(frame)
    if found is None:
        yield frame
        return
    size = mss or _U16.unpack_from(frame, found.tcp + 16)[0]
    if size < MIN_MSS:
        return
    version, ip, tcp, data, end = found
    header = frame[:data]
    (sequence,) = _U32.unpack_from(frame, tcp + 4)
    (identification,) = _U16.unpack_from(frame, ip + 4)
    flags = frame[tcp + 13]
    for number, start in enumerate(range(data, max(end, data + 1), size)):
        stop = min(start + size, end)
        made = bytearray(header)
        made += frame[start:stop]
        if version == 4:
            _U16.pack_into(made, ip + 2, len(made) - ip)
            _U16.pack_into(made, ip + 4, (identification + number) & 0xFFFF)
            set_ipv4_checksum(made, ip, tcp)
        else:
            _U16.pack_into(made, ip + 4, len(made) - tcp)
        _U32.pack_into(made, tcp + 4, (sequence + start - data) & 0xFFFF_FFFF)
        made[tcp + 13] = flags & ~((_FIN_PSH if stop < end else 0) | (_CWR if number else 0))
        _fill(made, TcpFrame(version, ip, tcp, data, len(made)))
        yield bytes(made)
