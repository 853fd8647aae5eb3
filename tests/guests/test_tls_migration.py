# SPDX-License-Identifier: GPL-2.0-or-later
"""A printing Debian moves to another host: everything that it needs crosses a network, with mutual TLS. The hosts are network
namespaces with a cable between them, and no way to each other's loopback.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from splitvisor.access.identity import Role
from tests.guests.harness import BOOT_SECONDS, ROOT, Guests
from tests.guests.hosts import Host
from tests.guests.test_snapshots import COUNT, PROMPT, boot, count_on
from tests.guests.test_tls_guest import Stack, stack_at
from tests.terminals import Terminal
from tests.tls_services import TlsService

VM = "web-1"


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
