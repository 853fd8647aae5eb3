# SPDX-License-Identifier: GPL-2.0-or-later
"""Each service as a real process: it listens, tells so, answers health and reflection, and ends as asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from splitvisor.access.identity import Role
from splitvisor.service.names import SERVICE_NAMES, ServiceName
from tests.certificates import Authority

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE = 20.0


@dataclass
class Running:
    """A service process."""

    process: subprocess.Popen[bytes]
    ready: IO[bytes]
    parent: int
    """Closing it tells the service that its parent has ended."""

    def wait_ready(self) -> list[str]:
        notice = json.loads(self.ready.readline())
        assert notice["pid"] == self.process.pid
        addresses: list[str] = notice["addresses"]
        return addresses


Start = Callable[..., Running]


def own_options(name: ServiceName, short_path: Path) -> list[str]:
    return {
        "cpu": ["--ram-dir", str(short_path)],
        "hcall": ["--store", str(short_path / "trees.sqlite")],
        "of-client": ["--device-tree", f"unix:{short_path}/hcall.sock"],
    }.get(name.command, [])


@pytest.fixture
def start(short_path: Path) -> Iterator[Start]:
    running: list[Running] = []

    def start(name: ServiceName, *arguments: str) -> Running:
        ready_read, ready_write = os.pipe()
        parent_read, parent_write = os.pipe()
        command = [
            sys.executable, "-m", "splitvisor.service.main", name.command, "--ready-fd", str(ready_write),
            "--parent-fd", str(parent_read), *own_options(name, short_path), *arguments,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=(ready_write, parent_read), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.close(ready_write)
        os.close(parent_read)
        running.append(Running(process, os.fdopen(ready_read, "rb"), parent_write))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()
        each.ready.close()
        if each.parent >= 0:
            os.close(each.parent)


@pytest.mark.parametrize("name", SERVICE_NAMES, ids=lambda name: name.package)
def test_a_service_answers_health_and_reflection_and_ends_with_sigterm(start: Start, short_path: Path, name: ServiceName) -> None:
    service = start(name, "--listen", f"unix:{short_path}/s.sock", "--health", "127.0.0.1:0")
    unix, loopback = service.wait_ready()
    assert unix == f"unix:{short_path}/s.sock"
    services = set(name.load().SERVICES)
    with grpc.insecure_channel(unix) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service_name in ("", *services):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service_name), timeout=DEADLINE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [listing] = reflection.ServerReflectionInfo(iter([request]), timeout=DEADLINE)
        assert services < {item.name for item in listing.list_services_response.service}
    with grpc.insecure_channel(loopback) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
    service.process.send_signal(signal.SIGTERM)
    _, errors = service.process.communicate(timeout=DEADLINE)
    assert service.process.returncode == 0
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    assert {line["service"] for line in lines} == {name.package}
    assert lines[0]["event"] == "listening"


@pytest.mark.parametrize("name", SERVICE_NAMES, ids=lambda name: name.package)
def test_a_service_ends_with_its_parent(start: Start, short_path: Path, name: ServiceName) -> None:
    service = start(name, "--listen", f"unix:{short_path}/s.sock")
    service.wait_ready()
    os.close(service.parent)
    service.parent = -1
    assert service.process.wait(DEADLINE) == 0


@pytest.mark.parametrize(
    ("address", "reason"),
    [("0.0.0.0:0", "plaintext"), ("unix:/nonexistent/x.sock", "not a directory"), ("here", "not an address")],
)
def test_an_address_that_may_not_be_listened_at_is_one_line_and_status_2(start: Start, address: str, reason: str) -> None:
    service = start(SERVICE_NAMES[2], "--listen", address)
    _, errors = service.process.communicate(timeout=DEADLINE)
    assert service.process.returncode == 2
    assert reason in errors.decode()
    assert len(errors.decode().splitlines()) == 1


def test_a_service_takes_no_address_of_one_that_runs_and_the_one_of_a_killed_one(start: Start, short_path: Path) -> None:
    name, address = SERVICE_NAMES[2], f"unix:{short_path}/a.sock"
    first = start(name, "--listen", address)
    assert first.wait_ready() == [address]
    second = start(name, "--listen", address)
    _, errors = second.process.communicate(timeout=DEADLINE)
    assert second.process.returncode == 2
    assert errors.decode().splitlines() == [
        f"{name.program}: {address}: another process listens there; end it, or give another path"
    ]
    assert (short_path / "a.sock").is_socket()
    first.process.kill()
    first.process.wait(DEADLINE)
    assert start(name, "--listen", address).wait_ready() == [address]


def test_a_file_where_a_socket_is_to_be_stays(start: Start, short_path: Path) -> None:
    path = short_path / "mine"
    path.write_text("mine")
    service = start(SERVICE_NAMES[2], "--listen", f"unix:{path}")
    _, errors = service.process.communicate(timeout=DEADLINE)
    assert service.process.returncode == 2
    assert "it is a regular file, not a socket, so it is not replaced" in errors.decode()
    assert path.read_text() == "mine"


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key", "--tls-ca"])
def test_a_pipe_as_a_certificate_is_one_line_at_once(start: Start, short_path: Path, flag: str) -> None:
    authority = Authority(short_path / "ca")
    pipe = short_path / "pipe"
    os.mkfifo(pipe)
    directory = authority.issue(Role.CPU)
    service = start(SERVICE_NAMES[2], "--listen", "tls:127.0.0.1:0", "--tls", str(directory), flag, str(pipe))
    _, errors = service.process.communicate(timeout=DEADLINE)
    assert service.process.returncode == 2
    assert f"{pipe}: is not a regular file but a pipe, so no certificate or key" in errors.decode()
    assert len(errors.decode().splitlines()) == 1
