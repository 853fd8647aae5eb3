# SPDX-License-Identifier: GPL-2.0-or-later
"""WatchTraps, `splitvisor trace` and `splitvisor top` on real services with the demo guest."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from splitvisor.net.times import seconds
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc
from tests.component.trap_client import wait_until
from tests.demo_machine import SECONDS, machine_stub, start_demo
from tests.guests.harness import ROOT
from tests.services import Service, start_services

Stub = machine_pb2_grpc.MachineServiceStub


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, Service]]:
    """The four services, for all tests here."""
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as directory:
        running = start_services(Path(directory))
        yield running
        for service in running.values():
            service.end()


@pytest.fixture
def stub(services: dict[str, Service]) -> Iterator[Stub]:
    """Control of a machine that runs the demo guest; a new one when a test has stopped the last."""
    with machine_stub(services) as stub:
        machines = stub.ListMachines(pb.ListMachinesRequest(), timeout=SECONDS).machines
        if pb.MACHINE_STATE_RUNNING not in {machine.state for machine in machines}:
            start_demo(stub, services)
        yield stub


def reset(stub: Stub) -> None:
    stub.ResetMachine(pb.ResetMachineRequest(vm="demo"), timeout=SECONDS)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "splitvisor", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_a_boot_is_seen_from_the_first_call_to_the_end_of_the_machine(stub: Stub) -> None:
    responses = stub.WatchTraps(pb.WatchTrapsRequest(vm="demo"), timeout=SECONDS)
    responses.initial_metadata()
    reset(stub)
    traps: list[pb.WatchedTrap] = []
    for response in responses:
        assert response.missed == 0
        traps += response.traps
        if {"finddevice", "write", "get-time-of-day"} <= {trap.name for trap in traps}:
            break
    finddevice = next(trap for trap in traps if trap.name == "finddevice")
    assert finddevice.kind == pb.WATCHED_KIND_CLIENT_SERVICE
    assert finddevice.owner == "of_client_service"
    assert finddevice.strings[0].startswith(b"/")
    clock = next(trap for trap in traps if trap.name == "get-time-of-day")
    assert (clock.kind, clock.owner, clock.failed) == (pb.WATCHED_KIND_RTAS, "hcall_service", False)
    assert clock.returns[1] >= 2026
    times = [trap.time_ns for trap in traps]
    assert times == sorted(times)

    stub.StopMachine(pb.StopMachineRequest(vm="demo"), timeout=SECONDS)
    for response in responses:
        assert response.missed == 0
    assert responses.code() is grpc.StatusCode.OK, "the stream ends with the machine"


def test_watchers_are_bounded_and_make_room_when_they_go(stub: Stub) -> None:
    streams = [stub.WatchTraps(pb.WatchTrapsRequest(vm="demo"), timeout=SECONDS) for _ in range(8)]
    for stream in streams:
        stream.initial_metadata()
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.WatchTraps(pb.WatchTrapsRequest(vm="demo"), timeout=SECONDS))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in streams:
        stream.cancel()

    def accepted() -> bool:
        stream = stub.WatchTraps(pb.WatchTrapsRequest(vm="demo", local=True), timeout=SECONDS)
        try:
            reset(stub)
            return bool(next(iter(stream)).traps)
        except grpc.RpcError:
            return False
        finally:
            stream.cancel()

    wait_until(accepted, "there is room again")


def test_a_wrong_request_is_refused(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.WatchTraps(pb.WatchTrapsRequest(vm="demo", calls=["x" * 100]), timeout=SECONDS))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_status_tells_what_happened(stub: Stub) -> None:
    def status() -> pb.GetStatusResponse:
        return stub.GetStatus(pb.GetStatusRequest(vm="demo"), timeout=SECONDS)

    def client_calls(found: pb.GetStatusResponse) -> pb.CallCount:
        return next(call for call in found.calls if call.name == "H_OF_CLIENT")

    def answered(client: pb.CallCount) -> int:
        return sum(sum(latency.counts) for latency in client.latencies)

    wait_until(lambda: any(call.name == "H_CEDE" for call in status().calls), "the guest waits for input")
    # A call is counted when it is made, and timed when it is answered.
    wait_until(lambda: answered(client := client_calls(status())) == client.count > 0, "all calls have an answer")
    found = status()
    client = client_calls(found)
    assert client.seconds == pytest.approx(sum(latency.seconds for latency in client.latencies))
    assert all(len(latency.counts) == len(found.latency_bounds) + 1 for latency in client.latencies)
    assert found.ram_bytes == 256 << 20
    assert 0 < seconds(found.activity.cpu) < SECONDS
    assert {backend.name: backend.posted_bytes > 0 for backend in found.backends}["vio_service"]
    wait_until(lambda: seconds(status().activity.idle) > 0, "idling is counted")
    stub.StopMachine(pb.StopMachineRequest(vm="demo"), timeout=SECONDS)
    assert seconds(status().activity.cpu) >= seconds(found.activity.cpu), "the account outlives the thread"


def boot_until_it_ends(stub: Stub, watching: subprocess.Popen[str]) -> list[str]:
    """Boot again and again, for a boot before it watches goes unseen; return what it wrote."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        reset(stub)
        try:
            return watching.communicate(timeout=1.0)[0].splitlines()
        except subprocess.TimeoutExpired:
            continue
    watching.kill()
    raise AssertionError(f"it did not end, and wrote {watching.communicate()[0]!r}")


def test_trace_shows_calls_as_text_and_as_json(stub: Stub, services: dict[str, Service]) -> None:
    address = services["cpu"].address
    for arguments in (("--call", "finddevice"), ("--call", "WRI*", "--json")):
        watching = subprocess.Popen(
            command("trace", "demo", "--cpu", address, "--count", "2", *arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        lines = boot_until_it_ends(stub, watching)
        assert watching.returncode == 0
        if "--json" in arguments:
            assert [json.loads(line)["call"] for line in lines] == ["write"] * 2
        else:
            assert all(re.search(r' of_client_service +finddevice\(path="/\S*"\) = 0x', line) for line in lines)


def test_trace_ends_after_the_time_asked_for_and_with_the_machine(stub: Stub, services: dict[str, Service]) -> None:
    address = services["cpu"].address
    done = run("trace", "demo", "--cpu", address, "--seconds", "0.3", "--call", "nothing")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    stub.StopMachine(pb.StopMachineRequest(vm="demo"), timeout=SECONDS)
    done = run("trace", "demo", "--cpu", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "splitvisor trace: machine 'demo' has ended\n"


@pytest.mark.parametrize("arguments", [("--call", "x" * 100), ("--cpu", "192.0.2.1:1")])
def test_trace_refuses_what_makes_no_sense_with_status_2(
    stub: Stub, services: dict[str, Service], arguments: tuple[str, ...]
) -> None:
    done = run("trace", "demo", "--cpu", services["cpu"].address, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_top_once_and_as_json(stub: Stub, services: dict[str, Service]) -> None:
    where = ("--cpu", services["cpu"].address, "--vio", services["vio"].address, "--interval", "0.2")
    done = run("top", "demo", "--once", *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo  running" in done.stdout
    assert "H_OF_CLIENT" in done.stdout
    done = run("top", "demo", "--once", "--json", *where)
    found = json.loads(done.stdout)
    assert (found["vm"], found["state"]) == ("demo", "running")
    assert {backend["name"] for backend in found["backends"]} == {"hcall_service", "vio_service", "of_client_service"}
    assert found["consoles"][0]["output_bytes"] > 0
    done = run("top", "demo", *where)
    assert (done.returncode, done.stderr) == (2, "splitvisor top: the output is not a terminal; give --once or --json\n")
    done = run("top", "other", "--once", *where)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("splitvisor top: no machine 'other' here; ")


def test_top_on_a_terminal_ends_with_q(stub: Stub, services: dict[str, Service]) -> None:
    master, slave = pty.openpty()
    arguments = command("top", "demo", "--cpu", services["cpu"].address, "--interval", "0.1")
    process = subprocess.Popen(arguments, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    shown, deadline = b"", time.monotonic() + SECONDS
    try:
        while shown.count(b"H_OF_CLIENT") < 2:
            assert select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0], shown
            shown += os.read(master, 1 << 16)
        os.write(master, b"q")
        while select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                os.read(master, 1 << 16)
            except OSError:  # It has gone.
                break
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
