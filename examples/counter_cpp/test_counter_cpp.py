# SPDX-License-Identifier: GPL-2.0-or-later
"""The back end in C++, built here and used by a guest."""

from __future__ import annotations

import os
import queue
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitvisor.net.channels import open_channel
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.testing import SCRIPTED, BackendProgram, RunningMachine, RunningProgram, ScriptedGuest

pytest_plugins = ["splitvisor.testing"]

HERE = Path(__file__).parent
TOOLS = ("g++", "make", "pkg-config", "protoc", "grpc_cpp_plugin")
H_TALLY, H_TALLY_WORDS = 0xF130, 0xF134
BUILD_S = 280
STREAM_S = 30


@pytest.fixture(scope="session")
def program() -> BackendProgram:
    """Built once; 20 s of a processor."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not missing and subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode:
        missing = ["libgrpc++-dev", "libprotobuf-dev"]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)}: apt-get install g++ make pkg-config libgrpc++-dev libprotobuf-dev "
            "protobuf-compiler protobuf-compiler-grpc"
        )
    built = subprocess.run(["make", "-j2"], cwd=HERE, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert built.returncode == 0, built.stderr
    return BackendProgram("counter_cpp", [HERE / "build/counter"])


@pytest.fixture
def backends(program: BackendProgram) -> Sequence[BackendProgram]:
    return [program]


def test_it_adds_what_the_guest_says(guest: ScriptedGuest) -> None:
    assert [guest.hcall(H_TALLY, amount).outputs[0] for amount in (5, 6, 1 << 63)] == [5, 11, 11 + (1 << 63)]


def test_it_reads_guest_memory(guest: ScriptedGuest) -> None:
    words = guest.place(struct.pack(">3I", 1, 2, 0x8000_0000))
    assert guest.hcall(H_TALLY_WORDS, words, 3) == (H.SUCCESS, (3 + 0x8000_0000, 3, *[0] * 7))


@pytest.mark.parametrize(("address", "count"), [(SCRIPTED.memory - 4, 2), ((1 << 64) - 4, 1), (0, 1 << 19), (0, 1 << 62)])
def test_addresses_outside_ram_change_nothing(guest: ScriptedGuest, address: int, count: int) -> None:
    guest.hcall(H_TALLY, 7)
    assert guest.hcall(H_TALLY_WORDS, address, count).result == H.PARAMETER
    assert guest.rtas("example,tally", returns=2) == (0, 7)


def test_a_guest_outlives_it(guest: ScriptedGuest, backend: RunningProgram, machine: RunningMachine) -> None:
    guest.hcall(H_TALLY, 7)
    backend.kill()
    backend.start()
    assert guest.hcall(H_TALLY, 1).outputs[0] == 1, "its counter went with it"
    [status] = [each for each in machine.status().backends if each.name == "counter_cpp"]
    assert (status.attached, status.reconnects) == (True, 1)


def test_a_reset_starts_anew(guest: ScriptedGuest, machine: RunningMachine) -> None:
    guest.hcall(H_TALLY, 7)
    machine.reset()
    assert guest.hcall(H_TALLY, 1).outputs[0] == 1


class Connection:
    """One connection of a cpu_service that these tests play."""

    def __init__(self, channel: grpc.Channel, incarnation: int = 1) -> None:
        self._requests: queue.SimpleQueue[pb.AttachRequest | None] = queue.SimpleQueue()
        self.send(hello=pb.Hello(vm="played", incarnation=incarnation, vcpus=1, ram_bytes=1 << 20))
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


@pytest.fixture
def channel(backend: RunningProgram) -> Iterator[grpc.Channel]:
    with open_channel(backend.address) as channel:
        yield channel


def test_a_call_that_is_sent_again_is_answered_again_and_done_once(channel: grpc.Channel) -> None:
    connections = []
    for _ in range(2):  # The second takes over while the first is still there.
        connection = Connection(channel)
        connections.append(connection)
        assert connection.receive().offer.backend == "counter_cpp"
        connection.send(trap=pb.Trap(vcpu=0, sequence=1, route=0, arguments=[7]))
        assert list(connection.receive().reply.outputs) == [7]
    assert connections[0].fails_with() is grpc.StatusCode.CANCELLED
    connection.send(trap=pb.Trap(vcpu=0, sequence=2, route=0, arguments=[7]))
    assert list(connection.receive().reply.outputs) == [14]
    for connection in connections:
        connection.end()


def test_a_connection_that_is_lost_while_it_reads_memory_leaves_the_call_to_the_next(channel: grpc.Channel) -> None:
    trap = pb.Trap(vcpu=0, sequence=1, route=1, arguments=[0x1000, 1])
    for incarnation_is_the_same in (False, True):
        connection = Connection(channel, incarnation=2)
        connection.receive()
        connection.send(trap=trap)
        read = connection.receive().memory_read
        assert (read.range.address, read.range.length) == (0x1000, 4)
        if incarnation_is_the_same:
            connection.send(memory_result=pb.MemoryResult(id=read.id, ok=True, data=b"\0\0\0\5"))
            assert list(connection.receive().reply.outputs) == [5]
        connection.end()


@pytest.mark.parametrize(
    "message",
    [
        {"memory_result": pb.MemoryResult(id=1)},
        {"trap": pb.Trap(sequence=1, route=9)},
        {"trap": pb.Trap(sequence=1, route=0, arguments=[1, 2])},
        {"hello": pb.Hello(vm="again")},
    ],
)
def test_what_breaks_the_contract_ends_the_connection_only(channel: grpc.Channel, message: dict[str, Any]) -> None:
    connection = Connection(channel)
    connection.receive()
    connection.send(**message)
    assert connection.fails_with() is grpc.StatusCode.INVALID_ARGUMENT
    older = Connection(channel, incarnation=0)
    assert older.fails_with() is grpc.StatusCode.ALREADY_EXISTS
    connection.end()
    older.end()


def test_it_is_a_good_service(backend: RunningProgram) -> None:
    with open_channel(backend.address) as channel:
        request = health_pb2.HealthCheckRequest(service="splitvisor.trap.v1.TrapService")
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    assert backend.stop() == os.EX_OK
