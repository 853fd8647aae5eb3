# SPDX-License-Identifier: GPL-2.0-or-later
"""MachineService of a real cpu_service, with real back ends and the demo guest."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from splitvisor.errors.status import problem_in
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc, trap_pb2
from tests.services import Service

SECONDS = 30.0
BACKENDS = {"hcall": "hcall_service", "vio": "vio_service", "of-client": "of_client_service"}

Stub = machine_pb2_grpc.MachineServiceStub


@pytest.fixture
def stub(services: dict[str, Service]) -> Iterator[Stub]:
    with grpc.insecure_channel(services["cpu"].address) as channel:
        yield machine_pb2_grpc.MachineServiceStub(channel)


def config(services: dict[str, Service], **changes: object) -> pb.MachineConfig:
    """The demo guest on these services."""
    settings: dict[str, object] = {
        "name": "demo",
        "memory_mib": 256,
        "vcpus": 1,
        "devices": [trap_pb2.DeviceSpec(kind="vty")],
        "backends": [pb.BackendAddress(name=name, address=services[flag].address) for flag, name in BACKENDS.items()],
    }
    return pb.MachineConfig(**{**settings, **changes})  # type: ignore[arg-type]  # any field


def start(stub: Stub, machine: pb.MachineConfig) -> int:
    incarnation: int = stub.StartMachine(pb.StartMachineRequest(config=machine), timeout=SECONDS).incarnation
    return incarnation


def status(stub: Stub) -> pb.GetStatusResponse:
    return stub.GetStatus(pb.GetStatusRequest(vm="demo"), timeout=SECONDS)


def machines(stub: Stub) -> list[tuple[str, int, int]]:
    found = stub.ListMachines(pb.ListMachinesRequest(), timeout=SECONDS).machines
    return [(each.vm, each.incarnation, each.state) for each in found]


def calls(stub: Stub) -> int:
    return sum(call.count for call in status(stub).calls)


def test_a_machine_runs_pauses_resets_and_stops(stub: Stub, services: dict[str, Service]) -> None:
    assert machines(stub) == []
    incarnation = start(stub, config(services))
    running = status(stub)
    assert (running.vm, running.incarnation, running.state, running.resets) == ("demo", incarnation, pb.MACHINE_STATE_RUNNING, 1)
    assert machines(stub) == [("demo", incarnation, pb.MACHINE_STATE_RUNNING)]
    assert {backend.name for backend in running.backends if backend.attached and backend.ram_mapped} == set(BACKENDS.values())

    stub.PauseMachine(pb.PauseMachineRequest(vm="demo"), timeout=SECONDS)
    assert status(stub).state == pb.MACHINE_STATE_PAUSED
    stub.ResumeMachine(pb.ResumeMachineRequest(vm="demo"), timeout=SECONDS)
    assert status(stub).state == pb.MACHINE_STATE_RUNNING

    before = calls(stub)
    stub.ResetMachine(pb.ResetMachineRequest(vm="demo"), timeout=SECONDS)
    deadline = time.monotonic() + SECONDS
    while (status(stub).resets, calls(stub) > before) != (2, True):
        assert time.monotonic() < deadline, "the guest did not start anew"

    stub.StopMachine(pb.StopMachineRequest(vm="demo"), timeout=SECONDS)
    assert status(stub).state == pb.MACHINE_STATE_STOPPED


def test_a_watcher_hears_of_every_state(stub: Stub, services: dict[str, Service]) -> None:
    events = stub.WatchEvents(pb.WatchEventsRequest(vm="demo"), timeout=SECONDS)
    first = next(iter(events))
    assert (first.incarnation, first.state.state) == (0, pb.MACHINE_STATE_NONE)
    incarnation = start(stub, config(services))
    stub.StopMachine(pb.StopMachineRequest(vm="demo"), timeout=SECONDS)
    heard = list(events)
    assert {event.incarnation for event in heard} == {incarnation}
    states = [event.state.state for event in heard if event.HasField("state")]
    assert states == [pb.MACHINE_STATE_RUNNING, pb.MACHINE_STATE_STOPPED]
    assert [event.progress.step for event in heard if event.HasField("progress")] == ["attaching back ends", "loading the guest"]


def test_one_cpu_service_has_one_machine(stub: Stub, services: dict[str, Service]) -> None:
    start(stub, config(services))
    with pytest.raises(grpc.RpcError) as refused:
        start(stub, config(services, name="another"))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "'demo'" in str(refused.value.details())
    stub.StopMachine(pb.StopMachineRequest(vm="demo"), timeout=SECONDS)
    start(stub, config(services, name="another"))
    assert [vm for vm, _, _ in machines(stub)] == ["another"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": "Not A Name"}, "name"),
        ({"memory_mib": 100}, "memory_mib"),
        ({"vcpus": 9}, "vcpus"),
        ({"append": "x" * 2048}, "append"),
        ({"boot": ["disk", "disk"]}, "boot"),
        ({"boot": ["disc"]}, "boot"),
        ({"boot": ["disk"], "kernel": "vmlinux"}, "boot"),
        ({"backends": []}, "backends"),
        ({"backends": [pb.BackendAddress(name="far", address="192.0.2.1:7000")]}, "backends"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_key(
    stub: Stub, services: dict[str, Service], changes: dict[str, object], key: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        start(stub, config(services, **changes))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(refused.value.details()).startswith(f"{key}:")
    assert machines(stub) == []


def test_guest_ram_that_has_no_place_is_told_with_its_directory(
    stub: Stub, services: dict[str, Service], short_path: Path
) -> None:
    """The limit of a file's size stands for the limit of a disk's: both fail the call that makes the file."""
    pid = services["cpu"].process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, hard))
    with pytest.raises(grpc.RpcError) as refused:
        start(stub, config(services))
    problem = problem_in(refused.value)
    assert (problem.reason, problem.what) == ("NO_MEMORY", f"guest RAM: 256 MiB in {short_path}: File too large")
    assert list(short_path.glob("*.ram")) == [], "nothing is left of it"


def test_two_back_ends_that_claim_the_same_calls_are_both_named(stub: Stub, services: dict[str, Service]) -> None:
    twice = [
        pb.BackendAddress(name="first", address=services["hcall"].address),
        pb.BackendAddress(name="second", address=services["hcall"].address),
    ]
    with pytest.raises(grpc.RpcError) as refused:
        start(stub, config(services, backends=twice))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "first" in str(refused.value.details())
    assert "second" in str(refused.value.details())


def every_call(stub: Stub, vm: str, incarnation: int) -> dict[str, grpc.RpcError]:
    """How each call about a machine is refused."""
    refused = {}
    for name in ("Pause", "Resume", "Reset", "Stop", "Save", "Migrate", "GetStatus", "WatchTraps"):
        rpc = name if name in ("GetStatus", "WatchTraps") else f"{name}Machine"
        request = getattr(pb, f"{rpc}Request")(vm=vm, incarnation=incarnation)
        with pytest.raises(grpc.RpcError) as refusal:
            list(getattr(stub, rpc)(request, timeout=SECONDS))  # Streams are refused by their first response.
        refused[rpc] = refusal.value
    return refused


def test_control_without_a_machine_says_what_to_do(stub: Stub) -> None:
    for refused in every_call(stub, "demo", 0).values():
        assert refused.code() is grpc.StatusCode.NOT_FOUND
        assert "`splitvisor vm start demo`" in str(refused.details())


def test_a_stale_address_changes_nothing(stub: Stub, services: dict[str, Service]) -> None:
    """Another VM's machine is at the address now: nothing that was meant for the old one reaches it."""
    start(stub, config(services, name="another"))
    [before] = machines(stub)
    for refused in every_call(stub, "demo", 0).values():
        assert refused.code() is grpc.StatusCode.NOT_FOUND
        assert "no machine 'demo' here" in str(refused.details())
        assert "another" not in str(refused.details())
    assert machines(stub) == [before]
    assert before[2] == pb.MACHINE_STATE_RUNNING


def test_an_earlier_life_of_a_machine_is_not_the_present_one(stub: Stub, services: dict[str, Service]) -> None:
    first = start(stub, config(services))
    stub.StopMachine(pb.StopMachineRequest(vm="demo", incarnation=first), timeout=SECONDS)
    second = start(stub, config(services))
    assert second > first
    for refused in every_call(stub, "demo", first).values():
        assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "'demo' was started again" in str(refused.details())
    with pytest.raises(grpc.RpcError) as watched:
        list(stub.WatchEvents(pb.WatchEventsRequest(vm="demo", incarnation=first), timeout=SECONDS))
    assert watched.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert machines(stub) == [("demo", second, pb.MACHINE_STATE_RUNNING)]
    stub.StopMachine(pb.StopMachineRequest(vm="demo", incarnation=second), timeout=SECONDS)
    assert status(stub).state == pb.MACHINE_STATE_STOPPED


def test_a_watcher_hears_of_its_own_vm_only(stub: Stub, services: dict[str, Service]) -> None:
    watched = iter(stub.WatchEvents(pb.WatchEventsRequest(vm="demo"), timeout=SECONDS))
    assert next(watched).state.state == pb.MACHINE_STATE_NONE
    start(stub, config(services, name="another"))
    stub.StopMachine(pb.StopMachineRequest(vm="another"), timeout=SECONDS)
    incarnation = start(stub, config(services))
    assert next(watched).incarnation == incarnation
