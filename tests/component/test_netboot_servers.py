# SPDX-License-Identifier: GPL-2.0-or-later
"""The firmware's client of DHCP and TFTP with servers of others: Debian's dnsmasq on a tap device, libslirp's helper."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from of_client_service.network.conversation import Conversation
from of_client_service.network.dhcp import obtain
from of_client_service.network.dhcp_message import Option, Reply
from of_client_service.network.exchange import Exchange, NetworkError
from of_client_service.network.host import Host
from of_client_service.network.port import FramePort
from of_client_service.network.tftp import fetch
from splitvisor.lan.options import parse_net
from splitvisor.lan.switch import Switches
from splitvisor.lan.wire import Wire
from splitvisor.lan.wires import make_wire
from tests.fake_vm import FakeVm
from tests.unit.network_peer import Bytes

MAC = bytes.fromhex("020000000078")
LARGEST = 64 << 20
WAIT_S = 60.0
SIZE = 700_000
LOSSY_SIZE = 60_000
NAME = "boot/grub/core.elf"


class WirePort(FramePort):
    """A wire without a device; it loses frames."""

    def __init__(self, wire: Wire, loss: float) -> None:
        super().__init__(FakeVm(), 0)
        self._wire, self._loss, self._dice = wire, loss, random.Random(5)
        self._arrived: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self.lost = 0

    def _is_lost(self) -> bool:
        is_lost = self._dice.random() < self._loss
        self.lost += is_lost
        return is_lost

    def receive(self, frame: bytes) -> bool:
        if not self._is_lost():
            self._arrived.append(frame)
            self._changed.set()
        return True

    async def exchange(self, frame: bytes = b"", seconds: float = 0.0) -> bytes:
        if frame and not self._is_lost():
            self._wire.send(frame)
        if not self._arrived:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(seconds, 0.001))
            except TimeoutError:
                return b""
        return self._arrived.popleft()


async def read(net: str, *, file: str = "", loss: float = 0.0) -> tuple[Reply, bytes, WirePort]:
    """Take a lease and read a file."""
    wire = make_wire(parse_net(net), "test", Switches())
    port, host, sink = WirePort(wire, loss), Host(MAC, time.monotonic), Bytes()
    await wire.open(port.receive)

    def everything() -> Exchange[Reply]:
        reply = yield from obtain(host, needs_file=not file)
        server = reply.file_server
        assert server is not None
        yield from fetch(host, server, file or reply.file, sink, LARGEST)
        return reply

    conversation = Conversation(host, port, everything())
    try:
        async with asyncio.timeout(WAIT_S):
            while not await conversation.round(time.monotonic() + 1.0):
                pass
    finally:
        await wire.close()
    assert sink.size in (None, len(sink.data))
    return conversation.result, sink.data, port


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def serve(directory: Path, size: int) -> None:
    (directory / NAME).parent.mkdir(parents=True)
    (directory / NAME).write_bytes(content(size))


@pytest.mark.parametrize("size", [0, 1427, 1428, SIZE])
def test_libslirp(tmp_path: Path, size: int) -> None:
    if shutil.which("libslirp-helper") is None:
        pytest.skip("needs libslirp-helper")
    serve(tmp_path, size)
    net = f"user,tftp={tmp_path},bootfile={NAME}"
    reply, data, _ = asyncio.run(read(net))
    assert (str(reply.address), str(reply.file_server), reply.file) == ("10.0.2.15", "10.0.2.2", NAME)
    assert data == content(size)
    with pytest.raises(NetworkError, match=r"server 10\.0\.2\.2 has no file no/such"):
        asyncio.run(read(net, file="no/such"))


def with_dnsmasq() -> None:
    """In a network of its own, with tap0 at 192.0.2.1: what dnsmasq gives is the file, also when frames are lost."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        serve(root, SIZE)
        (root / "small").write_bytes(content(LOSSY_SIZE))
        command = [
            shutil.which("dnsmasq") or "", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=tap0",
            "--bind-interfaces", "--dhcp-range=192.0.2.10,192.0.2.99", "--dhcp-authoritative", "--user=root", "--log-facility=-",
            "--enable-tftp", f"--tftp-root={root}", f"--dhcp-leasefile={root}/leases", f"--pid-file={root}/pid",
            "--dhcp-match=set:of,option:client-arch,12", f"--dhcp-boot=tag:of,{NAME}",
            "--dhcp-option=option:domain-name,lan.test",
        ]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
            try:
                reply, data, _ = asyncio.run(read("tap=tap0"))
                assert data == content(SIZE)
                assert str(reply.file_server) == str(reply.server) == "192.0.2.1"
                assert (reply.file, reply.prefix) == (NAME, 24)
                assert reply.options[Option.DOMAIN] == b"lan.test"
                reply, data, port = asyncio.run(read("tap=tap0", file="small", loss=0.05))
                assert data == content(LOSSY_SIZE)
                assert port.lost > 3
                with pytest.raises(NetworkError, match=r"server 192\.0\.2\.1 has no file no/such"):
                    asyncio.run(read("tap=tap0", file="no/such"))
            finally:
                server.terminate()


def test_dnsmasq(in_network: Callable[[str, str], None]) -> None:
    if shutil.which("dnsmasq") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs dnsmasq and /dev/net/tun")
    interface = "ip tuntap add dev tap0 mode tap; ip address add 192.0.2.1/24 dev tap0; ip link set tap0 up"
    in_network(interface, "from tests.component.test_netboot_servers import *; with_dnsmasq()")
