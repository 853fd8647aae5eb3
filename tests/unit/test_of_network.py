# SPDX-License-Identifier: GPL-2.0-or-later
"""The firmware's packets and its DHCP: as tcpdump reads them, and whatever is wrong with what arrives is ignored."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from of_client_service.network import dhcp_message
from of_client_service.network.dhcp import DISCOVER_WAITS_S, obtain
from of_client_service.network.dhcp_message import MessageType
from of_client_service.network.exchange import NetworkError, shown
from of_client_service.network.packets import Arp, Datagram, arp_frame, checksum, parse, udp_frame
from tests.frames import checksum as reference_checksum
from tests.unit.network_peer import CLIENT, MAC, PEER, SERVER, Answer, Peer, dhcp_reply, reply

PORTS = (1234, 69)
FRAME = udp_frame(MAC, PEER, (CLIENT, SERVER), PORTS, b"payload")
NUMBER = 0x01020304


def dumped(tmp_path: Path, *frames: bytes) -> str:
    """What tcpdump says of frames."""
    program = shutil.which("tcpdump")
    if program is None:
        pytest.skip("needs tcpdump")
    file = tmp_path / "pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    file.write_bytes(head + b"".join(struct.pack("<IIII", 0, 0, len(each), len(each)) + each for each in frames))
    command = [program, "-nn", "-vvv", "-r", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@given(st.binary(max_size=200))
def test_the_checksum_is_the_internets(data: bytes) -> None:
    assert checksum(data) == reference_checksum(data)


@given(st.binary(max_size=1472), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_datagram_arrives_as_it_was_sent(payload: bytes, own: int, other: int) -> None:
    frame = udp_frame(MAC, PEER, (CLIENT, SERVER), (own, other), payload)
    assert parse(frame.ljust(60, b"\0")) == Datagram(CLIENT, SERVER, own, other, payload)


@given(st.integers(0, 8 * len(FRAME) - 1))
def test_no_damaged_bit_is_taken_for_data(bit: int) -> None:
    damaged = bytearray(FRAME)
    damaged[bit // 8] ^= 1 << bit % 8
    arrival = parse(bytes(damaged))
    # Addresses of Ethernet have no checksum here.
    assert arrival is None or (bit < 96 and arrival == parse(FRAME))


@given(st.binary(max_size=1600))
def test_any_bytes_are_a_packet_or_nothing(data: bytes) -> None:
    parse(data)
    for kind in (b"\x08\x00", b"\x08\x06"):
        parse(MAC + PEER + kind + data)


@pytest.mark.parametrize("flags", [0x2000, 0x0001, 0x1FFF, 0x3FFF, 0x8000 | 0x2000])
def test_a_fragment_is_ignored(flags: int) -> None:
    header = bytearray(FRAME[14:34])
    header[6:8] = flags.to_bytes(2, "big")
    header[10:12] = bytes(2)
    header[10:12] = reference_checksum(bytes(header)).to_bytes(2, "big")
    assert parse(FRAME[:14] + bytes(header) + FRAME[34:]) is None


def test_a_datagram_without_a_checksum_and_a_header_with_options_are_taken() -> None:
    bare = bytearray(FRAME)
    bare[40:42] = bytes(2)
    assert parse(bytes(bare)) == parse(FRAME)
    header = bytearray(FRAME[14:34]) + b"\1\1\1\0"
    header[0] = 0x46
    header[2:4] = (24 + 8 + 7).to_bytes(2, "big")
    header[10:12] = bytes(2)
    header[10:12] = reference_checksum(bytes(header)).to_bytes(2, "big")
    assert parse(FRAME[:14] + bytes(header) + FRAME[34:]) == parse(FRAME)


def test_tcpdump_reads_what_is_sent(tmp_path: Path) -> None:
    host = Peer(lambda datagram: []).host(is_configured=False)
    message = dhcp_message.request(MessageType.DISCOVER, NUMBER, MAC, 7)
    host.broadcast((68, 67), message)
    frames = (
        *host.outbox,
        arp_frame(MAC, CLIENT, PEER, SERVER, is_reply=False),
        arp_frame(MAC, CLIENT, PEER, SERVER, is_reply=True),
        *(udp_frame(MAC, PEER, (CLIENT, SERVER), PORTS, bytes(size)) for size in (0, 1, 2, 1472)),
    )
    text = dumped(tmp_path, *frames)
    assert text.count("udp sum ok") == 5
    assert "bad" not in text
    for words in (
        "BOOTP/DHCP, Request from 02:00:00:00:00:01, length 300, xid 0x1020304, secs 7",
        "DHCP-Message (53), length 1: Discover",
        "MSZ (57), length 2: 1472",
        "ARCH (93), length 2: 12",
        "Subnet-Mask (1), Default-Gateway (3)",
        "Request who-has 192.0.2.1 tell 192.0.2.9",
        "Reply 192.0.2.9 is-at 02:00:00:00:00:01",
    ):
        assert words in text, text


# DHCP.


class DhcpServer:
    """Answers as a test says."""

    def __init__(self, *servers: Mapping[str, object], nak: bool = False, silent: int = 0) -> None:
        self.servers, self.nak, self.silent = servers, nak, silent
        self.requests: list[bytes] = []

    def __call__(self, datagram: Datagram) -> Answer:
        assert (datagram.source_port, datagram.port, datagram.destination) == (68, 67, IPv4Address("255.255.255.255"))
        message = datagram.payload
        self.requests.append(message)
        if len(self.requests) <= self.silent:
            return []
        kind = message[242]
        chosen = message[message.index(b"\x36\4") + 2 :][:4] if kind == MessageType.REQUEST else b""
        answers = []
        for server in self.servers:
            address = IPv4Address(str(server["id"]))
            if chosen not in (b"", address.packed):
                continue
            said = MessageType.OFFER if not chosen else MessageType.NAK if self.nak else MessageType.ACK
            options = [(54, address.packed), (1, b"\xff\xff\xff\0"), (3, SERVER.packed), *server.get("options", ())]  # type: ignore[misc]
            file = server.get("file", b"")
            assert isinstance(file, bytes)
            answers.append(
                reply(datagram, dhcp_reply(message, said, options, file=file, next_server=str(server.get("next", "0.0.0.0"))))
            )
        return answers


def test_a_lease_configures_the_host() -> None:
    server = DhcpServer({"id": "192.0.2.1", "file": b"a/b.elf", "next": "192.0.2.3"}, silent=1)
    peer = Peer(server)
    host = peer.host(is_configured=False)
    lease = peer.run(host, obtain(host, needs_file=True))
    assert (host.address, lease.prefix, lease.router) == (CLIENT, 24, SERVER)
    assert (lease.file, lease.file_server) == ("a/b.elf", IPv4Address("192.0.2.3"))
    assert 1000.8 < peer.clock.now < 1001.2, "a lost request is made again after a second"
    assert [message[242] for message in server.requests] == [1, 1, 3]


def test_an_offer_with_a_file_is_preferred_and_options_come_before_fields() -> None:
    first = {"id": "192.0.2.1"}
    second = {"id": "192.0.2.2", "file": b"field", "options": [(67, b"opt"), (67, b"ion\0"), (66, b"192.0.2.7")]}
    peer = Peer(DhcpServer(first, second))
    host = peer.host(is_configured=False)
    lease = peer.run(host, obtain(host, needs_file=True))
    assert (lease.server, lease.file, lease.file_server) == (IPv4Address("192.0.2.2"), "option", IPv4Address("192.0.2.7"))
    host = peer.host(is_configured=False)
    assert peer.run(host, obtain(host, needs_file=False)).server == SERVER


def test_options_go_on_in_other_fields() -> None:
    message = bytearray(dhcp_reply(dhcp_message.request(MessageType.DISCOVER, NUMBER, MAC, 0), 2, [(52, b"\3")]))
    message[108 : 108 + 9] = b"\x43\5a.elf\xff\0"
    message[44 : 44 + 8] = b"\x36\4" + SERVER.packed + b"\xff\0"
    found = dhcp_message.parse(bytes(message), NUMBER, MAC)
    assert found is not None
    assert (found.file, found.server, found.file_server) == ("a.elf", SERVER, SERVER)


@pytest.mark.parametrize("server", [DhcpServer(), DhcpServer({"id": "192.0.2.1"}, silent=99)])
def test_nobody_who_answers_is_one_line_after_half_a_minute(server: DhcpServer) -> None:
    peer = Peer(server)
    host = peer.host(is_configured=False)
    with pytest.raises(NetworkError, match=r"no answer to DHCP \(5 requests in \d+ s\)"):
        peer.run(host, obtain(host, needs_file=True))
    assert peer.clock.now - 1000 == pytest.approx(sum(DISCOVER_WAITS_S), rel=0.1)
    assert len(server.requests) == len(DISCOVER_WAITS_S)


def test_a_server_that_takes_its_offer_back_is_one_line() -> None:
    peer = Peer(DhcpServer({"id": "192.0.2.1", "file": b"f"}, nak=True))
    host = peer.host(is_configured=False)
    with pytest.raises(NetworkError, match="refuses what it has offered"):
        peer.run(host, obtain(host, needs_file=True))


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "250.1.1.1"])
def test_an_address_that_no_host_has_is_not_taken(address: str) -> None:
    assert not dhcp_message.can_have(IPv4Address(address))


@pytest.mark.parametrize(
    ("mask", "prefix"),
    [(b"\xff\xff\xff\0", 24), (b"\xff\xff\xff\xff", 32), (bytes(4), 0), (b"\xff\0\xff\0", None), (b"\xff", None)],
)
def test_a_mask_is_a_prefix_or_nothing(mask: bytes, prefix: int | None) -> None:
    found = dhcp_message.parse(
        dhcp_reply(bytes(4) + NUMBER.to_bytes(4, "big") + bytes(20) + MAC + bytes(10), 2, [(1, mask)]), NUMBER, MAC
    )
    assert found is not None
    assert found.prefix == prefix


options = st.lists(st.tuples(st.integers(1, 254).filter(lambda code: code not in (52, 53)), st.binary(max_size=255)), max_size=6)


@given(options)
def test_options_are_taken_apart(listed: Sequence[tuple[int, bytes]]) -> None:
    request = dhcp_message.request(MessageType.DISCOVER, NUMBER, MAC, 0)
    found = dhcp_message.parse(dhcp_reply(request, 2, listed), NUMBER, MAC)
    assert found is not None
    expected: dict[int, bytes] = {53: b"\2"}
    for code, value in listed:
        expected[code] = expected.get(code, b"") + value
    assert found.options == expected
    assert shown(found.file).isprintable()
    assert found.file_server is None or isinstance(found.file_server, IPv4Address)


@given(st.binary(max_size=700), st.integers(0, 600), st.binary(min_size=1, max_size=8))
def test_any_bytes_are_a_reply_or_nothing(data: bytes, at: int, change: bytes) -> None:
    dhcp_message.parse(data, NUMBER, MAC)
    message = bytearray(
        dhcp_reply(dhcp_message.request(MessageType.DISCOVER, NUMBER, MAC, 0), 2, [(52, b"\3"), (67, b"f")], file=b"x")
    )
    message[at : at + len(change)] = change
    found = dhcp_message.parse(bytes(message), NUMBER, MAC)
    if found is not None:
        assert found.prefix is None or 0 <= found.prefix <= 32
        assert found.router is None or isinstance(found.router, IPv4Address)
    for length in range(240, len(message), 7):
        dhcp_message.parse(bytes(message[:length]), NUMBER, MAC)


def test_a_reply_for_another_is_not_for_us() -> None:
    message = dhcp_reply(dhcp_message.request(MessageType.DISCOVER, NUMBER, MAC, 0), 2)
    assert dhcp_message.parse(message, NUMBER, MAC) is not None
    assert dhcp_message.parse(message, NUMBER + 1, MAC) is None
    assert dhcp_message.parse(message, NUMBER, PEER) is None
    assert dhcp_message.parse(b"\1" + message[1:], NUMBER, MAC) is None


def test_questions_of_arp_are_answered_and_nobody_is_learned_of_unasked() -> None:
    host = Peer(lambda datagram: []).host()
    assert host.receive(arp_frame(PEER, SERVER, b"", CLIENT, is_reply=False)) is None
    assert parse(host.outbox.popleft()) == Arp(True, MAC, CLIENT, SERVER)
    assert host.receive(arp_frame(PEER, SERVER, b"", SERVER + 5, is_reply=False)) is None
    assert not host.outbox
    for _ in range(1000):
        host.receive(arp_frame(PEER, SERVER, b"", CLIENT, is_reply=False))
    assert len(host.outbox) <= 16
    with pytest.raises(KeyError):
        host.send(SERVER, PORTS, b"")


def test_a_datagram_for_another_address_is_ignored() -> None:
    host = Peer(lambda datagram: []).host()
    dice = random.Random(1)
    for destination in (SERVER, CLIENT + 1, IPv4Address(dice.getrandbits(32))):
        assert host.receive(udp_frame(PEER, MAC, (SERVER, destination), PORTS, b"")) is None
    assert host.receive(udp_frame(PEER, MAC, (SERVER, CLIENT), PORTS, b"")) is not None


def test_what_others_send_is_shown_without_control_characters() -> None:
    assert shown("a\x1b[2J\r\n\x9b\xff") == "a?[2J????"
    assert shown("x" * 101) == "x" * 100 + "..."
