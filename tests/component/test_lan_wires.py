# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams and switches over real sockets: back-pressure, floods, connections that are lost, mutual TLS, captures."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

import pytest
import uvloop

from splitvisor.access.identity import Role
from splitvisor.lan.dial import Dialler
from splitvisor.lan.framing import BUFFER_BYTES
from splitvisor.lan.link import UNSENT_BYTES, FrameLink
from splitvisor.lan.listen import Listener
from splitvisor.lan.mac_table import AGE_S, MacTable
from splitvisor.lan.options import parse_net
from splitvisor.lan.stream import LinkWire
from splitvisor.lan.switch import GUEST_MACS, QUEUE_BYTES, QUEUE_FRAMES, Switches
from splitvisor.lan.tls import WireTls
from splitvisor.lan.wire import MAX_FRAME, Wire, WireError
from splitvisor.lan.wires import make_wire
from tests.certificates import Authority
from tests.frames import BROADCAST, WAIT_S, Host, ethernet

MACS = [bytes((2, 0, 0, 0, 1, number)) for number in range(8)]
A, B, C, D, *_ = MACS


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[None, None, None]]], None]:
    """Runs a scenario, on either event loop."""
    runner = uvloop.run if request.param == "uvloop" else asyncio.run
    return lambda scenario: runner(asyncio.wait_for(scenario(), 3 * WAIT_S))


def make(text: str, switches: Switches | None = None, vm: str = "test") -> Wire:
    return make_wire(parse_net(text), vm, switches or Switches())


async def met(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def greet(sender: Host, *receivers: Host) -> None:
    """Send until all receivers hear it: connections come up when they do."""
    hello = ethernet(BROADCAST, sender.mac, b"hello")
    sender.wire.send(hello)
    for receiver in receivers:
        await receiver.until(hello.__eq__, lambda: sender.wire.send(hello))


def rss() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


Run = Callable[[Callable[[], Coroutine[None, None, None]]], None]


def test_frames_arrive_whole_and_in_order(run: Run, short_path: Path) -> None:
    async def scenario() -> None:
        one = await Host(A).open(make(f"socket=unix:{short_path}/s,listen"))
        other = await Host(B).open(make(f"socket=unix:{short_path}/s"))
        assert (short_path / "s").stat().st_mode & 0o777 == 0o600
        await greet(other, one)
        one.frames.clear()
        frames = [ethernet(A, B, struct.pack(">I", number) * (1 + number % 300)) for number in range(1000)]
        for frame in frames:
            other.wire.send(frame)
        for wrong in (b"", bytes(13), bytes(MAX_FRAME + 1)):
            other.wire.send(wrong)
        await one.count(len(frames))
        assert [frame for frame in one.frames if frame[14:19] != b"hello"] == frames
        counters = other.wire.counters
        assert counters.sent - 1000 >= 1
        assert counters.sent_bytes > sum(map(len, frames))
        assert counters.sent_dropped >= 3
        assert one.wire.counters.received == counters.sent
        for host in (one, other):
            await host.wire.close()
            await host.wire.close()

    run(scenario)


def test_a_device_without_room_makes_the_peer_wait_and_loses_nothing(run: Run, short_path: Path) -> None:
    async def scenario() -> None:
        one = Host(A)
        one.has_room = False
        await one.open(make(f"socket=unix:{short_path}/s,listen"))
        _, peer = await asyncio.open_unix_connection(f"{short_path}/s")
        frames = [struct.pack(">I", number) * 500 for number in range(5000)]
        peer.transport.set_write_buffer_limits(1)
        for frame in frames:
            peer.write(struct.pack(">I", len(frame)) + frame)
        # What this process took is what its buffer holds; the rest is the sender's.
        await asyncio.sleep(0.1)
        waiting = peer.transport.get_write_buffer_size()
        assert waiting > 5000 * 2004 - BUFFER_BYTES - (8 << 20)
        assert one.frames == []
        one.has_room = True
        while len(one.frames) < len(frames):
            seen = len(one.frames)
            one.wire.resume()
            await one.count(seen + 1)
        assert one.frames == frames
        peer.close()
        await one.wire.close()

    run(scenario)


def test_a_flood_never_grows_memory(run: Run, short_path: Path) -> None:
    """The device takes nothing from a peer that sends all it can, and sends all it can to that peer, which reads nothing."""

    async def scenario() -> None:
        one = Host(A)
        one.has_room = False
        await one.open(make(f"socket=unix:{short_path}/s,listen"))
        peer = socket.socket(socket.AF_UNIX)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, f"{short_path}/s")
        frame = struct.pack(">I", 60000) + bytes(60000)
        before, sent, refused = rss(), 0, 0
        while refused < 50:
            try:
                sent += peer.send(frame * 4)
            except BlockingIOError:
                refused += 1
            await asyncio.sleep(0)
        assert sent < 16 << 20
        for _ in range(20_000):  # 1.2 GB
            one.wire.send(bytes(60000))
        for _ in range(100):
            await asyncio.sleep(0)
        assert one.wire.counters.sent_bytes < 2 * UNSENT_BYTES + (8 << 20)
        assert one.wire.counters.sent_dropped > 19_000
        assert rss() - before < 64 << 20
        peer.close()
        await one.wire.close()

    run(scenario)


def test_a_peer_that_speaks_something_else_is_disconnected(run: Run, short_path: Path) -> None:
    async def scenario() -> None:
        one = await Host(A).open(make(f"socket=unix:{short_path}/s,listen"))
        reader, writer = await asyncio.open_unix_connection(f"{short_path}/s")
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        writer.close()
        # Then the next peer has its turn; while it is there, others have none.
        other = await Host(B).open(make(f"socket=unix:{short_path}/s"))
        await greet(one, other)
        reader, writer = await asyncio.open_unix_connection(f"{short_path}/s")
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        writer.close()
        await greet(other, one)
        await one.wire.close()
        await other.wire.close()

    run(scenario)


def test_a_lost_connection_is_made_again(run: Run, short_path: Path) -> None:
    async def scenario() -> None:
        other = await Host(B).open(make(f"socket=unix:{short_path}/s"))
        other.wire.send(bytes(60))
        assert other.wire.counters.sent_dropped == 1
        for _ in range(3):
            one = await Host(A).open(make(f"socket=unix:{short_path}/s,listen"))
            await greet(other, one)
            await greet(one, other)
            await one.wire.close()
        await other.wire.close()

    run(scenario)


def test_an_address_that_is_taken_is_said_in_one_line(run: Run, short_path: Path) -> None:
    async def scenario() -> None:
        one = await Host(A).open(make(f"socket=unix:{short_path}/s,listen"))
        with pytest.raises(WireError, match="another process listens there; end it, or give another path"):
            await Host(B).open(make(f"socket=unix:{short_path}/s,listen"))
        await one.wire.close()
        (short_path / "file").write_text("mine")
        with pytest.raises(WireError, match="it is a regular file, not a socket, so it is not replaced"):
            await Host(B).open(make(f"socket=unix:{short_path}/nobody,local=unix:{short_path}/file"))
        (short_path / "stale").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
            stale.bind(f"{short_path}/stale")
        again = await Host(B).open(make(f"socket=unix:{short_path}/nobody,local=unix:{short_path}/stale"))
        await again.wire.close()

    run(scenario)


def test_beyond_this_host_a_certificate_is_needed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLITVISOR_TLS", raising=False)
    for text in ("socket=192.0.2.1:7000", "socket=0.0.0.0:0,listen", "switch=a,peer=192.0.2.1:7000"):

        async def scenario(text: str = text) -> None:
            with pytest.raises(
                WireError, match="plaintext is for unix sockets and loopback only, TLS needs a certificate; give --tls"
            ):
                await make(text).open(lambda _frame: True)

        run(scenario)


def test_mutual_tls_lets_in_services_for_the_vm_only(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "stranger")
    ours = authority.issue(Role.BACKEND)
    refused = [
        (authority.issue(Role.BACKEND, "another", name="another"), "is not for VM test"),
        (stranger.issue(Role.BACKEND, name="stranger"), "certificate"),
    ]

    async def scenario() -> None:
        monkeypatch.setenv("SPLITVISOR_TLS", str(ours))
        wire = make("socket=tls:127.0.0.1:0,listen")
        one = await Host(A).open(wire)
        assert isinstance(wire, LinkWire)
        address = f"tls:127.0.0.1:{wire.port}"
        for directory, _ in refused:
            monkeypatch.setenv("SPLITVISOR_TLS", str(directory))
            other = await Host(B).open(make(f"socket={address}", vm="another"))
            await met(lambda: "refused" in capfd.readouterr().out or one.frames != [])
            other.wire.send(ethernet(BROADCAST, B))
            await other.wire.close()
        assert one.frames == []
        monkeypatch.setenv("SPLITVISOR_TLS", str(ours))
        other = await Host(B).open(make(f"socket={address}"))
        await greet(other, one)
        frame = ethernet(A, B, os.urandom(MAX_FRAME - 14))
        for _ in range(50):
            other.wire.send(frame)
        await met(lambda: one.frames.count(frame) == 50)
        await greet(one, other)
        await other.wire.close()
        await one.wire.close()

    run(scenario)


def test_each_end_says_once_why_there_is_no_connection(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path / "ca")
    ours, another = authority.issue(Role.BACKEND), authority.issue(Role.BACKEND, "another", name="another")
    looked_at, ended = [], []
    check, begin = WireTls.check, Listener._begin

    def counted_check(tls: WireTls, transport: asyncio.Transport) -> None:
        looked_at.append(transport)
        check(tls, transport)

    async def counted_begin(listener: Listener, connected: socket.socket) -> None:
        await begin(listener, connected)
        ended.append(connected)

    monkeypatch.setattr(WireTls, "check", counted_check)
    monkeypatch.setattr(Listener, "_begin", counted_begin)

    def has_ended(count: int) -> bool:
        return len(ended) == count

    async def scenario() -> None:
        monkeypatch.setenv("SPLITVISOR_TLS", str(another))
        wire = make("socket=tls:127.0.0.1:0,listen")
        listening = await Host(A).open(wire)
        assert isinstance(wire, LinkWire)
        for count in (1, 2, 3):
            socket.create_connection(("127.0.0.1", wire.port)).close()
            await met(partial(has_ended, count))
        said = capfd.readouterr().out
        assert said.count("a peer of a network is refused") == 1
        assert "it ended the handshake; its own log says why" in said
        monkeypatch.setenv("SPLITVISOR_TLS", str(ours))
        connecting = await Host(B).open(make(f"socket=tls:127.0.0.1:{wire.port}"))
        await met(lambda: len(looked_at) >= 3)
        await connecting.wire.close()
        await listening.wire.close()

    run(scenario)
    said = capfd.readouterr().out
    assert said.count("its certificate is not for VM test; issue one with --vm test") == 1


def test_a_connection_that_is_there_just_when_nobody_wants_it_is_no_reason_to_make_another(run: Run) -> None:
    async def scenario() -> None:
        begun, may_end = [], asyncio.Event()

        async def dial(make: Callable[[], FrameLink]) -> FrameLink:
            begun.append(make)
            await may_end.wait()
            return make()

        dialler = Dialler("test", dial, lambda _link: lambda _frame: True)
        dialler.start()
        await met(lambda: begun != [])
        may_end.set()
        await dialler.close()
        assert len(begun) == 1, "closing was not forgotten"

    run(scenario)


def test_a_switch_learns_and_floods_what_it_has_not_learnt(run: Run) -> None:
    async def scenario() -> None:
        switches = Switches()
        a, b, c = [await Host(mac).open(make("switch=lab", switches)) for mac in (A, B, C)]
        elsewhere = await Host(D).open(make("switch=other", switches))
        flooded = ethernet(B, A, b"who are you")
        a.wire.send(flooded)
        await b.count(1)
        await c.count(1)
        answer = ethernet(A, B, b"I am")
        b.wire.send(answer)
        assert await a.until(answer.__eq__) == answer
        a.wire.send(ethernet(B, A, b"for b only"))
        a.wire.send(ethernet(b"\x01\x80\xc2\0\0\x0e", A, b"for nobody"))
        a.wire.send(ethernet(b"\x01\0\x5e\0\0\1", A, b"for all"))
        await b.count(3)
        await c.count(2)
        assert [frame[14:] for frame in c.frames] == [b"who are you", b"for all"]
        assert [frame[14:] for frame in b.frames] == [b"who are you", b"for b only", b"for all"]
        assert a.frames == elsewhere.frames == []
        await b.wire.close()
        a.wire.send(ethernet(B, A, b"gone"))
        await c.count(3)
        for host in (a, c, elsewhere):
            await host.wire.close()
        assert switches.find("lab") is None

    run(scenario)


def test_a_slow_guest_slows_no_other_and_its_queue_is_bounded(run: Run) -> None:
    async def scenario() -> None:
        switches = Switches()
        sender, slow, quick = [await Host(mac).open(make("switch=lab", switches)) for mac in (A, B, C)]
        slow.has_room = False
        before = rss()
        for turn in range(100):
            for number in range(100):
                sender.wire.send(ethernet(BROADCAST, A, struct.pack(">II", turn, number) * 150))
            await quick.count((turn + 1) * 100)
            quick.frames[:] = [b""] * len(quick.frames)
        assert slow.frames == []
        assert slow.wire.counters.received_dropped == 10_000 - QUEUE_FRAMES
        slow.has_room = True
        slow.wire.resume()
        await slow.count(QUEUE_FRAMES)
        assert slow.frames == [ethernet(BROADCAST, A, struct.pack(">II", *divmod(n, 100)) * 150) for n in range(QUEUE_FRAMES)]
        slow.has_room = False
        for _ in range(1000):
            sender.wire.send(ethernet(BROADCAST, A, bytes(65000)))
            await asyncio.sleep(0)
            quick.frames.clear()
        assert slow.wire.counters.received_dropped > 10_000 - QUEUE_FRAMES + 1000 - QUEUE_BYTES // 65000 - 2
        assert rss() - before < 64 << 20
        for host in (sender, slow, quick):
            await host.wire.close()

    run(scenario)


def test_switches_of_three_hosts_are_one_network_without_loops(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITVISOR_TLS", str(Authority(tmp_path / "ca").issue(Role.BACKEND)))

    async def scenario() -> None:
        first, second, third = Switches(), Switches(), Switches()

        def port_of(switches: Switches) -> int:
            switch = switches.find("lab")
            assert switch is not None
            return switch.listening[0]

        a = await Host(A).open(make("switch=lab,listen=tls:127.0.0.1:0", first))
        one = f"peer=tls:127.0.0.1:{port_of(first)}"
        b = await Host(B).open(make(f"switch=lab,{one},listen=tls:127.0.0.1:0", second))
        c = await Host(C).open(make(f"switch=lab,{one},peer=tls:127.0.0.1:{port_of(second)}", third))
        d = await Host(D).open(make(f"switch=lab,{one},peer=tls:127.0.0.1:{port_of(second)}", third))
        await met(lambda: all(each.find("lab").peers == 2 for each in (first, second, third)))  # type: ignore[union-attr]
        for sender in (a, b, c, d):
            frame = ethernet(BROADCAST, sender.mac, b"once")
            sender.wire.send(frame)
            for other in (a, b, c, d):
                if other is not sender:
                    assert await other.until(frame.__eq__) == frame
        # Answers are for one host only, and nothing arrives twice.
        reply = ethernet(A, D, b"for a")
        d.wire.send(reply)
        assert await a.until(reply.__eq__) == reply
        last = ethernet(BROADCAST, A, b"last")
        a.wire.send(last)
        for other in (b, c, d):
            assert await other.until(lambda _frame: True) == last
        assert [host.frames for host in (a, b, c, d)] == [[], [], [], []]
        await c.wire.close()
        assert third.find("lab").peers == 2  # type: ignore[union-attr]  # The other guest there wants them.
        for host in (d, a, b):
            await host.wire.close()

    run(scenario)


def test_a_guest_that_makes_up_addresses_forgets_its_own_only() -> None:
    now = [0.0]
    table: MacTable[str] = MacTable(lambda: now[0])
    table.learn(A, "honest", GUEST_MACS)
    for number in range(100_000):
        table.learn(b"\x06" + number.to_bytes(5, "big"), "hostile", GUEST_MACS)
    assert len(table) == GUEST_MACS + 1
    assert table.find(A) == "honest"
    now[0] = AGE_S + 1
    assert table.find(A) is None
    table.learn(A, "moved", GUEST_MACS)
    table.learn(A, "honest", GUEST_MACS)
    assert table.find(A) == "honest"
    table.forget("hostile")
    table.forget("honest")
    table.forget("moved")
    assert len(table) == 0


def test_a_capture_has_every_frame_as_tcpdump_reads_it(run: Run, short_path: Path) -> None:
    async def scenario() -> None:
        file = short_path / "c.pcap"
        one = await Host(A).open(make(f"socket=unix:{short_path}/s,listen,pcap={file}"))
        with pytest.raises(WireError, match=r"pcap: .*: it is in use"):
            await make(f"socket=unix:{short_path}/t,listen,pcap={file}").open(lambda _frame: True)
        other = await Host(B).open(make(f"socket=unix:{short_path}/s"))
        await greet(one, other)
        for number in range(100):
            other.wire.send(ethernet(A, B, bytes(number * 600)))
        await met(lambda: one.wire.counters.received == 100)
        await one.wire.close()
        await other.wire.close()
        assert file.stat().st_mode & 0o777 == 0o600
        sent = one.wire.counters.sent + one.wire.counters.sent_dropped
        if shutil.which("tcpdump") is None:
            pytest.skip("needs tcpdump")
        command = ["tcpdump", "-e", "-n", "--time-stamp-precision=nano", "-r", str(file)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        lengths = [int(line.partition("length ")[2].partition(":")[0]) for line in lines if "length" in line]
        assert [length for length in lengths if length != 19] == [14 + number * 600 for number in range(100)]
        assert lengths.count(19) == sent

    run(scenario)


def test_a_capture_replaces_its_like_only(run: Run, short_path: Path) -> None:
    async def scenario() -> None:
        (short_path / "text").write_text("a letter")
        with pytest.raises(WireError, match="it is there and is no capture, so it is not replaced; give another file"):
            await make(f"socket=unix:{short_path}/s,listen,pcap={short_path}/text").open(lambda _frame: True)
        assert (short_path / "text").read_text() == "a letter"
        for _ in range(2):
            wire = make(f"socket=unix:{short_path}/s,listen,pcap={short_path}/c.pcap")
            await wire.open(lambda _frame: True)
            wire.send(bytes(60))
            await wire.close()
            assert (short_path / "c.pcap").stat().st_size == 24 + 16 + 60

    run(scenario)


def test_a_full_disk_ends_the_capture_and_not_the_network(run: Run, short_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(short_path)], capture_output=True, check=False
    ).returncode:
        pytest.skip("this user may not mount")

    async def scenario() -> None:
        one = await Host(A).open(make(f"socket=unix:{short_path}/s,listen,pcap={short_path}/c.pcap"))
        other = await Host(B).open(make(f"socket=unix:{short_path}/s"))
        await greet(other, one)
        for _ in range(100):
            other.wire.send(ethernet(A, B, bytes(4000)))
        said = ""

        def ended() -> bool:
            nonlocal said
            said += capfd.readouterr().out
            return "capture ended, the network goes on" in said

        await met(ended)
        await greet(other, one)
        await greet(one, other)
        await one.wire.close()
        await other.wire.close()
        assert said.count("capture ended") == 1

    try:
        run(scenario)
        if shutil.which("tcpdump") is not None:
            subprocess.run(["tcpdump", "-r", f"{short_path}/c.pcap"], capture_output=True, check=True)
    finally:
        subprocess.run(["umount", str(short_path)], check=True)
