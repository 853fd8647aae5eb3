# SPDX-License-Identifier: GPL-2.0-or-later
"""What is at the ends of wires: QEMU's own stream and dgram netdevs, bridged by its hub, Linux's tap devices, another host."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from splitvisor.access.identity import Role
from splitvisor.lan.options import parse_net
from splitvisor.lan.switch import Switches
from splitvisor.lan.wire import MAX_FRAME, Wire, WireError
from splitvisor.lan.wires import make_wire
from tests.certificates import Authority
from tests.frames import BROADCAST, WAIT_S, Host, ethernet

A, B = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")
SIZES = (14, 60, 61, 1514, 9014, 65535, MAX_FRAME - 1)
QEMU = "qemu-system-ppc64"


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 3 * WAIT_S))


def make(text: str) -> Wire:
    return make_wire(parse_net(text), "test", Switches())


@asynccontextmanager
async def qemu(*netdevs: str) -> AsyncIterator[None]:
    """A QEMU without a machine whose hub passes frames between two netdevs."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"needs {QEMU}")
    words = [QEMU, "-M", "none", "-nodefaults", "-display", "none"]
    for number, netdev in enumerate(netdevs):
        words += ["-netdev", f"{netdev},id=n{number}", "-netdev", f"hubport,id=h{number},hubid=0,netdev=n{number}"]
    process = await asyncio.create_subprocess_exec(*words)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def exchange(one: Host, other: Host) -> None:
    """Frames of all sizes arrive as they were, both ways."""
    for host, peer in ((one, other), (other, one)):
        # QEMU and its sockets come up when they do: frames before that are lost, as they should be.
        hello = ethernet(BROADCAST, host.mac, b"hello" + random.randbytes(9))
        host.wire.send(hello)
        await peer.until(hello.__eq__, lambda host=host, hello=hello: host.wire.send(hello))  # type: ignore[misc]
    for host, peer in ((one, other), (other, one)):
        for size in SIZES:
            frame = ethernet(peer.mac, host.mac, random.randbytes(size - 14))
            host.wire.send(frame)
            assert await peer.until(lambda each: each[12:19] != b"\x88\xb5hello") == frame


@pytest.mark.parametrize("qemu_listens", [False, True])
def test_frames_pass_qemus_stream_and_datagrams(short_path: Path, qemu_listens: bool) -> None:
    async def scenario() -> None:
        stream, near, far = short_path / "stream", short_path / "near", short_path / "far"
        one = make(f"socket=unix:{stream}{'' if qemu_listens else ',listen'}")
        other = make(f"socket=unix:{far},local=unix:{near}")
        hosts = (Host(A), Host(B))
        try:
            if not qemu_listens:
                await hosts[0].open(one)
            await hosts[1].open(other)
            async with qemu(
                f"stream,server={'on' if qemu_listens else 'off'},addr.type=unix,addr.path={stream}",
                f"dgram,local.type=unix,local.path={far},remote.type=unix,remote.path={near}",
            ):
                if qemu_listens:
                    await hosts[0].open(one)
                await exchange(*hosts)
        finally:
            await one.close()
            await other.close()
        assert not near.exists()
        assert qemu_listens or not stream.exists()

    run(scenario)


def test_frames_pass_qemus_sockets_of_tcp_and_udp() -> None:
    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        with (
            listener,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other_probe,
        ):
            probe.bind(("127.0.0.1", 0))
            other_probe.bind(("127.0.0.1", 0))
            tcp, near, far = (each.getsockname()[1] for each in (listener, probe, other_probe))
        one = make(f"socket=127.0.0.1:{tcp},listen")
        other = make(f"socket=127.0.0.1:{far},local=127.0.0.1:{near}")
        hosts = (await Host(A).open(one), await Host(B).open(other))
        try:
            async with qemu(
                f"stream,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port={tcp}",
                f"dgram,local.type=inet,local.host=127.0.0.1,local.port={far},"
                f"remote.type=inet,remote.host=127.0.0.1,remote.port={near}",
            ):
                # A UDP datagram has at most 65507 bytes; more is dropped and counted.
                dropped = other.counters.sent_dropped
                other.send(bytes(MAX_FRAME))
                assert other.counters.sent_dropped == dropped + 1
                hello = ethernet(BROADCAST, A, random.randbytes(30000))
                one.send(hello)
                assert await hosts[1].until(hello.__eq__, lambda: one.send(hello)) == hello
                answer = ethernet(A, B, random.randbytes(60000))
                other.send(answer)
                assert await hosts[0].until(answer.__eq__) == answer
        finally:
            await one.close()
            await other.close()

    run(scenario)


def test_qemu_may_come_again(short_path: Path) -> None:
    async def scenario() -> None:
        stream, near, far = short_path / "stream", short_path / "near", short_path / "far"
        hosts = (
            await Host(A).open(make(f"socket=unix:{stream}")),
            await Host(B).open(make(f"socket=unix:{far},local=unix:{near}")),
        )
        try:
            for _ in range(2):
                async with qemu(
                    f"stream,server=on,addr.type=unix,addr.path={stream}",
                    f"dgram,local.type=unix,local.path={far},remote.type=unix,remote.path={near}",
                ):
                    await exchange(*hosts)
        finally:
            for host in hosts:
                await host.wire.close()

    run(scenario)


async def pings_from_linux() -> None:
    """Linux's own ping through its tap device, answered by a Host that has a thousand frames waiting meanwhile."""
    host = Host(A, "192.0.2.2")
    host.has_room = False
    await host.open(make("tap=sv0"))
    with pytest.raises(WireError, match="tap: sv0: another process has it; end that, or give a device of its own"):
        await make("tap=sv0").open(lambda _frame: True)
    ping = await asyncio.create_subprocess_exec("ping", "-c", "3", "-i", "0.2", "-s", "3000", "-W", "20", "192.0.2.2")
    try:
        host.has_room = True
        host.wire.resume()
        while ping.returncode is None:
            frame = await host.until(lambda _frame: True)
            if frame[12:14] == b"\x08\x06" and frame[38:42] == bytes((192, 0, 2, 2)):
                reply = frame[14:20] + b"\0\2" + A + frame[38:42] + frame[22:32]
                host.wire.send(ethernet(frame[6:12], A, reply, b"\x08\x06"))
            elif frame[12:14] == b"\x08\x00" and frame[23] == 1:
                assert len(frame) == 3042
                total = int.from_bytes(frame[36:38], "big") + 0x0800
                swapped = frame[14:26] + frame[30:34] + frame[26:30]
                icmp = b"\0\0" + ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big") + frame[38:]
                host.wire.send(ethernet(frame[6:12], A, swapped + icmp, b"\x08\x00"))
                if frame[40:42] == b"\0\3":
                    break
        assert await ping.wait() == 0
        subprocess.run(["ip", "link", "set", "sv0", "down"], check=True)
        dropped = host.wire.counters.sent_dropped
        host.wire.send(bytes(60))
        assert host.wire.counters.sent_dropped == dropped + 1
    finally:
        await host.wire.close()


def test_linux_pings_through_a_tap(in_network: Callable[[str, str], None]) -> None:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK) or shutil.which("ping") is None:
        pytest.skip("needs /dev/net/tun and ping")
    in_network(
        "ip tuntap add dev sv0 mode tap; ip address add 192.0.2.1/24 dev sv0; ip link set sv0 mtu 9000 up",
        "from tests.component.test_lan_peers import *; run(pings_from_linux)",
    )


async def guest_of_another_host() -> None:
    """On the host that connects: answer what comes for this guest, until there is no more."""
    host = await Host(B).open(make("switch=lab,peer=192.0.2.1:7000"))
    hello = ethernet(BROADCAST, B, b"hello")
    while True:
        frame = await host.until(lambda _frame: True, lambda: host.wire.send(hello))
        host.wire.send(ethernet(A, B, frame[14:][::-1]))


async def guest_of_this_host() -> None:
    """On the host that listens: the other is a process in a network namespace of its own, at the other end of a cable."""
    script = 'read -r _; ip address add 192.0.2.2/24 dev sv1; ip link set sv1 up; exec $0 -c "$1"'
    python = "from tests.component.test_lan_peers import *; run(guest_of_another_host)"
    other = await asyncio.create_subprocess_exec(
        "unshare", "--net", "sh", "-ec", script, sys.executable, python, stdin=asyncio.subprocess.PIPE
    )
    try:
        # The namespace is the child's own once unshare has become the shell.
        async with asyncio.timeout(WAIT_S):
            while Path(f"/proc/{other.pid}/comm").read_text() != "sh\n":
                await asyncio.sleep(0.01)
        for words in (
            f"link add sv0 type veth peer name sv1 netns {other.pid}",
            "address add 192.0.2.1/24 dev sv0",
            "link set sv0 up",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        host = await Host(A).open(make("switch=lab,listen=192.0.2.1:7000"))
        assert other.stdin is not None
        other.stdin.write(b"\n")
        await host.until(lambda frame: frame[14:] == b"hello")
        for size in SIZES[1:]:
            data = random.randbytes(size - 14)
            host.wire.send(ethernet(B, A, data))
            assert await host.until(lambda frame: frame[14:] != b"hello") == ethernet(A, B, data[::-1])
        await host.wire.close()
    finally:
        other.kill()
        await other.wait()


def test_guests_of_two_hosts_are_on_one_switch(
    in_network: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    monkeypatch.setenv("SPLITVISOR_TLS", str(authority.issue(Role.BACKEND, hosts=["192.0.2.1", "192.0.2.2"])))
    in_network("true", "from tests.component.test_lan_peers import *; run(guest_of_this_host)")


@pytest.mark.parametrize(
    ("interface", "said"),
    [
        ("sv-none", r"^tap: there is no network device sv-none; make it: ip tuntap add dev sv-none mode tap user USER$"),
        ("lo", r"^tap: lo: it is no tap device, or one with several queues or a header; ip tuntap add dev lo mode tap$"),
    ],
)
def test_what_is_no_tap_is_said_in_one_line(interface: str, said: str) -> None:
    async def scenario() -> None:
        with pytest.raises(WireError, match=said):
            await make(f"tap={interface}").open(lambda _frame: True)

    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/net/tun")
    run(scenario)
