# SPDX-License-Identifier: GPL-2.0-or-later
"""A printing Debian moves to another host: everything that it needs crosses a network, with mutual TLS. The hosts are network
namespaces with a cable between them, and no way to each other's loopback.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from splitvisor.access.identity import Role
from tests.guests.harness import BOOT_SECONDS, ROOT, STEP_SECONDS, Guests
from tests.guests.test_snapshots import COUNT, PROMPT, boot, count_on
from tests.guests.test_tls_guest import Stack, stack_at
from tests.terminals import Terminal
from tests.tls_services import TlsService

VM = "web-1"
HERE, THERE = "192.0.2.1", "192.0.2.2"
"""Of the documentation's network (RFC 5737)."""


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    address: str
    prefix: Sequence[str]
    """What to put before a command so that it runs there."""


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=STEP_SECONDS, check=False)
    if done.returncode != 0:
        pytest.skip(f"no network namespaces with a cable here: ip {' '.join(arguments)}: {done.stderr.strip()}")


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
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
        ip("link", "add", names[0], "netns", pids[0], "type", "veth", "peer", "name", names[1], "netns", pids[1])
        made = []
        for pid, name, address in zip(pids, names, (HERE, THERE), strict=True):
            prefix = ("nsenter", "--target", pid, "--net", "--")
            for change in (f"address add {address}/24 dev {name}", f"link set {name} up", "link set lo up"):
                subprocess.run([*prefix, "ip", *change.split()], timeout=STEP_SECONDS, check=True)
            made.append(Host(address, prefix))
        yield made[0], made[1]


class Move:
    """Debian on the services of one host, and cpu_services on another."""

    def __init__(self, stack: Stack, here: Host, there: Host, cleanup: ExitStack) -> None:
        self._stack, self._here, self._there, self._cleanup = stack, here, there, cleanup

    def vm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of an operator on the first host."""
        command = [*self._here.prefix, sys.executable, "-m", "splitvisor", "vm", *arguments, "--tls", str(self._stack.operator)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BOOT_SECONDS, check=False)

    def target(self, vms: str, directory: Path) -> TlsService:
        """Start a cpu_service on the other host, for some VMs."""
        directory.mkdir()
        certificate = self._stack.authority.issue(Role.CPU, vms, name=directory.name, hosts=[self._there.address])
        service = TlsService(
            "cpu", certificate, "--ram-dir", str(directory), listen=f"{self._there.address}:0", prefix=self._there.prefix
        )
        self._cleanup.callback(service.end)
        return service

    def migrate(self, target: TlsService) -> subprocess.CompletedProcess[str]:
        """Move it, or try to."""
        return self.vm("migrate", VM, "--cpu", self._stack.services["cpu"].address, "--to", target.address)

    def state(self, service: TlsService) -> str:
        """What the command line says of the machine of a cpu_service."""
        return self.vm("status", VM, "--cpu", service.address).stdout


def test_a_printing_guest_moves_to_another_host(hosts: tuple[Host, Host], guests: Guests, short_path: Path) -> None:
    here, there = hosts
    with ExitStack() as cleanup:
        stack = cleanup.enter_context(stack_at(short_path, here.address, f"{here.address}:0", here.prefix))
        move = Move(stack, here, there, cleanup)
        places = ",".join(f"{name}={service.address}" for name, service in stack.services.items())
        started = move.vm("start", VM, "--no-shared-memory", "--connect", places, *boot(guests))
        assert started.returncode == 0, started.stderr
        terminal = Terminal(stack.services["vio"].address, VM, prefix=here.prefix, tls=stack.operator)
        cleanup.callback(terminal.close)
        terminal.expect(PROMPT, BOOT_SECONDS)
        terminal.type(COUNT)
        terminal.expect(r"^300\r?$", BOOT_SECONDS)

        # A host whose certificate is for other VMs does not get it, and nothing is lost by the attempt.
        refused = move.migrate(move.target("db", short_path / "others"))
        assert refused.returncode == 1
        assert "the certificate is for VMs db, not for VM 'web-1'" in refused.stderr
        assert "running" in move.state(stack.services["cpu"])

        target = move.target("web-*", short_path / "there")
        moved = move.migrate(target)
        assert moved.returncode == 0, moved.stderr
        assert f"{VM} runs at {there.address}:" in moved.stdout
        stack.services.pop("cpu").end()  # The first host's is not needed any more.
        count_on(terminal)
        terminal.type("echo typed $((40 + 2)) on $(nproc)\n")
        terminal.expect(r"^typed 42 on 1\r?$")
        status = move.state(target)
        assert "running" in status
        attached = [line for line in status.splitlines() if " attached " in line]
        assert len(attached) == 3
        assert all(f"{here.address}:" in line and "maps RAM" not in line for line in attached), status
