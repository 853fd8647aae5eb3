# SPDX-License-Identifier: GPL-2.0-or-later
"""The benches of disks and networks measure a guest of QEMU; no figure is judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from splitvisor.bench import disk, echo_host, net, versus
from splitvisor.bench.peers import OURS, PROGRAM, Peer
from splitvisor.bench.versus import Boot, Figure, compare
from tests.frames import ICMP, IPV4, checksum, ethernet, ip_packet
from tests.guests.harness import Guests

THEIRS = "qemu"
PEER = Peer(THEIRS, PROGRAM)
CHOSEN = ("random_read_1", "random_write_16", "sequential_read")


@pytest.fixture
def boot(guests: Guests, qemu: str, tmp_path: Path) -> Boot:
    """QEMU's guest with a disk."""
    del guests, qemu
    image = tmp_path / "disk.raw"
    disk.make_images(image)
    return versus.guests((), {PEER: disk.qemu_disk(image)})[THEIRS]


def test_each_kind_of_figure_is_measured_and_the_ratio_is_how_many_times_as_good(boot: Boot) -> None:
    said: list[str] = []
    figures = [figure for figure in disk.figures(1) if figure.name in CHOSEN]
    found = compare({THEIRS: boot}, disk.prepare, figures, 1, said.append)
    assert tuple(found) == CHOSEN
    assert len(said) == len(CHOSEN)
    assert all(each["medians"][THEIRS] > 0 for each in found.values())
    assert not any("ratio" in each for each in found.values())


def test_every_row_of_a_networks_bench_is_measured_of_both(guests: Guests, qemu: str) -> None:
    del guests, qemu
    if shutil.which("iperf3") is None or shutil.which("passt") is None:
        pytest.skip("there is no iperf3, or no passt")
    said: list[str] = []
    found = net.measure(1, [PEER], said.append, seconds=1)
    for name in ("tcp_sent", "tcp_received", "ping"):
        assert all(found[name]["medians"][of] > 0 for of in (OURS, THEIRS))
        assert found[name]["ratio"] > 0
    assert len([line for line in said if "times as good" in line]) == 3


def test_the_host_that_answers_pings_answers_nothing_else() -> None:
    mac, guest = bytes.fromhex("020000000009"), "192.0.2.2"
    body = bytes((8, 0)) + checksum(bytes((8, 0, 0, 0, 0, 7, 0, 1)) + b"data").to_bytes(2, "big") + bytes((0, 7, 0, 1)) + b"data"
    request = ethernet(echo_host.MAC, mac, ip_packet(guest, echo_host.ADDRESS, ICMP, body), IPV4)
    reply = echo_host.answer(request)
    assert reply is not None
    assert (reply[:6], reply[6:12], reply[34]) == (mac, echo_host.MAC, 0)
    assert checksum(reply[14:34]) == checksum(reply[34:]) == 0
    assert reply[38:] == request[38:]
    for place, value in ((13, 6), (14, 0x46), (23, 17), (33, 9), (34, 0)):
        assert echo_host.answer(request[:place] + bytes((value,)) + request[place + 1 :]) is None
    assert all(echo_host.answer(request[:length]) is None for length in range(14, 42))


def test_ratios_say_how_many_times_as_good_ours_is() -> None:
    assert Figure("rate", "", "/s", lambda _: 0.0, 1.0).ratio(ours=30, theirs=20) == 1.5
    assert Figure("latency", "", "us", lambda _: 0.0, 1.0, less_is_better=True).ratio(ours=30, theirs=45) == 1.5
    assert list(versus.guests((), {PEER: (), Peer("qemu 10.0", "another"): ()})) == [OURS, THEIRS, "qemu 10.0"]
    assert list(versus.guests((), {})) == [OURS]
