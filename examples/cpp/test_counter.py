# SPDX-License-Identifier: GPL-2.0-or-later
"""The counter in C++, built here and used by a guest."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from examples.cpp.conftest import Connect
from splitvisor.net.channels import open_channel
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.testing import SCRIPTED, BackendProgram, RunningMachine, RunningProgram, ScriptedGuest

pytest_plugins = ["splitvisor.testing"]

H_TALLY, H_TALLY_WORDS = 0xF130, 0xF134


@pytest.fixture
def backends(built: Path) -> Sequence[BackendProgram]:
    return [BackendProgram("counter_cpp", [built / "counter"])]


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


def test_a_reset_starts_it_from_zero(guest: ScriptedGuest, machine: RunningMachine) -> None:
    guest.hcall(H_TALLY, 7)
    machine.reset()
    assert guest.hcall(H_TALLY, 1).outputs[0] == 1


def test_a_call_that_is_sent_again_is_answered_again_and_done_once(connect: Connect) -> None:
    connections = []
    for _ in range(2):  # The second takes over while the first is still there.
        connection = connect()
        connections.append(connection)
        assert connection.receive().offer.backend == "counter_cpp"
        connection.send(trap=pb.Trap(vcpu=0, sequence=1, route=0, arguments=[7]))
        assert list(connection.receive().reply.outputs) == [7]
    assert connections[0].fails_with() is grpc.StatusCode.CANCELLED
    connection.send(trap=pb.Trap(vcpu=0, sequence=2, route=0, arguments=[7]))
    assert list(connection.receive().reply.outputs) == [14]


def test_a_connection_that_is_lost_while_it_reads_memory_leaves_the_call_to_the_next(connect: Connect) -> None:
    trap = pb.Trap(vcpu=0, sequence=1, route=1, arguments=[0x1000, 1])
    for is_last in (False, True):
        connection = connect(incarnation=2)
        connection.receive()
        connection.send(trap=trap)
        read = connection.receive().memory_read
        assert (read.range.address, read.range.length) == (0x1000, 4)
        if is_last:
            connection.send(memory_result=pb.MemoryResult(id=read.id, ok=True, data=b"\0\0\0\5"))
            assert list(connection.receive().reply.outputs) == [5]
        connection.end()


def test_a_process_that_was_started_again_takes_calls_from_where_the_last_one_ended(connect: Connect) -> None:
    connection = connect(positions=[pb.VcpuPosition(vcpu=0, sequence=6)])
    connection.receive()
    connection.send(trap=pb.Trap(vcpu=0, sequence=8, skipped=1, route=0, arguments=[7]))
    assert list(connection.receive().reply.outputs) == [7], "7 was given up"
    connection.send(trap=pb.Trap(vcpu=0, sequence=10, route=0, arguments=[7]))
    assert connection.fails_with() is grpc.StatusCode.INVALID_ARGUMENT, "9 is missing"


@pytest.mark.parametrize(
    "message",
    [
        {"memory_result": pb.MemoryResult(id=1)},
        {"trap": pb.Trap(sequence=1, route=9)},
        {"trap": pb.Trap(sequence=1, route=0, arguments=[1, 2])},
        {"posted": pb.PostedBatch(traps=[pb.Trap(sequence=1, route=9)])},
        {"hello": pb.Hello(vm="again")},
    ],
)
def test_what_breaks_the_contract_ends_the_connection_only(connect: Connect, message: dict[str, Any]) -> None:
    connection = connect()
    connection.receive()
    connection.send(**message)
    assert connection.fails_with() is grpc.StatusCode.INVALID_ARGUMENT
    assert connect(incarnation=0).fails_with() is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"beginning": pb.BEGINNING_RESTORED, "features": [pb.FEATURE_SAVED_STATE]}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"features": [99]}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"beginning": pb.BEGINNING_UNSPECIFIED}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_hello_that_relies_on_what_it_does_not_know_is_refused(
    connect: Connect, hello: dict[str, Any], code: grpc.StatusCode
) -> None:
    assert connect(**hello).fails_with() is code


def test_it_is_a_good_service(backend: RunningProgram) -> None:
    with open_channel(backend.address) as channel:
        request = health_pb2.HealthCheckRequest(service="splitvisor.trap.v1.TrapService")
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    assert backend.stop() == os.EX_OK
