# SPDX-License-Identifier: GPL-2.0-or-later
"""Network devices under traffic: added to a running guest and removed by Debian's drmgr, and moved along with their guest."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from splitvisor.bench import echo_host
from splitvisor.guests.commands import Commands
from tests import terminals
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, ROOT, STEP_SECONDS, Guests
from tests.guests.lan import TRANSFER_S, address, check_driver, pings_of_all_sizes
from tests.guests.test_debian_hotplug import LOAD_MODULES
from tests.guests.test_vscsi_moves import addresses, at_prompt
from tests.services import start_services

VM = f"lans-{os.getpid()}"
ADDED, SLOT = "0x71000002", "V1-C2"
CHUNKS, CHUNK_KIB = 300, 8
"""Of a transfer that takes long, since the sender waits after each part."""


def received(guest: Commands) -> int:
    return int(guest.ok("cat /sys/class/net/eth0/statistics/rx_packets"))


def drmgr(guest: Commands, action: str) -> None:
    guest.ok(f"/usr/sbin/drmgr -w 1 -c slot -s {SLOT} {action}", STEP_SECONDS)


def test_a_network_device_comes_and_goes_under_traffic(run: Run, guests: Guests, short_path: Path, tmp_path: Path) -> None:
    wire, initrd = short_path / "wire", tmp_path / "initrd.cpio"
    # The kernel unpacks archives one after the other: drmgr and its modules are in the first, /init is the second's.
    initrd.write_bytes(guests.slots.read_bytes() + guests.io.read_bytes())
    options = ("--kernel", str(guests.kernel), "--initrd", str(initrd), "--append", "console=hvc0 panic=-1", "--name", VM)
    with echo_host.echo_host(wire):
        console = run(*options)
        console.expect("guest# ", BOOT_SECONDS)
        guest = Commands(console)
        guest.ok(LOAD_MODULES)
        for _ in range(2):
            added = console.splitvisor("vm", "device-add", VM, "l-lan", "--option", f"net=socket=unix:{wire}", "--wait", "0.1")
            assert "plugged in" in added.stderr, added
            drmgr(guest, "-a")
            guest.wait_for("test -d /sys/class/net/eth0")
            guest.ok(f"ip address add 192.0.2.2/{echo_host.PREFIX} dev eth0; ip link set eth0 up")
            guest.wait_for(f"ping -n -c 1 -W 1 {echo_host.ADDRESS}")
            guest.ok(f"ping -n -q -f {echo_host.ADDRESS} >/tmp/pings 2>&1 &")
            before = received(guest)
            guest.wait_for(f"[ $(cat /sys/class/net/eth0/statistics/rx_packets) -gt {before + 20} ]")
            asked = console.splitvisor("vm", "device-remove", VM, ADDED, "--wait", "0.1")
            assert "did not release" in asked.stderr, asked
            drmgr(guest, "-r")
            guest.ok("[ ! -d /sys/class/net/eth0 ]; kill $(pidof ping) || true")
            assert ADDED not in console.splitvisor("vm", "devices", VM).stdout
        assert guest.ok("dmesg | grep -E 'WARNING: CPU|BUG:|ibmveth.*(fail|err)' || true") == ""


def test_tcp_goes_on_when_its_guest_moves_to_another_service(run: Run, guests: Guests, short_path: Path) -> None:
    boot = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
    wire = short_path / "wire"
    with ExitStack() as stack:
        here, there = short_path / "here", short_path / "there"
        here.mkdir()
        there.mkdir()
        source, target = start_services(here), start_services(there)
        for service in (*source.values(), *target.values()):
            stack.callback(service.end)
        staying = run(*boot, "--name", f"{VM}-2", "--net", f"switch=both,listen=unix:{wire}")
        moving = run(*boot, "--name", VM, "--net", f"switch=both,peer=unix:{wire}", "--connect", addresses(source))
        consoles = []
        for last, console in enumerate((moving, staying), 1):
            console.expect("guest# ", BOOT_SECONDS)
            consoles.append(Commands(console))
            address(consoles[-1], last)
        guest, other = consoles
        guest.wait_for("ping -c 1 -W 1 10.9.0.2")
        other.ok("mkfifo /tmp/quiet; (nc -l -p 5 >/tmp/got <>/tmp/quiet; touch /tmp/ended) &")
        other.wait_for("cat /proc/net/tcp /proc/net/tcp6 | grep -q ':0005 0*:0000 0A'")
        guest.ok(f"head -c {CHUNKS * CHUNK_KIB << 10} /dev/urandom >/tmp/sent")
        part = f"dd if=/tmp/sent bs={CHUNK_KIB}k count=1 skip=$n 2>/dev/null"
        guest.ok(f"(n=0; while [ $n -lt {CHUNKS} ]; do {part}; sleep 0.05; n=$((n + 1)); done | nc 10.9.0.2 5) >/tmp/nc 2>&1 &")
        other.wait_for("[ $(stat -c %s /tmp/got) -gt 0 ]")
        command = ("migrate", VM, "--cpu", source["cpu"].address, "--to", target["cpu"].address)
        others = {name: service for name, service in target.items() if name != "cpu"}
        moved = subprocess.run(
            [sys.executable, "-m", "splitvisor", "vm", *command, "--connect", addresses(others)],
            cwd=ROOT, capture_output=True, text=True, timeout=STEP_SECONDS, check=False,
        )  # fmt: skip
        assert moved.returncode == 0, moved.stderr
        arrived = int(other.ok("stat -c %s /tmp/got"))
        assert arrived < CHUNKS * CHUNK_KIB << 10, "it moved in the middle of the transfer"
        terminal = terminals.Terminal(target["vio"].address, VM)
        stack.callback(terminal.close)
        guest = at_prompt(terminal)
        other.wait_for("test -e /tmp/ended", TRANSFER_S)
        assert other.ok("sha256sum </tmp/got") == guest.ok("sha256sum </tmp/sent")
        pings_of_all_sizes(guest, "10.9.0.2")
        check_driver(guest)
