# SPDX-License-Identifier: GPL-2.0-or-later
"""`--net user`: a network behind this host's sockets, which needs no privileges. A child process has it.

Debian 12 has two programs that do this without a network namespace of their own, and neither does all:

passt             TCP, UDP, ping, DHCP, DHCPv6, port forwarding; fast: it speaks the framing of a stream, hands TCP's data to this
                  host's sockets, also from segments of 64 KiB, and confines itself (seccomp, empty namespaces, the user nobody
                  when it is started by root). It has no TFTP, no boot file in DHCP, and cannot keep the guest from this host
                  and others.
libslirp-helper   has these three, and forwards no ports. One frame per datagram.

So passt it is, unless tftp or restrict is asked for. slirp4netns is for containers: it wants the network namespace of a process.
Both give the guest what QEMU's user network gives: 10.0.2.15, the gateway and host 10.0.2.2, the name server 10.0.2.3.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence

from splitvisor.lan.child import Child, find_program
from splitvisor.lan.datagram import PairWire
from splitvisor.lan.dial import Dialler, MakeLink
from splitvisor.lan.link import FrameLink
from splitvisor.lan.options import Forward, UserNet
from splitvisor.lan.stream import Connector, LinkWire
from splitvisor.lan.whole_frames import WholeFrames
from splitvisor.lan.wire import MIN_FRAME, Receive, Wire, WireError

GUEST, GATEWAY, NAME_SERVER, PREFIX = "10.0.2.15", "10.0.2.2", "10.0.2.3", 24
GATEWAY_MAC = "52:55:0a:00:02:02"
READY_S = 5.0
"""How long the child may take until it answers; less than an attempt to connect."""

_PROBE_MAC = bytes.fromhex("020000000001")
_ARP = struct.Struct(">6s6sHHHBBH6s4s6s4s")
_ARP_TYPE, _ETHERNET, _IPV4, _REQUEST = 0x0806, 1, 0x0800, 1
_NOISE = ("Failed to send", "Don't run as root", "Couldn't get any nameserver")
"""What passt says without a system log, without a resolver, and as root."""


def user_wire(net: UserNet) -> Wire:
    """Return the wire of a user network. Raises WireError when the program that it needs is not installed."""
    if net.tftp is not None or net.restrict:
        program = find_program("libslirp-helper", "libslirp-helper")
        if net.tftp is not None and not net.tftp.is_dir():
            raise WireError(f"user: tftp: {net.tftp} is not a directory", "give one, or make it")
        return PairWire(net.text, lambda descriptor: slirp_command(program, net, descriptor), probe())
    return PasstWire(net, find_program("passt", "passt"))


def passt_command(program: str, net: UserNet, descriptor: int) -> Sequence[str]:
    """Return how passt is started. descriptor: its end of the stream."""
    return (
        program, "--foreground", "--quiet", "--stderr", "--fd", str(descriptor),
        "--address", GUEST, "--netmask", str(PREFIX), "--gateway", GATEWAY, "--mac-addr", GATEWAY_MAC,
        "--dns", NAME_SERVER, "--dns-forward", NAME_SERVER, "--mtu", str(net.mtu),
        *([] if net.ipv6 else ["--ipv4-only"]),
        *([] if _has_route() else ["--interface", "lo"]),
        *(word for forward in net.forwards for word in _forward(forward)),
    )  # fmt: skip


def slirp_command(program: str, net: UserNet, descriptor: int) -> Sequence[str]:
    """Return how libslirp-helper is started. descriptor: its end of the pair of datagram sockets."""
    return (
        program, "--fd", str(descriptor), "--exit-with-parent", "--mtu", str(net.mtu),
        *(["--tftp", str(net.tftp.absolute())] if net.tftp is not None else []),
        *(["--dhcp-bootfile", net.bootfile] if net.bootfile else []),
        *(["--restrict"] if net.restrict else []),
        *([] if net.ipv6 else ["--disable-ipv6"]),
    )  # fmt: skip


def probe() -> bytes:
    """Return a frame that both answer as soon as they work: who has the gateway's address, asked by nobody (RFC 5227, 1.1)."""
    gateway = socket.inet_aton(GATEWAY)
    return _ARP.pack(
        b"\xff" * 6, _PROBE_MAC, _ARP_TYPE, _ETHERNET, _IPV4, 6, 4, _REQUEST, _PROBE_MAC, bytes(4), bytes(6), gateway
    )


class PasstWire(LinkWire):
    """passt at the other end of a stream. It ends with the stream, so with this process too; one that ends is started again."""

    ends_tcp = True

    def __init__(self, net: UserNet, program: str) -> None:
        super().__init__(net.text, self._begin)
        self._net, self._program = net, program
        self._child: Child | None = None
        self._answered = asyncio.Event()

    @property
    def pid(self) -> int:
        """The child; 0: there is none."""
        return self._child.pid if self._child is not None and not self._child.exited.is_set() else 0

    async def close(self) -> None:
        """Disconnect, and end the child."""
        await super().close()
        if self._child is not None:
            await self._child.stop()

    async def _begin(self, receiver: Callable[[FrameLink], Receive], gone: Callable[[FrameLink], None]) -> Connector:
        dialler = Dialler(self.name, self._start, receiver, gone=gone)
        try:
            await dialler.connect()  # What is wrong with passt or with what it is told shows here.
        except BaseException as error:
            await dialler.close()
            if isinstance(error, OSError):
                raise WireError(f"{self.name}: {error}", "see the log") from None
            raise
        dialler.start()
        return dialler

    async def _start(self, make: MakeLink) -> FrameLink:
        if self._child is not None:
            await self._child.stop()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                command = passt_command(self._program, self._net, theirs.fileno())
                self._child = child = Child(command, (theirs.fileno(),), _NOISE, self._answered.set)
            except BaseException:
                ours.close()
                raise
        self._answered.clear()
        ours.setblocking(False)
        whole = WholeFrames(ours.dup())
        try:
            _, link = await asyncio.get_running_loop().create_unix_connection(make, sock=ours)
        except BaseException:
            whole.close()
            raise
        link.send_whole(whole)
        link.send(probe())
        try:
            async with asyncio.timeout(READY_S):
                await self._answered.wait()
        except TimeoutError:
            await child.stop()
            raise WireError(f"user: passt does not answer: {child.last_words}", "see whether it runs by itself") from None
        if child.exited.is_set():
            raise WireError(f"user: passt: {child.last_words}", "correct --net, or see `passt --help`")
        return link

    def _offer(self, frame: bytes) -> bool:
        if not self._answered.is_set():
            self._answered.set()
            if frame[:6] == _PROBE_MAC:
                return True
        return super()._offer(frame)


def _has_route() -> bool:
    """Return whether this host has a default route. Without one, passt has to be told which interface to take."""
    with open("/proc/net/route", encoding="ascii") as file:
        routes = [line.split() for line in file]
    if any(route[1] == "00000000" for route in routes[1:]):
        return True
    try:
        with open("/proc/net/ipv6_route", encoding="ascii") as file:
            routes = [line.split() for line in file]
    except FileNotFoundError:
        return False
    return any(route[0] == "0" * 32 and route[1] == "00" and route[-1] != "lo" for route in routes)


def _forward(forward: Forward) -> Sequence[str]:
    flag = {"tcp": "--tcp-ports", "udp": "--udp-ports"}[forward.protocol]
    return flag, f"{forward.address}/{forward.port}:{forward.guest_port}"


assert len(probe()) > MIN_FRAME
