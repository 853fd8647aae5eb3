# SPDX-License-Identifier: GPL-2.0-or-later
"""l-lan under Debian's own driver: DHCP, every size of packet, TCP both ways, guests on one wire, snapshots, a killed service."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from splitvisor.bench.command_shell import qemu_commands
from splitvisor.bench.net import iperf_server
from splitvisor.guests.commands import Commands
from splitvisor.guests.network import lease
from tests.guests.harness import BOOT_SECONDS, Console, Guests
from tests.guests.lan import MEBIBYTES, TRANSFER_S, address, check_driver, copy, large_packets, ping, pings_of_all_sizes
from tests.guests.tcp_checksums import tcp_checksums

FLOOD = 500
VM = f"lan-{os.getpid()}"

IoGuest = Callable[..., Commands]


def test_a_user_network_gives_an_address_and_carries_tcp_both_ways(io_guest: IoGuest) -> None:
    guest = io_guest("--memory", "1G", "--net", "user")
    got = lease(guest)
    assert (got.address, got.gateway) == ("10.0.2.15", "10.0.2.2")
    assert guest.ok("ethtool -k eth0 | grep -c -E '(tx-checksum-ipv4|rx-checksumming|tx-tcp-segmentation): on'") == "3"
    tcp_checksums(guest, got.gateway, MEBIBYTES)
    with iperf_server() as port:  # It writes more at a time than nc.
        guest.ok(f"iperf3 -c {got.gateway} -p {port} -n 512K", TRANSFER_S)
    large = large_packets(guest)
    assert min(large.values()) > 0
    guest.ok("ethtool -K eth0 tx off rx off tso off")
    tcp_checksums(guest, got.gateway, 2)
    assert large_packets(guest) == large
    check_driver(guest)


def test_two_guests_on_a_wire_have_packets_of_every_size(io_guest: IoGuest, short_path: Path) -> None:
    wire = f"switch=both,listen=unix:{short_path}/wire"
    first = io_guest("--name", f"{VM}-1", "--net", wire)
    second = io_guest("--name", f"{VM}-2", "--net", f"switch=both,peer=unix:{short_path}/wire")
    for last, guest in enumerate((first, second), 1):
        address(guest, last)
    second.wait_for("ping -c 1 -W 1 10.9.0.1")
    assert first.ok("cat /sys/class/net/eth0/address") != second.ok("cat /sys/class/net/eth0/address")
    pings_of_all_sizes(second, "10.9.0.1")
    ping(first, "10.9.0.2", FLOOD, "-f")
    second.ok("ping -6 -c 3 -i 0.1 fd09::1")
    for guest in (first, second):
        guest.ok("ip link set eth0 mtu 9000; ip link set eth0 up; ip -6 address add fd09::9/64 dev eth0 nodad")
    second.wait_for("ping -c 1 -W 1 10.9.0.1")
    ping(second, "10.9.0.1", 5, "-i 0.01 -M do -s 8972")
    pings_of_all_sizes(first, "10.9.0.2")
    copy(second, first, "10.9.0.1", 4)
    for guest in (first, second):
        check_driver(guest)


def test_a_guest_of_qemu_is_on_the_same_wire(io_guest: IoGuest, guests: Guests, qemu: str, short_path: Path) -> None:
    del guests, qemu
    wire = short_path / "wire"
    first = io_guest("--net", f"socket=unix:{wire},listen")
    netdev = ["-netdev", f"stream,id=net,server=off,addr.type=unix,addr.path={wire}", "-device", "spapr-vlan,netdev=net"]
    with qemu_commands(short_path, netdev) as second:
        address(first, 1)
        address(second, 2)
        second.wait_for("ping -c 1 -W 1 10.9.0.1")
        pings_of_all_sizes(first, "10.9.0.2")
        pings_of_all_sizes(second, "10.9.0.1")
    check_driver(first)


def test_the_network_goes_on_when_its_process_is_killed(run: Callable[..., Console], guests: Guests, short_path: Path) -> None:
    scenario = short_path / "scenario.toml"
    scenario.write_text('[[fault]]\nkind = "kill"\nbackend = "vio"\ndirection = "to-backend"\nmessages = ["reset"]\nat = [99]\n')
    options = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1", "--memory", "1G")
    console = run(*options, "--name", VM, "--net", "user", "--fault", str(scenario))
    console.expect("guest# ", BOOT_SECONDS)
    guest = Commands(console)
    got = lease(guest)
    tcp_checksums(guest, got.gateway, 1)
    for _ in range(3):
        done = console.splitvisor("fault", "kill", VM, "vio")
        assert done.returncode == 0, done.stderr
        tcp_checksums(guest, got.gateway, 1)
    check_driver(guest)


@pytest.mark.parametrize("memory", [(), ("--no-shared-memory",)])
def test_a_snapshot_in_mid_transfer_goes_on(
    run: Callable[..., Console], guests: Guests, short_path: Path, memory: tuple[str, ...]
) -> None:
    wire = short_path / "wire"
    options = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
    net = ("--net", f"switch=both,listen=unix:{wire}", "--net", f"switch=both,peer=unix:{wire}")
    console = run(*options, "--name", VM, *net[:2], *memory)
    other = run(*options, "--name", f"{VM}-2", *net[2:], *memory)
    consoles = []
    for last, each in enumerate((console, other), 1):
        each.expect("guest# ", BOOT_SECONDS)
        consoles.append(Commands(each))
        address(consoles[-1], last)
    consoles[1].wait_for("ping -c 1 -W 1 10.9.0.1")
    consoles[0].ok("ping -q -i 0.01 -s 3000 10.9.0.2 >/tmp/pings & sleep 0.3")
    snapshot = short_path / "guest.snapshot"
    done = console.splitvisor("vm", "save", VM, str(snapshot), "--stop")
    assert done.returncode == 0, done.stderr
    restored = run("--from", str(snapshot))
    restored.type("echo 're'stored\n")
    restored.expect(r"^restored\r?$", BOOT_SECONDS)  # What is before that was shown before the snapshot.
    guest = Commands(restored)
    ping(guest, "10.9.0.2", 20, "-i 0.01 -s 3000")
    pings_of_all_sizes(guest, "10.9.0.2")
    check_driver(guest)
