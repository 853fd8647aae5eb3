# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts: network namespaces with a cable between them, and no way to each other's loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.guests.harness import STEP_SECONDS

HERE, THERE = "192.0.2.1", "192.0.2.2"
"""Of the documentation's network (RFC 5737)."""


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    address: str
    prefix: Sequence[str]
    """What to put before a command so that it runs there."""


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=STEP_SECONDS, check=False)
    if done.returncode != 0:
        pytest.skip(f"no network namespaces with a cable here: ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Have them, with the addresses HERE and THERE."""
    if os.getuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("network namespaces need root, and unshare, nsenter and ip")
    with ExitStack() as stack:
        pids = []
        for _ in range(2):
            command = ["unshare", "--net", "sh", "-c", "echo ready && exec cat"]
            holder = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(holder.kill)
            assert holder.stdout is not None
            if holder.stdout.readline() != b"ready\n":
                pytest.skip("no network namespace here")
            pids.append(str(holder.pid))
        names = [f"sv{pid}" for pid in pids]
        _ip("link", "add", names[0], "netns", pids[0], "type", "veth", "peer", "name", names[1], "netns", pids[1])
        made = []
        for pid, name, address in zip(pids, names, (HERE, THERE), strict=True):
            prefix = ("nsenter", "--target", pid, "--net", "--")
            for change in (f"address add {address}/24 dev {name}", f"link set {name} up", "link set lo up"):
                subprocess.run([*prefix, "ip", *change.split()], timeout=STEP_SECONDS, check=True)
            made.append(Host(address, prefix))
        yield made[0], made[1]
