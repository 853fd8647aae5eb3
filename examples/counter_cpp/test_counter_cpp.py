# SPDX-License-Identifier: GPL-2.0-or-later
"""The back end in C++, built here and used by a guest."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitvisor.channels import open_channel
from splitvisor.papr.codes import H
from splitvisor.testing import SCRIPTED, BackendProgram, RunningMachine, RunningProgram, ScriptedGuest

pytest_plugins = ["splitvisor.testing"]

HERE = Path(__file__).parent
TOOLS = ("g++", "make", "pkg-config", "protoc", "grpc_cpp_plugin")
H_TALLY, H_TALLY_WORDS = 0xF130, 0xF134
BUILD_S = 300


@pytest.fixture(scope="session")
def program() -> BackendProgram:
    """Built once; 20 s of a processor."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not missing and subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode:
        missing = ["libgrpc++-dev", "libprotobuf-dev"]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install g++ make pkg-config libgrpc++-dev libprotobuf-dev "
                    "protobuf-compiler protobuf-compiler-grpc")
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


def test_it_is_a_good_service(backend: RunningProgram) -> None:
    with open_channel(backend.address) as channel:
        request = health_pb2.HealthCheckRequest(service="splitvisor.v1.TrapService")
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    assert backend.stop() == os.EX_OK
