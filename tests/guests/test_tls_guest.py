# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest whose every trap crosses TCP with mutual TLS, RAM included: on this host, and at an address that is not this host's
loopback. Certificates of other VMs get nowhere, and new ones are taken while the guest runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from splitvisor.access.identity import Role
from splitvisor.net.channels import explain, open_channel
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc
from tests.certificates import Authority
from tests.guests.conftest import Run
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.tls_services import TlsService

ADDRESS = "192.0.2.77"
"""Of the documentation's network (RFC 5737), in a network namespace of the test's own."""
GREETING = "Type help for the commands"


class Stack:
    """The four services with certificates, each in a directory of its own, at one host address."""

    def __init__(self, directory: Path, host: str, listen: str, prefix: Sequence[str] = ()) -> None:
        self.authority = Authority(directory / "ca")
        self.directory, self._host, self._listen, self._prefix = directory, host, listen, prefix
        self.operator = self.authority.issue(Role.OPERATOR, "web-*")
        self.services: dict[str, TlsService] = {}
        self.start("hcall", Role.BACKEND, "*", "--store", str(directory / "trees.sqlite"))
        trees = ("--device-tree", self.services["hcall"].address)
        self.start("vio", Role.BACKEND, "*", *trees)
        self.start("of-client", Role.BACKEND, "*", *trees)
        self.start("cpu", Role.CPU, "web-*", "--ram-dir", str(directory))

    def start(self, name: str, role: Role, vms: str, *arguments: str) -> None:
        """Start a service; one that is there ends."""
        if name in self.services:
            self.services.pop(name).end()
        certificate = self.authority.issue(role, vms, name=name, hosts=[self._host])
        self.services[name] = TlsService(name, certificate, *arguments, listen=self._listen, prefix=self._prefix)

    def connect(self) -> tuple[str, ...]:
        """The flags of a run on these services."""
        places = ",".join(f"{name}={service.address}" for name, service in self.services.items())
        return ("--name", "web-1", "--no-shared-memory", "--connect", places)

    def close(self) -> None:
        """End the services."""
        for service in self.services.values():
            service.end()


@contextmanager
def stack_at(directory: Path, host: str, listen: str, prefix: Sequence[str] = ()) -> Iterator[Stack]:
    with ExitStack() as cleanup:
        stack = Stack(directory, host, listen, prefix)
        cleanup.callback(stack.close)
        yield stack


@pytest.fixture
def namespace() -> Iterator[Sequence[str]]:
    """What to put before a command so that it runs in a network namespace that has ADDRESS."""
    if os.getuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("a network namespace needs root, and unshare, nsenter and ip")
    script = f"ip link set lo up && ip address add {ADDRESS}/32 dev lo && echo ready && exec cat"
    pipe = subprocess.PIPE
    with subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdin=pipe, stdout=pipe, stderr=pipe) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            assert holder.stderr is not None
            pytest.skip(f"no network namespace here: {holder.stderr.read().decode().strip()}")
        yield ("nsenter", "--target", str(holder.pid), "--net", "--")
        holder.kill()


def test_a_guest_runs_on_services_beyond_this_host(namespace: Sequence[str], short_path: Path) -> None:
    with stack_at(short_path, ADDRESS, f"{ADDRESS}:0", namespace) as stack:
        assert all(service.address.startswith(f"{ADDRESS}:") for service in stack.services.values())
        command = [*namespace, sys.executable, "-m", "splitvisor", "run", *stack.connect(), "--exit-on", GREETING]

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=STEP_SECONDS, check=False,
            )  # fmt: skip

        done = run("--tls", str(stack.operator))
        assert done.returncode == 0, done.stderr
        assert GREETING in done.stdout
        done = run()
        assert done.returncode == 2
        assert "TLS needs a certificate" in done.stderr
        done = run("--tls", str(stack.authority.issue(Role.OPERATOR, "db", name="db")))
        assert done.returncode == 4
        assert "the certificate is for VMs db, not for VM 'web-1'" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_other_vms_certificates_get_nowhere_and_new_ones_are_taken(
    run: Run, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stack_at(short_path, "127.0.0.1", "tls:127.0.0.1:0") as stack:
        console = run(*stack.connect(), "--tls", str(stack.operator))
        console.expect(GREETING)
        console.expect("> ")
        assert status(stack, stack.operator, monkeypatch) == "web-1"
        other = stack.authority.issue(Role.OPERATOR, "db", name="db")
        assert status(stack, other, monkeypatch) == "GetStatus: the certificate is for VMs db, not for VM 'web-1'"
        for name, role, vms in (("hcall", Role.BACKEND, "*"), ("vio", Role.BACKEND, "*"), ("cpu", Role.CPU, "web-1")):
            stack.authority.issue(role, vms, name=name, hosts=["127.0.0.1"])
        stack.authority.issue(Role.OPERATOR, "web-1", name="operator")
        assert status(stack, stack.operator, monkeypatch) == "web-1"
        console.type("help\r")
        console.expect("off")
        console.type("off\r")
        assert console.wait() == 0


def test_a_cpu_service_for_other_vms_is_refused_by_the_back_ends(run: Run, short_path: Path) -> None:
    with stack_at(short_path, "127.0.0.1", "tls:127.0.0.1:0") as stack:
        stack.start("cpu", Role.CPU, "db", "--ram-dir", str(short_path))
        console = run(*stack.connect(), "--tls", str(stack.operator))
        assert console.wait() == 4
        assert console.process.stderr is not None
        [line] = console.process.stderr.read().decode().splitlines()
        assert "permission denied: Attach: the certificate is for VMs db, not for VM 'web-1'" in line


def status(stack: Stack, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The VM that cpu_service says it has, or why it does not say."""
    monkeypatch.setenv("SPLITVISOR_TLS", str(certificate))
    with open_channel(stack.services["cpu"].address) as channel:
        try:
            request = pb.GetStatusRequest(vm="web-1")
            return machine_pb2_grpc.MachineServiceStub(channel).GetStatus(request, timeout=STEP_SECONDS).vm
        except grpc.RpcError as error:
            return explain(error)
