# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench net`: a guest's network with iperf3 and ping, in turn with QEMU's spapr-vlan when wanted.

Both guests have two networks. One is of kind "user": the host's iperf3 listens on loopback, and the guest reaches it at its
gateway. The other is a stream of frames to a host of the bench's own (echo_host.py), which answers pings.
"""

from __future__ import annotations

import json
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splitvisor.bench.echo_host import ADDRESS, PREFIX, echo_host
from splitvisor.bench.peers import BenchError, Peer
from splitvisor.bench.shell import guests_at_hand
from splitvisor.bench.versus import Figure, compare, guests
from splitvisor.guests.commands import Answer, CommandError, Commands
from splitvisor.guests.network import lease

SECONDS = 3.0
"""Of each way."""
PINGS = 200
TCP, PING = 1.0, 0.7
"""How many times as fast as QEMU's the network is to be."""
SERVER_START_S = 10.0
_PINGED, _PINGING, _GUEST = ADDRESS, "eth1", "192.0.2.2"
_GATEWAY = "$(ip -4 route show default | cut -d ' ' -f 3)"
_COMMAND_S = 120.0


def figures(port: int, seconds: float) -> list[Figure]:
    """Return what is measured. port: the host's iperf3's; seconds: of each way."""

    def tcp(option: str) -> Callable[[Commands], float]:
        def measure(commands: Commands) -> float:
            command = f"iperf3 -c {_GATEWAY} -p {port} -J -t {seconds:.0f} {option}"
            answer = commands.run(command, _COMMAND_S)
            try:
                return float(json.loads(answer.output)["end"]["sum_received"]["bits_per_second"]) / 1e6
            except (ValueError, KeyError):
                raise CommandError(command, Answer(answer.status, answer.output)) from None

        return measure

    def ping(commands: Commands) -> float:
        command = f"ping -n -c {PINGS} -i 0.01 {_PINGED}"
        answer = commands.run(command, _COMMAND_S)
        times = [float(found) for found in re.findall(r" time=([\d.]+) ms", answer.output)]
        if len(times) < PINGS:
            raise CommandError(command, answer)
        return 1000 * statistics.median(times)

    return [
        Figure("tcp_sent", "TCP from the guest", "Mbit/s", tcp(""), TCP),
        Figure("tcp_received", "TCP to the guest", "Mbit/s", tcp("-R"), TCP),
        Figure("ping", f"ping, median of {PINGS}", "us", ping, PING, less_is_better=True),
    ]


def own_networks(echo: Path) -> list[str]:
    """Return options of `splitvisor run`. echo: the socket of the host that answers pings."""
    return ["--net", "user", "--net", f"socket=unix:{echo}"]


def qemu_networks(echo: Path) -> list[str]:
    """Return the options of QEMU for the same."""
    stream = f"stream,id=echo,server=off,addr.type=unix,addr.path={echo}"
    return ["-netdev", "user,id=net", "-device", "spapr-vlan,netdev=net", "-netdev", stream, "-device", "spapr-vlan,netdev=echo"]


def measure(runs: int, peers: Sequence[Peer], say: Callable[[str], None], seconds: float = SECONDS) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all. Raises BenchError."""
    guests_at_hand(say)
    with tempfile.TemporaryDirectory(prefix="sv-bench-") as directory, iperf_server() as port:
        echo = Path(directory, "echo.sock")
        boots = guests(own_networks(echo), dict.fromkeys(peers, qemu_networks(echo)))
        try:
            with echo_host(echo):
                found = compare(boots, prepare, figures(port, seconds), runs, say)
        except CommandError as error:
            raise BenchError(str(error)) from error
    return {"seconds": seconds, "pings": PINGS, **found}


def prepare(commands: Commands) -> None:
    """Give the guest its addresses. Raises CommandError."""
    lease(commands)
    commands.ok(f"ip address add {_GUEST}/{PREFIX} dev {_PINGING}; ip link set {_PINGING} up")
    commands.wait_for(f"ping -n -q -c 1 -W 1 {_PINGED}")


@contextmanager
def iperf_server() -> Iterator[int]:
    """Run the host's iperf3 on loopback; its port. Raises BenchError."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    command = ["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)]
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        raise BenchError("there is no iperf3; install the package iperf3") from None
    try:
        deadline = time.monotonic() + SERVER_START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), SERVER_START_S).close()
                break
            except ConnectionRefusedError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"iperf3 does not listen on port {port}") from None
                time.sleep(0.02)
        yield port
    finally:
        server.kill()
        server.wait()
