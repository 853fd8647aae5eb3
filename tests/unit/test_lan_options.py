# SPDX-License-Identifier: GPL-2.0-or-later
"""What `--net` takes, and the one line that it has for each mistake."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitvisor.lan.mac import default_mac, format_mac, parse_mac
from splitvisor.lan.options import (
    DatagramNet,
    Forward,
    StreamNet,
    SwitchNet,
    TapNet,
    UserNet,
    parse_net,
    with_paths_from,
)
from splitvisor.lan.wire import WireError

FORWARD = "give tcp:[ADDRESS]:PORT-:GUESTPORT, such as tcp::2222-:22"
TWO = "give the guest two networks, one with hostfwd"
STREAM = "leave out local and use a stream with TLS, or switch=NAME,peer=ADDR"


def test_a_user_network_forwards_ports_from_loopback() -> None:
    net = parse_net("user,hostfwd=tcp::2222-:22,hostfwd=udp:192.0.2.1:5353-:53,hostfwd=tcp:[::1]:80-:8080,ipv6=off,mtu=9000")
    assert isinstance(net, UserNet)
    assert net.forwards == (
        Forward("tcp", "127.0.0.1", 2222, 22),
        Forward("udp", "192.0.2.1", 5353, 53),
        Forward("tcp", "::1", 80, 8080),
    )
    assert (net.ipv6, net.mtu, net.restrict) == (False, 9000, False)


def test_a_user_network_serves_files() -> None:
    net = parse_net("user,tftp=/srv/a,,b,bootfile=grub.elf,restrict", mac="02:00:00:00:00:01", pcap="x.pcap")
    assert net == UserNet(
        net.text,
        mac=bytes.fromhex("020000000001"),
        pcap=Path("x.pcap"),
        tftp=Path("/srv/a,b"),
        bootfile="grub.elf",
        restrict=True,
    )


def test_other_networks() -> None:
    tap, stream = parse_net("tap=tap0"), parse_net("socket=unix:/run/a,listen")
    assert isinstance(tap, TapNet)
    assert tap.interface == "tap0"
    assert isinstance(stream, StreamNet)
    assert (stream.address.socket_path, stream.listen) == ("/run/a", True)
    datagrams = parse_net("socket=127.0.0.1:7000,local=127.0.0.1:0")
    assert isinstance(datagrams, DatagramNet)
    assert (datagrams.remote.port, datagrams.local.port) == (7000, 0)
    switch = parse_net("switch=lab,peer=b.example:7000,peer=c.example:7000,listen=0.0.0.0:7000")
    assert isinstance(switch, SwitchNet)
    assert [(peer.host, peer.tls) for peer in switch.peers] == [("b.example", True), ("c.example", True)]
    assert switch.listen is not None
    assert switch.listen.tls


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no kind of network; give user, tap=IF, socket=ADDR or switch=NAME"),
        ("usr", "'usr' is no kind of network; did you mean user?"),
        ("user=x", "user: 'x' is too much; give user, then options after commas"),
        ("user,", "user: an option is empty; give a comma between two options, and two for one in a value"),
        ("user,hostfw=tcp::1-:2", "user: 'hostfw' is not an option; did you mean hostfwd?"),
        (
            "user,hostfwd=2222-22",
            "user: hostfwd: '2222-22' forwards no port; " + FORWARD,
        ),
        (
            "user,hostfwd=tcp::0-:22",
            "user: hostfwd: 'tcp::0-:22' has no port of this host or of the guest; " + FORWARD,
        ),
        (
            "user,hostfwd=tcp::1-10.0.2.15:22",
            "user: hostfwd: 'tcp::1-10.0.2.15:22' names the guest's address; leave it out, there is only one",
        ),
        (
            "user,hostfwd=tcp:example:1-:2",
            "user: hostfwd: 'example' is no IP address; give one of this host's, or leave it out for loopback",
        ),
        ("user,bootfile=x", "user: there is a bootfile and nothing to load it from; add tftp=DIR"),
        (
            "user,restrict,hostfwd=tcp::1-:2",
            "user: hostfwd does not go with tftp or restrict, which another program does; " + TWO,
        ),
        ("user,restrict=yes", "user: restrict: 'yes' is neither on nor off; give on or off"),
        ("user,mtu=100", "user: mtu: '100' is no MTU; give 1280 to 65520"),
        ("user,ipv6,ipv6=off", "user: ipv6 is given 2 times; give it once"),
        ("user,pcap=", "user: pcap: '' is no path; give one"),
        ("user,mac=1", "user: mac: '1' is not a MAC address; give six bytes such as 02:00:00:12:34:56"),
        (
            "user,mac=01:00:00:00:00:00",
            "user: mac: 01:00:00:00:00:00 is a multicast address; give one with an even first byte, such as 02:00:00:12:34:56",
        ),
        (
            "user,mac=00:16:3e:00:00:00",
            "user: mac: 00:16:3e:00:00:00 is a vendor's address; give a locally administered one, such as 02:16:3e:00:00:00",
        ),
        ("tap", "tap: there is no network device; give tap=IF, such as tap=tap0"),
        ("socket", "socket: there is no address; give socket=unix:/path or socket=host:port"),
        ("switch=", "switch: there is no name; give switch=NAME, such as switch=lab"),
        ("tap=a/b", "tap: 'a/b' is no name of a network device; give tap=IF as `ip link` shows it"),
        ("tap=t0,listen", "tap: 'listen' is not an option; known: mac, pcap"),
        ("socket=x", "socket: x: not an address; give unix:/path, host:port or tls:host:port"),
        ("socket=127.0.0.1:0", "socket: 127.0.0.1:0: port 0 cannot be connected to; give the port that the other end listens on"),
        (
            "socket=unix:/a,local=127.0.0.1:1",
            "socket: one address is a unix socket's, the other is not; give two of a kind",
        ),
        ("socket=unix:/a,local=unix:/b,listen", "socket: listen is for streams, local for datagrams; leave out one of the two"),
        (
            "socket=192.0.2.1:1,local=127.0.0.1:1",
            "socket: 192.0.2.1:1: datagrams are plaintext, which is for unix sockets and loopback only; " + STREAM,
        ),
        ("switch=a/b", "switch: 'a/b' is no name; give 1 to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-'"),
        ("switch=a,peer=x", "switch: peer: x: not an address; give unix:/path, host:port or tls:host:port"),
    ],
)
def test_a_mistake_has_one_line(text: str, said: str) -> None:
    with pytest.raises(WireError) as raised:
        parse_net(text)
    assert str(raised.value) == said


def test_a_mac_stands_in_one_place() -> None:
    with pytest.raises(WireError, match="mac is given 2 times"):
        parse_net("user,mac=02:00:00:00:00:01", mac="02:00:00:00:00:02")


@given(st.text())
def test_any_text_is_a_network_or_a_mistake(text: str) -> None:
    for kind in ("", "user,", "socket=", "switch=a,", "user,hostfwd=", "tap="):
        with suppress(WireError):
            parse_net(kind + text)


def test_paths_are_those_of_whoever_gives_them() -> None:
    assert with_paths_from("user,tftp=a,,b,pcap=/c,bootfile=d", Path("/x")) == "user,tftp=/x/a,,b,pcap=/c,bootfile=d"
    assert parse_net(with_paths_from("tap=t,pcap=p", Path("/x"))).pcap == Path("/x/p")


@given(st.text(), st.integers(0, 0xFFFFFFFF))
def test_a_default_mac_is_one_of_a_single_device_that_linux_reads_right(vm: str, unit: int) -> None:
    mac = default_mac(vm, unit)
    assert mac[0] & 3 == 2
    assert mac == default_mac(vm, unit)
    assert parse_mac(format_mac(mac)) == mac


def test_default_macs_differ() -> None:
    assert len({default_mac(f"vm{vm}", unit) for vm in range(100) for unit in range(16)}) == 1600
    assert format_mac(default_mac("guest", 0x71000002)) == "26:b4:aa:c2:f7:bb"
