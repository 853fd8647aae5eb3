# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests do in guests with a network device: addresses, pings, bytes from one to another, what the driver says."""

from __future__ import annotations

import os
import re

from splitvisor.guests.commands import Commands

MEBIBYTES = int(os.environ.get("SPLITVISOR_NET_MEBIBYTES", "4"))
"""Of a transfer, each way."""
PING_S = 60.0
TRANSFER_S = 300.0
SIZES = (1, 18, 100, 500, 1472, 1473, 4000, 8972, 16000, 32000, 65507)
_PORT = 5


def address(guest: Commands, last: int) -> None:
    """Have 10.9.0.LAST and fd09::LAST on eth0."""
    guest.ok(f"ip address add 10.9.0.{last}/24 dev eth0; ip -6 address add fd09::{last}/64 dev eth0 nodad; ip link set eth0 up")


def ping(guest: Commands, host: str, count: int, *options: str) -> None:
    """Ping until so many are answered. Those that come late on a busy machine are sent again, and few are."""
    answer = guest.ok(f"ping -n -q -c {count} -w {PING_S:.0f} {' '.join(options)} {host}", PING_S + 10)
    found = re.search(r"(\d+) received", answer)
    assert found, answer
    assert int(found[1]) >= count, answer


def pings_of_all_sizes(guest: Commands, host: str) -> None:
    """Ping with packets of one frame and of many."""
    for size in SIZES:
        ping(guest, host, 3, f"-i 0.1 -s {size}")


def check_driver(guest: Commands) -> None:
    """The driver has nothing to complain about."""
    complaints = guest.ok("dmesg | grep -E -i 'ibmveth.*(fail|err|invalid)|WARNING: CPU|BUG:' || true")
    assert complaints == "", complaints
    statistics = guest.ok("ethtool -S eth0")
    assert "rx_invalid_buffer: 0" in statistics
    assert "replenish_add_buff_failure: 0" in statistics
    assert "tx_send_failed: 0" in statistics


def large_packets(guest: Commands) -> dict[str, int]:
    """How many frames of several segments the driver has sent ("tx") and received ("rx")."""
    statistics = guest.ok("ethtool -S eth0")
    return {way: int(re.findall(rf"{way}_large_packets: (\d+)", statistics)[0]) for way in ("tx", "rx")}


def copy(sender: Commands, receiver: Commands, host: str, mebibytes: int) -> None:
    """Send random bytes to the other guest, which has an address; they must arrive there as they were."""
    receiver.ok("rm -f /tmp/quiet /tmp/got /tmp/ended; mkfifo /tmp/quiet")
    receiver.ok(f"(nc -l -p {_PORT} >/tmp/got <>/tmp/quiet; touch /tmp/ended) &")
    receiver.wait_for(f"cat /proc/net/tcp /proc/net/tcp6 | grep -q ':{_PORT:04X} 0*:0000 0A'")
    sender.ok(f"head -c {mebibytes << 20} /dev/urandom >/tmp/sent", TRANSFER_S)
    sender.ok(f"nc {host} {_PORT} </tmp/sent", TRANSFER_S)
    receiver.wait_for("test -e /tmp/ended")
    assert receiver.ok("sha256sum </tmp/got", TRANSFER_S) == sender.ok("sha256sum </tmp/sent; rm /tmp/sent", TRANSFER_S)
    receiver.ok("rm /tmp/got")
