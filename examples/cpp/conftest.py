# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the programs share: the build, and a cpu_service that a test plays."""

from __future__ import annotations

import queue
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from splitvisor.net.channels import open_channel
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.testing import RunningProgram

HERE = Path(__file__).parent
TOOLS = ("g++", "make", "pkg-config", "protoc", "grpc_cpp_plugin")
BUILD_S = 280
STREAM_S = 30


@pytest.fixture(scope="session")
def built() -> Path:
    """The directory with the programs, built once; 20 s of a processor."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not missing and subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode:
        missing = ["libgrpc++-dev", "libprotobuf-dev"]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)}: apt-get install g++ make pkg-config libgrpc++-dev libprotobuf-dev "
            "protobuf-compiler protobuf-compiler-grpc"
        )
    made = subprocess.run(["make", "-j2"], cwd=HERE, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert made.returncode == 0, made.stderr
    return HERE / "build"


class Connection:
    """One connection of a cpu_service that a test plays."""

    def __init__(self, channel: grpc.Channel, **hello: Any) -> None:
        self._requests: queue.SimpleQueue[pb.AttachRequest | None] = queue.SimpleQueue()
        self.send(
            hello=pb.Hello(
                **{"vm": "played", "incarnation": 1, "vcpus": 1, "ram_bytes": 1 << 20, "beginning": pb.BEGINNING_RUNNING, **hello}
            )
        )
        attach = trap_pb2_grpc.TrapServiceStub(channel).Attach
        self._responses = attach(iter(self._requests.get, None), timeout=STREAM_S)

    def send(self, **message: Any) -> None:
        self._requests.put(pb.AttachRequest(**message))

    def receive(self) -> pb.AttachResponse:
        return next(iter(self._responses))

    def fails_with(self) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as raised:
            list(self._responses)
        return raised.value.code()

    def end(self) -> None:
        self._requests.put(None)
        self._responses.cancel()


Connect = Callable[..., Connection]
"""Given fields of the hello, a connection; all are ended with the test."""


@pytest.fixture
def connect(backend: RunningProgram) -> Iterator[Connect]:
    connections = []

    def make(**hello: Any) -> Connection:
        connections.append(Connection(channel, **hello))
        return connections[-1]

    with open_channel(backend.address) as channel:
        yield make
        for connection in connections:
            connection.end()
