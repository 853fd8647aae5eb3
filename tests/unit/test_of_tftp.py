# SPDX-License-Identifier: GPL-2.0-or-later
"""Files by TFTP: every size, lost packets, old and hostile servers; each that fails is one line, after a time that is bounded."""

from __future__ import annotations

import random

import pytest

from of_client_service.network.exchange import NetworkError
from of_client_service.network.packets import Datagram
from of_client_service.network.tftp import WAITS_S, WANTED_BLOCK, fetch
from of_client_service.volumes.source import VolumeError
from tests.unit.network_peer import CLIENT, SERVER, Answer, Bytes, Peer, TftpServer, reply

LARGEST = 1 << 20


def read(server: TftpServer, name: str = "file", loss: float = 0.0, largest: int = LARGEST) -> tuple[bytes, Peer]:
    peer = Peer(server, loss=loss)
    sink, host = Bytes(), peer.host()
    assert peer.run(host, fetch(host, SERVER, name, sink, largest)) == len(sink.data)
    return sink.data, peer


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1427, 1428, 1429, 2856, 100_000])
@pytest.mark.parametrize("options", [True, False])
def test_a_file_of_any_size_arrives(size: int, options: bool) -> None:
    content = random.Random(size).randbytes(size)
    server = TftpServer({"file": content}, options=options)
    data, peer = read(server)
    assert data == content
    assert server.errors == []
    assert server.requests == [b"\0\1file\0octet\0blksize\0%d\0timeout\0001\0tsize\0000\0" % WANTED_BLOCK]
    assert server.sent == size // (1428 if options else 512) + 1, "no block was sent twice"
    assert peer.clock.now == 1000.0


def test_block_numbers_go_round() -> None:
    content = random.Random(0).randbytes(8 * 66_000)
    data, _ = read(TftpServer({"file": content}, block=8))
    assert data == content


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("options", [True, False])
def test_lost_packets_are_sent_again(seed: int, options: bool) -> None:
    content = random.Random(seed).randbytes(200_000)
    peer = Peer(TftpServer({"file": content}, options=options), loss=0.05, dice=random.Random(seed))
    sink, host = Bytes(), peer.host()
    peer.run(host, fetch(host, SERVER, "file", sink, LARGEST))
    assert sink.data == content
    assert peer.lost > 5


def test_a_server_that_refuses_options_is_asked_without() -> None:
    inner = TftpServer({"file": b"old"}, options=False)

    def server(datagram: Datagram) -> Answer:
        refused = datagram.port == 69 and b"blksize" in datagram.payload
        return [reply(datagram, b"\0\5\0\x08no options\0", port=40001)] if refused else inner(datagram)

    peer = Peer(server)
    sink, host = Bytes(), peer.host()
    peer.run(host, fetch(host, SERVER, "file", sink, LARGEST))
    assert sink.data == b"old"


def test_the_server_is_known_by_its_address_and_port() -> None:
    inner = TftpServer({"file": bytes(5000)})
    strangers: list[bytes] = []

    def server(datagram: Datagram) -> Answer:
        if datagram.port == 50000:
            strangers.append(datagram.payload)
            return []
        right = inner(datagram)
        forged = b"\0\3" + datagram.payload[2:4] + b"forged"
        error = b"\0\5\0\1go away\0"
        other = SERVER + 1
        return [
            *(reply(datagram, each, port=port, source=who) for each in (forged, error) for port, who in ((inner.port, other),)),
            *right,
            reply(datagram, error, port=50000),
        ]

    peer = Peer(server)
    sink, host = Bytes(), peer.host()
    peer.run(host, fetch(host, SERVER, "file", sink, LARGEST))
    assert sink.data == bytes(5000)
    assert set(strangers) == {b"\0\5\0\5unknown transfer\0"}


OACK = b"\0\6"


def always(payload: bytes) -> Answer | object:
    def server(datagram: Datagram) -> Answer:
        return [reply(datagram, payload, port=40000)] if datagram.payload[1] != 5 else []

    return server


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\0\5\0\1nothing here\0", "server 192.0.2.1 has no file some/file"),
        (b"\0\5\0\2keep\x1b[2Jout", "server 192.0.2.1 does not send some/file: keep?[2Jout"),
        (b"\0\5\0\3", "server 192.0.2.1 does not send some/file: error 3"),
        (b"\0\5", "server 192.0.2.1 does not send some/file: error 0"),
        (OACK + b"tsize\0001048577\0", "some/file is too large: 1048577 bytes; 1048576 is the most"),
        (OACK + b"tsize\0" + b"9" * 400 + b"\0", "server 192.0.2.1 answers with options that were not asked for"),
        (OACK + b"blksize\0007\0", "server 192.0.2.1 wants blocks of 7 bytes, not of 1468 at most"),
        (OACK + b"blksize\0002000\0", "server 192.0.2.1 wants blocks of 2000 bytes, not of 1468 at most"),
        (OACK + b"blksize\0-1\0", "server 192.0.2.1 answers with options that were not asked for"),
        (OACK + b"windowsize\00016\0", "server 192.0.2.1 answers with options that were not asked for"),
        (OACK + b"blksize\000512", "server 192.0.2.1 answers with options that were not asked for"),
        (b"\0\3\0\1" + bytes(513), "server 192.0.2.1 sends blocks of 513 bytes, not of 512 at most"),
        (b"", "server 192.0.2.1 does not answer TFTP"),
        (b"\0\3\0", "server 192.0.2.1 does not answer TFTP"),
        (b"\0\x09\0\0", "server 192.0.2.1 does not answer TFTP"),
        (b"\0\3\0\2" + bytes(512), "server 192.0.2.1 is silent for 15 s, after 0 bytes of some/file"),
        (b"\0\3\0\1" + bytes(512), "server 192.0.2.1 is silent for 15 s, after 512 bytes of some/file"),
        (OACK + b"tsize\000100\0", "server 192.0.2.1 is silent for 15 s, after 0 of 100 bytes of some/file"),
    ],
)
def test_a_server_that_does_not_send_the_file_is_one_line(payload: bytes, reason: str) -> None:
    peer = Peer(always(payload))  # type: ignore[arg-type]
    host = peer.host()
    with pytest.raises(NetworkError) as raised:
        peer.run(host, fetch(host, SERVER, "some/file", Bytes(), LARGEST))
    assert str(raised.value) == reason
    assert peer.clock.now <= 1000.0 + sum(WAITS_S)


def test_a_server_that_falls_silent_is_given_up_and_told_so() -> None:
    server = TftpServer({"file": bytes(100_000)}, silent_after=20)
    peer = Peer(server)
    host = peer.host()
    with pytest.raises(NetworkError, match="is silent for 15 s, after 28560 of 100000 bytes of file"):
        peer.run(host, fetch(host, SERVER, "file", Bytes(), LARGEST))
    assert peer.clock.now == 1000.0 + sum(WAITS_S)
    assert server.errors == [b"\0\5\0\0given up\0"]


def test_a_server_without_end_is_stopped_at_the_limit() -> None:
    def server(datagram: Datagram) -> Answer:
        block = 1 if datagram.port == 69 else int.from_bytes(datagram.payload[2:4], "big") + 1
        return [reply(datagram, b"\0\3" + (block & 0xFFFF).to_bytes(2, "big") + bytes(512), port=40000)]

    peer = Peer(server)
    sink, host = Bytes(), peer.host()
    with pytest.raises(NetworkError, match="file is too large: 10240 bytes; 10000 is the most"):
        peer.run(host, fetch(host, SERVER, "file", sink, 10_000))
    assert len(sink.data) <= 10_000


@pytest.mark.parametrize(("said", "sent"), [(100, 50), (100, 200)])
def test_a_file_of_another_size_than_was_said_is_refused(said: int, sent: int) -> None:
    def server(datagram: Datagram) -> Answer:
        if datagram.payload[1] == 5:
            return []
        payload = OACK + b"tsize\0%d\0" % said if datagram.port == 69 else b"\0\3\0\1" + bytes(sent)
        return [reply(datagram, payload, port=40000)]

    peer = Peer(server)
    host = peer.host()
    with pytest.raises(NetworkError, match=f"file has {sent} bytes; the server said {said}"):
        peer.run(host, fetch(host, SERVER, "file", Bytes(), LARGEST))


def test_blocks_that_come_again_and_again_keep_nobody_for_ever() -> None:
    peer = Peer(lambda datagram: [])
    host = peer.host()

    def flood(datagram: Datagram) -> Answer:
        if datagram.payload[1] == 5:
            return []
        packet = reply(datagram, b"\0\3\0\1" + bytes(512), port=40000)
        if not peer.later:
            peer.later.extend((1000 + tick / 10, packet) for tick in range(1000))
        return [packet] * 3

    peer.server = flood
    with pytest.raises(NetworkError, match="is silent for 15 s, after 512 bytes of file"):
        peer.run(host, fetch(host, SERVER, "file", Bytes(), LARGEST))
    assert peer.clock.now < 1000.0 + sum(WAITS_S) + 1


def test_who_has_no_use_for_a_file_ends_the_transfer() -> None:
    class Picky(Bytes):
        def write(self, data: bytes) -> None:
            raise VolumeError("is no program")

    server = TftpServer({"file": bytes(5000)})
    peer = Peer(server)
    host = peer.host()
    with pytest.raises(VolumeError, match="is no program"):
        peer.run(host, fetch(host, SERVER, "file", Picky(), LARGEST))
    assert server.errors == [b"\0\5\0\0given up\0"]


def test_a_server_without_a_hardware_address_is_one_line() -> None:
    peer = Peer(lambda datagram: [], answers_arp=False)
    host = peer.host()
    with pytest.raises(NetworkError, match=r"server 192\.0\.2\.1 does not answer ARP"):
        peer.run(host, fetch(host, SERVER, "file", Bytes(), LARGEST))
    host.configure(CLIENT, 30, CLIENT + 1)
    with pytest.raises(NetworkError, match=r"router 192\.0\.2\.10 does not answer ARP"):
        peer.run(host, fetch(host, SERVER, "file", Bytes(), LARGEST))


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "a" * 401])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    peer = Peer(lambda datagram: [])
    host = peer.host()
    with pytest.raises(NetworkError, match="cannot be the name of a file"):
        peer.run(host, fetch(host, SERVER, name, Bytes(), LARGEST))
    assert peer.heard == []
