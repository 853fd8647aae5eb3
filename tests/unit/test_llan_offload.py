# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP checksums and segments, with a checksum by the book (RFC 1071) as the oracle."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames import checksum, ethernet, ip_packet
from vio_service.devices.llan.offload import MIN_MSS, find_tcp, is_checksum_good, segments, with_checksum

HERE, THERE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
HERE4, THERE4 = "10.0.0.1", "10.0.0.2"
HERE6, THERE6 = "fd00::1", "fd00::2"
FIN_PSH_ACK_CWR = 0x99
VLAN = b"\x81\x00\x00\x07"


def tcp(
    payload: bytes, check: int = 0, sequence: int = 0xFFFF_FF00, options: bytes = b"\x01" * 4, flags: int = FIN_PSH_ACK_CWR
) -> bytes:
    header = struct.pack(">HHIIBBHHH", 1000, 2000, sequence, 7, (20 + len(options)) // 4 << 4, flags, 500, check, 0)
    return header + options + payload


def frame4(segment: bytes, vlan: bytes = b"") -> bytes:
    return THERE + HERE + vlan + b"\x08\x00" + ip_packet(HERE4, THERE4, socket.IPPROTO_TCP, segment)


def frame6(segment: bytes, vlan: bytes = b"") -> bytes:
    header = struct.pack(">IHBB", 6 << 28, len(segment), socket.IPPROTO_TCP, 64)
    addresses = socket.inet_pton(socket.AF_INET6, HERE6) + socket.inet_pton(socket.AF_INET6, THERE6)
    return THERE + HERE + vlan + b"\x86\xdd" + header + addresses + segment


def pseudo(version: int, length: int) -> bytes:
    if version == 4:
        return socket.inet_aton(HERE4) + socket.inet_aton(THERE4) + struct.pack(">BBH", 0, socket.IPPROTO_TCP, length)
    addresses = socket.inet_pton(socket.AF_INET6, HERE6) + socket.inet_pton(socket.AF_INET6, THERE6)
    return addresses + struct.pack(">II", length, socket.IPPROTO_TCP)


def is_good(frame: bytes, version: int, start: int) -> bool:
    """Whether the segment that begins at start and ends with the frame has the right checksum."""
    segment = frame[start:]
    return checksum(pseudo(version, len(segment)) + segment) == 0


@given(payload=st.binary(max_size=3000), check=st.integers(0, 0xFFFF), tagged=st.booleans(), version=st.sampled_from((4, 6)))
def test_a_checksum_is_what_the_book_says(payload: bytes, check: int, tagged: bool, version: int) -> None:
    vlan = VLAN if tagged else b""
    frame = frame4(tcp(payload, check), vlan) if version == 4 else frame6(tcp(payload, check), vlan)
    start = 14 + len(vlan) + (20 if version == 4 else 40)
    filled = with_checksum(frame)
    assert is_good(filled, version, start)
    assert filled[: start + 16] + filled[start + 18 :] == frame[: start + 16] + frame[start + 18 :]
    found = find_tcp(filled)
    assert found is not None
    assert is_checksum_good(filled, found)
    assert is_checksum_good(frame, found) == is_good(frame, version, start)
    padded = filled + bytes(7)
    assert find_tcp(padded) == found
    assert is_checksum_good(padded, found)


@given(payload=st.binary(max_size=9000), mss=st.integers(MIN_MSS, 9000), version=st.sampled_from((4, 6)))
def test_segments_are_the_data_in_order_each_with_headers_of_its_own(payload: bytes, mss: int, version: int) -> None:
    frame = frame4(tcp(payload)) if version == 4 else frame6(tcp(payload))
    start = 14 + (20 if version == 4 else 40)
    made = list(segments(frame, mss))
    assert len(made) == max(1, -(-len(payload) // mss))
    data = b""
    for number, segment in enumerate(made):
        assert is_good(segment, version, start)
        (sequence,) = struct.unpack_from(">I", segment, start + 4)
        assert sequence == (0xFFFF_FF00 + len(data)) % (1 << 32)
        is_last = number == len(made) - 1
        assert segment[start + 13] == 0x10 | (0x80 if number == 0 else 0) | (0x09 if is_last else 0)
        if version == 4:
            assert checksum(segment[14:34]) == 0
            assert struct.unpack_from(">HH", segment, 16) == (len(segment) - 14, 1 + number)
        else:
            assert struct.unpack_from(">H", segment, 18) == (len(segment) - 54,)
        data += segment[start + 24 :]
    assert data == payload


@given(frame=st.binary(min_size=14, max_size=200), mss=st.integers(0, 70000))
def test_any_bytes_are_a_frame_of_which_nothing_is_wrong(frame: bytes, mss: int) -> None:
    for kind in (b"\x08\x00", b"\x86\xdd", VLAN + b"\x08\x00"):
        sent = frame[:12] + kind + frame[14:]
        found = find_tcp(sent)
        if found is not None:
            assert found.ip < found.tcp < found.data <= found.end <= len(sent)
        assert len(with_checksum(sent)) == len(sent)
        assert sum(map(len, segments(sent, mss))) <= 2 * len(sent) * (1 + len(sent) // MIN_MSS)


def test_an_mss_may_be_where_the_checksum_is() -> None:
    made = list(segments(frame4(tcp(bytes(1000), check=400)), 0))
    assert [len(each) - 58 for each in made] == [400, 400, 200]


@pytest.mark.parametrize("mss", [1, MIN_MSS - 1])
def test_an_mss_that_makes_too_many_frames_makes_none(mss: int) -> None:
    assert list(segments(frame4(tcp(bytes(1000))), mss)) == []


def test_what_is_no_tcp_stays_as_it_is() -> None:
    udp = ethernet(THERE, HERE, ip_packet(HERE4, THERE4, socket.IPPROTO_UDP, bytes(20)), b"\x08\x00")
    fragment = bytearray(frame4(tcp(b"data")))
    fragment[20] = 0x20
    for frame in (udp, bytes(fragment), ethernet(THERE, HERE, bytes(100))):
        assert find_tcp(frame) is None
        assert with_checksum(frame) == frame
        assert list(segments(frame, 500)) == [frame]
