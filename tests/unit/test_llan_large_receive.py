# SPDX-License-Identifier: GPL-2.0-or-later
"""Segments that follow each other become one frame, and nothing else does; cutting a large frame is the oracle."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames import checksum, ethernet
from tests.unit.test_llan_offload import HERE, THERE, VLAN, frame4, frame6, tcp
from vio_service.devices.llan.large_receive import merged
from vio_service.devices.llan.offload import MIN_MSS, find_tcp, segments, with_checksum

ACK, PSH_ACK = 0x10, 0x18
ROOM = 65520
MSS = 100


def without_checksum(frame: bytes) -> bytes:
    """A frame as the guest gets one that is merged."""
    found = find_tcp(frame)
    assert found is not None
    return frame[: found.tcp + 16] + bytes(2) + frame[found.tcp + 18 :]


@given(
    payload=st.binary(max_size=6000),
    mss=st.integers(MIN_MSS, 3000),
    version=st.sampled_from((4, 6)),
    tagged=st.booleans(),
    vouched=st.booleans(),
    flags=st.sampled_from((ACK, PSH_ACK)),
)
def test_what_was_cut_is_whole_again(payload: bytes, mss: int, version: int, tagged: bool, vouched: bool, flags: int) -> None:
    segment = tcp(payload, flags=flags)
    whole = frame4(segment, VLAN if tagged else b"") if version == 4 else frame6(segment, VLAN if tagged else b"")
    cut = list(segments(whole, mss))
    found = merged([*cut, *cut], ROOM, vouched=vouched)
    if len(payload) <= mss:
        assert found is None
        return
    assert found is not None
    assert found.frame == without_checksum(whole)
    assert (found.mss, found.frames) == (mss, len(cut))


@pytest.mark.parametrize("room", [200, 358, 359, 457])
def test_a_merged_frame_is_no_longer_than_there_is_room_for(room: int) -> None:
    cut = list(segments(frame4(tcp(bytes(1000), flags=ACK)), MSS))
    found = merged(cut, room, vouched=False)
    if room < 58 + 2 * MSS:
        assert found is None
    else:
        assert found is not None
        assert len(found.frame) == 58 + (room - 58) // MSS * MSS <= room


def test_a_merged_packet_is_no_longer_than_ip_allows() -> None:
    whole = frame4(tcp(bytes(50_000), flags=ACK))
    (sequence,) = struct.unpack_from(">I", whole, 38)
    after = frame4(tcp(bytes(50_000), sequence=(sequence + 50_000) & 0xFFFF_FFFF, flags=ACK))
    cut = [*segments(whole, 1000), *segments(after, 1000)]
    found = merged(cut, 100_000, vouched=False)
    assert found is not None
    assert found.frames == 65
    assert struct.unpack_from(">H", found.frame, 16) == (len(found.frame) - 14,)
    assert checksum(found.frame[14:34]) == 0


def changed(place: int, value: int) -> Callable[[bytes], bytes]:
    """Have another byte at a place, with right checksums."""

    def change(frame: bytes) -> bytes:
        made = bytearray(frame)
        made[place] = value
        made[24:26] = bytes(2)
        made[24:26] = checksum(bytes(made[14:34])).to_bytes(2, "big")
        return with_checksum(bytes(made))

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed(0, 0x06), id="another destination"),
        pytest.param(changed(15, 0x03), id="congestion was met"),
        pytest.param(changed(20, 0x20), id="a fragment"),
        pytest.param(changed(22, 63), id="another time to live"),
        pytest.param(changed(29, 9), id="another sender"),
        pytest.param(changed(35, 1), id="another port"),
        pytest.param(changed(41, 0x45), id="data are missing"),
        pytest.param(changed(45, 8), id="another acknowledged number"),
        pytest.param(changed(47, ACK | 0x01), id="the end"),
        pytest.param(changed(47, ACK | 0x20), id="urgent"),
        pytest.param(changed(47, ACK | 0x80), id="the sender slows down"),
        pytest.param(changed(49, 1), id="another window"),
        pytest.param(changed(54, 0), id="other options"),
        pytest.param(lambda frame: frame + bytes(6), id="padded"),
        pytest.param(lambda frame: frame[:-1], id="cut off"),
        pytest.param(lambda frame: frame[:-1] + bytes((frame[-1] ^ 1,)), id="broken data"),
        pytest.param(lambda frame: frame[:24] + bytes(2) + frame[26:], id="broken header"),
        pytest.param(lambda frame: frame[:14], id="no packet"),
        pytest.param(lambda frame: ethernet(THERE, HERE, bytes(100)), id="no IP"),
    ],
)
def test_what_differs_is_not_merged_whether_first_or_later(change: Callable[[bytes], bytes]) -> None:
    cut = list(segments(frame4(tcp(bytes(500), flags=ACK)), MSS))
    other = change(cut[2])
    found = merged([*cut[:2], other, *cut[3:]], ROOM, vouched=False)
    assert found is not None
    assert found.frames == 2
    assert merged([other, *cut[3:]], ROOM, vouched=False) is None


def test_segments_that_push_or_carry_nothing_end_a_frame_and_begin_none() -> None:
    whole = frame4(tcp(bytes(500), flags=ACK))
    cut = list(segments(whole, MSS))
    pushed = changed(47, PSH_ACK)(cut[1])
    found = merged([cut[0], pushed, *cut[2:]], ROOM, vouched=False)
    assert found is not None
    assert (found.frames, found.frame[47]) == (2, PSH_ACK)
    assert merged([pushed, *cut[2:]], ROOM, vouched=False) is None
    empty = with_checksum(frame4(tcp(b"", flags=ACK)))
    assert merged([empty, empty, *cut], ROOM, vouched=False) is None
    found = merged([cut[0], empty, cut[1]], ROOM, vouched=False)
    assert found is None


@given(frames=st.lists(st.binary(min_size=14, max_size=120), min_size=1, max_size=4), vouched=st.booleans())
def test_any_bytes_are_frames_of_which_nothing_is_wrong(frames: list[bytes], vouched: bool) -> None:
    for kind in (b"\x08\x00", b"\x86\xdd", VLAN + b"\x08\x00"):
        merged([frame[:12] + kind + frame[14:] for frame in frames], ROOM, vouched=vouched)
