# SPDX-License-Identifier: GPL-2.0-or-later
"""Backend.serve(): a back end in one call, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from splitvisor.net.channels import open_channel
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from tests.guests.harness import ROOT, STEP_SECONDS

COMMAND = [sys.executable, "-m", "examples.echo_device.echo_device"]


class Served(NamedTuple):
    process: subprocess.Popen[bytes]
    ready: dict[str, object]
    address: str


@pytest.fixture
def served(short_path: Path) -> Iterator[Served]:
    address = f"unix:{short_path}/echo.sock"
    read, write = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "--listen", address, "--ready-fd", str(write)], cwd=ROOT, pass_fds=(write,), stderr=subprocess.PIPE
    )
    os.close(write)
    with open(read, "rb") as file:
        yield Served(process, json.loads(file.readline()), address)
    process.kill()
    process.communicate()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=STEP_SECONDS, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_it_has_health_and_reflection_and_ends_with_sigterm(served: Served) -> None:
    expected = {"service": "echo", "pid": served.process.pid, "addresses": [served.address]}
    assert served.ready | expected == served.ready
    with open_channel(served.address) as channel:
        request = health_pb2.HealthCheckRequest(service="splitvisor.trap.v1.TrapService")
        health = health_pb2_grpc.HealthStub(channel).Check(request, timeout=STEP_SECONDS)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([listing]), timeout=STEP_SECONDS)
        names = {service.name for service in next(answers).list_services_response.service}
        assert "splitvisor.trap.v1.TrapService" in names
    served.process.send_signal(signal.SIGTERM)
    _, errors = served.process.communicate(timeout=STEP_SECONDS)
    assert served.process.returncode == 0
    first = json.loads(errors.splitlines()[0])
    assert first["event"] == "listening"
    assert first["service"] == "echo"


@pytest.mark.parametrize("address", ["nonsense", "unix:/nonexistent/echo.sock"])
def test_an_address_that_cannot_be_is_one_line_and_status_2(address: str) -> None:
    done = run("--listen", address)
    assert done.returncode == 2
    assert done.stderr.startswith(f"echo_device.py: {address}: ")
    assert done.stderr.count("\n") == 1


def test_help_tells_its_own_name_and_where_it_listens(short_path: Path) -> None:
    done = run("--help", XDG_RUNTIME_DIR=str(short_path))
    assert done.returncode == 0
    assert "usage: echo_device.py " in done.stdout
    assert "Run echo: a back end of Splitvisor." in done.stdout
    assert "default: echo.sock in splitvisor-services-UID" in " ".join(done.stdout.split())


def test_a_hostile_peer_gets_a_status_and_the_service_lives(served: Served) -> None:
    with open_channel(served.address) as channel:
        attach = trap_pb2_grpc.TrapServiceStub(channel).Attach
        hellos = (
            pb.Hello(vm="x", beginning=pb.BEGINNING_RUNNING, vcpus=9, ram_bytes=4096),
            pb.Hello(vm="x", beginning=pb.BEGINNING_RUNNING, vcpus=1),
            pb.Hello(vm="x", beginning=pb.BEGINNING_RUNNING, vcpus=1, ram_bytes=1 << 40),
            pb.Hello(vm="../x", beginning=pb.BEGINNING_RUNNING, vcpus=1, ram_bytes=4096),
        )
        for first in (pb.AttachRequest(), *(pb.AttachRequest(hello=hello) for hello in hellos)):
            with pytest.raises(grpc.RpcError) as raised:
                list(attach(iter([first]), timeout=STEP_SECONDS))
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.process.poll() is None
