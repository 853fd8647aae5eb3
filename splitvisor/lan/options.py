# SPDX-License-Identifier: GPL-2.0-or-later
"""What `--net` says, as a value: KIND[=VALUE][,OPTION[=VALUE]]..., a comma in a value doubled.

user                  a network of its own behind this host's sockets
tap=IF                a tap device of this host
socket=ADDR           one stream, or datagrams with local=ADDR, in QEMU's framing
switch=NAME           all devices of this process that name the same switch
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from splitvisor.errors.similar import did_you_mean
from splitvisor.lan.mac import parse_mac
from splitvisor.lan.wire import WireError
from splitvisor.net.addresses import Address, AddressError, is_loopback, parse_address, parse_host_port

LOOPBACK = "127.0.0.1"
MTU_MIN, MTU_DEFAULT, MTU_MAX = 1280, 1500, 65520
"""Bytes: what IPv6 needs (RFC 8200, 5); Ethernet's; passt's limit."""
MAX_FORWARDS = 64
MAX_PEERS = 16
_INTERFACE = re.compile(r"[^/\s:]{1,15}")
"""As Linux takes names of network devices (dev_valid_name)."""
_SWITCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Net:
    """A network of a device."""

    text: str
    """As it was given."""
    mac: bytes | None = None
    """Of the device; None: made from the VM's name and the device's unit address."""
    pcap: Path | None = None
    """The file that gets a copy of every frame."""


@dataclass(frozen=True)
class Forward:
    """A port of this host that leads to one of the guest."""

    protocol: str
    """tcp or udp."""
    address: str
    """Where this host listens."""
    port: int
    guest_port: int


@dataclass(frozen=True)
class UserNet(Net):
    """Behind this host's sockets: what the guest sends, a child process sends for it."""

    forwards: tuple[Forward, ...] = ()
    tftp: Path | None = None
    """A directory whose files the guest may read by TFTP."""
    bootfile: str = ""
    """What DHCP names as the file to boot."""
    restrict: bool = False
    """The guest reaches only the network's own services: DHCP, TFTP."""
    ipv6: bool = True
    mtu: int = MTU_DEFAULT
    """What DHCP says, in bytes."""


@dataclass(frozen=True)
class TapNet(Net):
    """A tap device that is there."""

    interface: str = ""


@dataclass(frozen=True)
class StreamNet(Net):
    """One stream socket."""

    address: Address = field(default_factory=lambda: Address("", "", False))
    listen: bool = False


@dataclass(frozen=True)
class DatagramNet(Net):
    """Datagrams between two sockets, a frame in each."""

    remote: Address = field(default_factory=lambda: Address("", "", False))
    local: Address = field(default_factory=lambda: Address("", "", False))


@dataclass(frozen=True)
class SwitchNet(Net):
    """A port of a switch in the process that has the device."""

    switch: str = ""
    peers: tuple[Address, ...] = ()
    """Switches of other processes or hosts, to connect to."""
    listen: Address | None = None
    """Where other switches connect to this one."""


def parse_net(text: str, mac: str = "", pcap: str = "") -> Net:
    """Return what `--net` says, or the option net of a device with those of mac and pcap beside it. Raises WireError."""
    first, *rest = _split(text)
    kind, _, value = first.partition("=")
    parser = _KINDS.get(kind)
    if parser is None:
        remedy = did_you_mean(kind, _KINDS) or "give user, tap=IF, socket=ADDR or switch=NAME"
        raise WireError(f"{kind!r} is no kind of network", remedy)
    given = [*rest, *([f"mac={mac}"] if mac else []), *([f"pcap={pcap}"] if pcap else [])]
    return parser(text, value, _Options(kind, given))


def with_paths_from(text: str, base: Path) -> str:
    """Return the same network with its relative paths below a directory, for a process that works elsewhere."""
    parts = []
    for part in _split(text):
        key, equals, value = part.partition("=")
        if key in _PATHS and value:
            value = str((base / Path(value).expanduser()).absolute())
        parts.append(f"{key}{equals}{value}".replace(",", ",,"))
    return ",".join(parts)


def _split(text: str) -> list[str]:
    return [part.replace("\0", ",") for part in text.replace("\0", "").replace(",,", "\0").split(",")]


_PATHS = ("pcap", "tftp")
_T = TypeVar("_T")


class _Options:
    """The options of a network, each taken once; what is left in the end is none."""

    def __init__(self, kind: str, given: Sequence[str]) -> None:
        self.kind = kind
        self._given: dict[str, list[str]] = {}
        self._asked: list[str] = []
        for part in given:
            key, equals, value = part.partition("=")
            if not key:
                raise WireError(f"{kind}: an option is empty", "give a comma between two options, and two for one in a value")
            self._given.setdefault(key, []).append(value if equals else "on" if key in _SWITCHES else "")

    def one(self, key: str, convert: Callable[[str], _T], otherwise: _T) -> _T:
        """Return an option's value, which may be given once."""
        values = self.all(key, convert, 1)
        return values[0] if values else otherwise

    def all(self, key: str, convert: Callable[[str], _T], most: int) -> tuple[_T, ...]:
        """Return the values of an option that may be given several times."""
        self._asked.append(key)
        values = self._given.pop(key, [])
        if len(values) > most:
            remedy = f"give it at most {most} times" if most > 1 else "give it once"
            raise WireError(f"{self.kind}: {key} is given {len(values)} times", remedy)
        found = []
        for value in values:
            try:
                found.append(convert(value))
            except AddressError as error:
                raise WireError(f"{self.kind}: {key}: {error.problem.what}", error.problem.remedy) from None
            except WireError as error:
                raise WireError(f"{self.kind}: {key}: {error.problem.what}", error.problem.remedy) from None
        return tuple(found)

    def common(self) -> Mapping[str, Any]:
        """Return what every network may have."""
        return {"mac": self.one("mac", parse_mac, None), "pcap": self.one("pcap", _path, None)}

    def end(self) -> None:
        """Raise WireError when there is an option that nobody has asked for."""
        for key in self._given:
            remedy = did_you_mean(key, self._asked) or f"known: {', '.join(sorted(self._asked))}"
            raise WireError(f"{self.kind}: {key!r} is not an option", remedy)


_SWITCHES = ("restrict", "ipv6", "listen")
"""Options that stand for on without a value."""


def _user(text: str, value: str, options: _Options) -> UserNet:
    if value:
        raise WireError(f"user: {value!r} is too much", "give user, then options after commas")
    net = UserNet(
        text,
        forwards=options.all("hostfwd", _forward, MAX_FORWARDS),
        tftp=options.one("tftp", _path, None),
        bootfile=options.one("bootfile", _bootfile, ""),
        restrict=options.one("restrict", _on_off, False),
        ipv6=options.one("ipv6", _on_off, True),
        mtu=options.one("mtu", _mtu, MTU_DEFAULT),
        **options.common(),
    )
    options.end()
    if net.bootfile and net.tftp is None:
        raise WireError("user: there is a bootfile and nothing to load it from", "add tftp=DIR")
    if net.forwards and (net.tftp is not None or net.restrict):
        what = "user: hostfwd does not go with tftp or restrict, which another program does"
        raise WireError(what, "give the guest two networks, one with hostfwd")
    return net


def _tap(text: str, value: str, options: _Options) -> TapNet:
    if not value:
        raise WireError("tap: there is no network device", "give tap=IF, such as tap=tap0")
    if not _INTERFACE.fullmatch(value) or value in (".", ".."):
        raise WireError(f"tap: {value!r} is no name of a network device", "give tap=IF as `ip link` shows it")
    net = TapNet(text, interface=value, **options.common())
    options.end()
    return net


def _socket(text: str, value: str, options: _Options) -> StreamNet | DatagramNet:
    if not value:
        raise WireError("socket: there is no address", "give socket=unix:/path or socket=host:port")
    try:
        address = parse_address(value)
    except AddressError as error:
        raise WireError(f"socket: {error.problem.what}", error.problem.remedy) from None
    local, listen = options.one("local", parse_address, None), options.one("listen", _on_off, False)
    common = options.common()
    options.end()
    if local is None:
        _check_dialled("socket", address, listen)
        return StreamNet(text, address=address, listen=listen, **common)
    if listen:
        raise WireError("socket: listen is for streams, local for datagrams", "leave out one of the two")
    if (address.socket_path is None) != (local.socket_path is None):
        raise WireError("socket: one address is a unix socket's, the other is not", "give two of a kind")
    for each in (address, local):
        if each.tls:
            what = f"socket: {each.text}: datagrams are plaintext, which is for unix sockets and loopback only"
            raise WireError(what, "leave out local and use a stream with TLS, or switch=NAME,peer=ADDR")
    _check_dialled("socket", address)
    return DatagramNet(text, remote=address, local=local, **common)


def _switch(text: str, value: str, options: _Options) -> SwitchNet:
    if not value:
        raise WireError("switch: there is no name", "give switch=NAME, such as switch=lab")
    if not _SWITCH.fullmatch(value):
        raise WireError(f"switch: {value!r} is no name", "give 1 to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-'")
    net = SwitchNet(
        text,
        switch=value,
        peers=options.all("peer", parse_address, MAX_PEERS),
        listen=options.one("listen", parse_address, None),
        **options.common(),
    )
    options.end()
    for peer in net.peers:
        _check_dialled("switch", peer)
    return net


_KINDS: Mapping[str, Callable[[str, str, _Options], Net]] = {
    "user": _user,
    "tap": _tap,
    "socket": _socket,
    "switch": _switch,
}


def _check_dialled(kind: str, address: Address, listen: bool = False) -> None:
    """Raise WireError for a port that nobody can listen on."""
    if address.socket_path is None and not address.port and not listen:
        raise WireError(f"{kind}: {address.text}: port 0 cannot be connected to", "give the port that the other end listens on")


def _path(value: str) -> Path:
    if not value or "\0" in value:
        raise WireError(f"{value!r} is no path", "give one")
    return Path(value)


def _bootfile(value: str) -> str:
    if not 1 <= len(value.encode(errors="surrogateescape")) <= 127 or not value.isprintable():
        raise WireError(f"{value!r} is no name of a file", "give 1 to 127 bytes, as BOOTP has room for")
    return value


def _on_off(value: str) -> bool:
    if value not in ("on", "off"):
        raise WireError(f"{value!r} is neither on nor off", "give on or off")
    return value == "on"


def _mtu(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or not MTU_MIN <= int(value[:9]) <= MTU_MAX:
        raise WireError(f"{value!r} is no MTU", f"give {MTU_MIN} to {MTU_MAX}")
    return int(value)


def _forward(value: str) -> Forward:
    remedy = "give tcp:[ADDRESS]:PORT-:GUESTPORT, such as tcp::2222-:22"
    protocol, colon, places = value.partition(":")
    here, dash, there = places.rpartition("-")
    if not colon or not dash or protocol not in ("tcp", "udp"):
        raise WireError(f"{value!r} forwards no port", remedy)
    host, guest = parse_host_port(here), parse_host_port(there)
    if host is None or guest is None or not host[1] or not guest[1]:
        raise WireError(f"{value!r} has no port of this host or of the guest", remedy)
    if guest[0]:
        raise WireError(f"{value!r} names the guest's address", "leave it out, there is only one")
    address = host[0] or LOOPBACK
    try:
        ipaddress.ip_address(address)
    except ValueError:
        if not is_loopback(address):
            raise WireError(f"{address!r} is no IP address", "give one of this host's, or leave it out for loopback") from None
        address = LOOPBACK
    return Forward(protocol, address, host[1], guest[1])
