# SPDX-License-Identifier: GPL-2.0-or-later
"""User networks with the real passt and libslirp-helper: DHCP, ARP, ping, TCP both ways, UDP, TFTP; and their ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from splitvisor.lan.datagram import PairWire
from splitvisor.lan.options import parse_net
from splitvisor.lan.switch import Switches
from splitvisor.lan.user import PasstWire
from splitvisor.lan.wire import WireError
from splitvisor.lan.wires import make_wire
from tests.frames import WAIT_S, Host, TcpConnection
from vio_service.devices.llan.device import MAX_WHOLE

ROOT = Path(__file__).resolve().parents[2]
MAC = bytes.fromhex("020000000077")
GATEWAY = "10.0.2.2"


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 3 * WAIT_S))


@pytest.fixture(autouse=True)
def _programs() -> None:
    for program in ("passt", "libslirp-helper"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


@asynccontextmanager
async def user(options: str = "") -> AsyncIterator[Host]:
    wire = make_wire(parse_net(f"user{options}"), "test", Switches())
    host = Host(MAC)
    try:
        await host.open(wire)
        yield host
    finally:
        await wire.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what came, in capitals."""
    writer.write((await reader.readuntil(b"\n")).upper())
    writer.close()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("options", ["", ",restrict"])
def test_a_lease_has_the_addresses_that_qemu_gives(options: str) -> None:
    async def scenario() -> None:
        async with user(options + ",mtu=1400") as host:
            lease = await host.dhcp()
            assert host.address == "10.0.2.15"
            assert lease[1] == bytes((255, 255, 255, 0))
            if not options:
                assert lease[3] == socket.inet_aton(GATEWAY)
                assert lease[6] == socket.inet_aton("10.0.2.3")
                assert int.from_bytes(lease[26], "big") == 1400
            assert await host.arp(GATEWAY) == bytes.fromhex("52550a000202")
            counters = host.wire.counters
            assert (counters.sent, counters.sent_dropped) == (3, 0)
            assert counters.received >= 3
            assert counters.received_bytes > counters.received * 14

    run(scenario)


@pytest.mark.parametrize("options", ["", ",tftp=/"])
def test_the_guest_reaches_this_host_and_is_answered(options: str) -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, user(options) as host:
            await host.dhcp()
            gateway = await host.arp(GATEWAY)
            connection = await TcpConnection(host, gateway, GATEWAY, (3000, port)).connect()
            connection.send(b"hello\n")
            assert await connection.receive_all() == b"HELLO\n"

    run(scenario)


def test_passt_takes_segments_of_any_length_and_looks_at_no_checksum() -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, user() as host:
            assert host.wire.ends_tcp
            await host.dhcp()
            gateway = await host.arp(GATEWAY)
            connection = TcpConnection(host, gateway, GATEWAY, (3000, port), checksums=False)
            await connection.connect()
            line = b"a" * (MAX_WHOLE - 14 - 20 - 20 - 1) + b"\n"
            connection.send(line)
            sent = host.wire.counters.sent_bytes
            assert await connection.receive_all() == line.upper()
            assert sent > MAX_WHOLE
        async with user(",restrict") as host:
            assert not host.wire.ends_tcp, "libslirp drops what has a wrong checksum"

    run(scenario)


async def pings() -> None:
    async with user() as host:
        await host.dhcp()
        gateway = await host.arp(GATEWAY)
        assert await host.ping(gateway, "192.0.2.7", b"0123456789") == b"0123456789"


def test_the_guest_pings(in_network: Callable[[str, str], None]) -> None:
    # A program without privileges pings only where the system lets its group.
    allowed = "sysctl -q net.ipv4.ping_group_range='0 2147483647'; ip address add 192.0.2.7/32 dev lo"
    in_network(allowed, "from tests.component.test_lan_user import *; run(pings)")


class NameServer(asyncio.DatagramProtocol):
    """Knows an address for every name."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("192.0.2.53")
        self.transport.sendto(data[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + data[12:] + answer, addr)


async def asks_for_a_name() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 53))
    async with user() as host:
        lease = await host.dhcp()
        server = socket.inet_ntoa(lease[6])
        query = struct.pack(">HHHHHH", 77, 0x0100, 1, 0, 0, 0) + b"\5guest\4test\0" + struct.pack(">HH", 1, 1)
        host.send_udp(await host.arp(GATEWAY), server, (4000, 53), query)
        _, port, answer = await host.udp(4000)
        assert (port, answer[:2], answer[-4:]) == (53, query[:2], socket.inet_aton("192.0.2.53"))
    transport.close()


def test_the_guest_asks_this_hosts_name_server(in_network: Callable[[str, str], None], tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    inner = "from tests.component.test_lan_user import *; run(asks_for_a_name)"
    script = f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf; exec {sys.executable} -c '{inner}'"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]
    in_network("true", f"import os; os.execvp('unshare', {command!r})")


def test_ports_of_this_host_lead_to_the_guest() -> None:
    async def scenario() -> None:
        tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
        async with user(f",hostfwd=tcp::{tcp}-:22,hostfwd=udp::{udp}-:53") as host:
            await host.dhcp()
            gateway = await host.arp(GATEWAY)
            outside = asyncio.create_task(asyncio.open_connection("127.0.0.1", tcp))
            inside = await TcpConnection(host, gateway, GATEWAY, (22, 0)).accept()
            reader, writer = await outside
            writer.write(b"hello")
            assert await inside.receive() == b"hello"
            inside.send(b"SSH-2.0\r\n")
            assert await reader.readline() == b"SSH-2.0\r\n"
            writer.write(b"bye")
            writer.close()
            assert await inside.receive_all() == b"bye"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(("127.0.0.1", udp))
                client.setblocking(False)
                client.send(b"query")
                _, port, query = await host.udp(53)
                assert query == b"query"
                host.send_udp(gateway, GATEWAY, (53, port), b"answer")
                assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), WAIT_S) == b"answer"
            # Nobody beyond this host is let in.
            listening = subprocess.run(["ss", "-Hltun"], capture_output=True, text=True, check=True).stdout
            assert {line.split()[4] for line in listening.splitlines() if line.split()[4].endswith((f":{tcp}", f":{udp}"))} == {
                f"127.0.0.1:{tcp}",
                f"127.0.0.1:{udp}",
            }

    run(scenario)


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(WireError) as raised:
                async with user(f",hostfwd=tcp::{port}-:22"):
                    pass
            assert str(port) in str(raised.value)
            assert "\n" not in str(raised.value)

    run(scenario)


def test_files_are_read_by_tftp_and_named_by_dhcp(tmp_path: Path) -> None:
    content = os.urandom(5000)
    (tmp_path / "grub.elf").write_bytes(content)

    async def scenario() -> None:
        async with user(f",tftp={tmp_path},bootfile=grub.elf") as host:
            lease = await host.dhcp()
            assert b"grub.elf" in (lease.get(67, b"").rstrip(b"\0"), lease[-1])
            gateway = await host.arp(GATEWAY)
            assert await host.tftp(gateway, GATEWAY, "grub.elf") == content
            with pytest.raises(FileNotFoundError):
                await host.tftp(gateway, GATEWAY, "../../etc/passwd")

    run(scenario)


@pytest.mark.parametrize("options", ["", ",restrict"])
def test_a_program_that_ends_is_started_again_and_one_ends_with_the_wire(options: str) -> None:
    async def scenario() -> None:
        async with user(options) as host:
            wire = host.wire
            assert isinstance(wire, PasstWire | PairWire)
            first = wire.pid
            await host.dhcp()
            os.kill(first, signal.SIGKILL)
            # What is sent meanwhile is lost, so ARP asks again.
            assert await host.arp(GATEWAY)
            second = wire.pid
            assert second not in (0, first)
            await host.dhcp()
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)

    run(scenario)


@pytest.mark.parametrize("options", ["", ",restrict"])
def test_the_program_ends_with_a_process_that_is_killed(options: str) -> None:
    script = (
        "import asyncio\nfrom splitvisor.lan.options import parse_net\nfrom splitvisor.lan.switch import Switches\n"
        "from splitvisor.lan.wires import make_wire\n"
        "async def main():\n"
        f"    wire = make_wire(parse_net('user{options}'), 'x', Switches())\n"
        "    await wire.open(lambda frame: True)\n    print(wire.pid, flush=True)\n    await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        watched = os.pidfd_open(int(process.stdout.readline()))
        process.kill()

    async def scenario() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watched, ended.set)
        await asyncio.wait_for(ended.wait(), WAIT_S)
        asyncio.get_running_loop().remove_reader(watched)
        os.close(watched)

    run(scenario)


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(WireError, match=r"^user: tftp: /nowhere is not a directory; give one, or make it$"):
            async with user(",tftp=/nowhere"):
                pass
        monkeypatch.setattr(shutil, "which", lambda *_arguments, **_named: None)
        with pytest.raises(WireError, match=r"^this network needs passt, which is not installed; apt-get install passt$"):
            async with user():
                pass
        with pytest.raises(WireError, match=r"needs libslirp-helper, .*; apt-get install libslirp-helper$"):
            async with user(f",tftp={tmp_path}"):
                pass

    run(scenario)
