# SPDX-License-Identifier: GPL-2.0-or-later
"""Two guests of two hosts on one switch, as docs/networks.md describes it: mutual TLS between the two services."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from splitvisor.access.identity import Role
from splitvisor.guests.commands import Commands
from tests.certificates import Authority
from tests.guests.harness import BOOT_SECONDS, Console, Guests
from tests.guests.hosts import Host
from tests.guests.lan import MEBIBYTES, address, check_driver, copy, ping, pings_of_all_sizes

FLOOD = 200


def test_guests_of_two_hosts_ping_and_copy_each_way(hosts: tuple[Host, Host], guests: Guests, short_path: Path) -> None:
    here, _ = hosts
    authority = Authority(short_path / "ca")
    nets = (f"switch=lab,listen={here.address}:7000", f"switch=lab,peer={here.address}:7000")
    boot = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
    with ExitStack() as stack:
        consoles = []
        for number, (host, net) in enumerate(zip(hosts, nets, strict=True), 1):
            name = f"lan-{os.getpid()}-{number}"
            certificate = authority.issue(Role.BACKEND, f"lan-{os.getpid()}-*", name=name, hosts=[host.address])
            runtime = short_path / str(number)
            runtime.mkdir()
            arguments = (*boot, "--name", name, "--net", net, "--tls", str(certificate))
            consoles.append(Console(arguments, runtime, prefix=host.prefix))
            stack.callback(consoles[-1].close)
        found = []
        for last, console in enumerate(consoles, 1):
            console.expect("guest# ", BOOT_SECONDS)
            found.append(Commands(console))
            address(found[-1], last)
        first, second = found
        second.wait_for("ping -c 1 -W 1 10.9.0.1")
        pings_of_all_sizes(second, "10.9.0.1")
        ping(first, "10.9.0.2", FLOOD, "-f")
        copy(first, second, "10.9.0.2", MEBIBYTES)
        copy(second, first, "10.9.0.1", MEBIBYTES)
        for guest in found:
            check_driver(guest)
