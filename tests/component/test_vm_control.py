# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm start` and its kin, and `splitvisor health`, on real services."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from splitvisor.cli.app import make_app
from splitvisor.machine.service_addresses import CONNECT_VARIABLE
from splitvisor.service.health import main as health
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.services import Service

Vm = Callable[..., Any]


@pytest.fixture
def vm(services: dict[str, Service], monkeypatch: pytest.MonkeyPatch) -> Vm:
    """Run `splitvisor vm ...` for these services; a VM that is left is stopped by the end of its cpu_service."""
    monkeypatch.setenv(CONNECT_VARIABLE, ",".join(f"{name}={service.address}" for name, service in services.items()))
    runner = CliRunner()
    return lambda *arguments: runner.invoke(make_app(), ["vm", *arguments])


def status(vm: Vm, name: str = "demo") -> dict[str, Any]:
    answer = vm("status", name, "--json")
    assert answer.exit_code == 0, answer.output
    fields: dict[str, Any] = json.loads(answer.output)
    return fields


def background(*arguments: str) -> subprocess.Popen[str]:
    """The command as a process of its own, in this environment."""
    command = [sys.executable, "-m", "splitvisor", "vm", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_vm_is_started_controlled_and_stopped_by_name(vm: Vm) -> None:
    started = vm("start", "demo", "--memory", "256M", "--smp", "2")
    assert (started.exit_code, started.output) == (0, "")
    now = status(vm)
    assert (now["vm"], now["state"], now["resets"]) == ("demo", "running", 1)
    assert {backend["name"] for backend in now["backends"] if backend["attached"]} == {
        "hcall_service", "vio_service", "of_client_service",
    }  # fmt: skip
    for action, state in (("pause", "paused"), ("resume", "running"), ("stop", "stopped")):
        assert vm(action, "demo").exit_code == 0
        assert status(vm)["state"] == state
    text = vm("status", "demo", "--calls", "1").output
    assert text.startswith("demo: stopped")


def test_a_reset_starts_the_guest_anew(vm: Vm) -> None:
    assert vm("start", "demo", "--memory", "256M").exit_code == 0
    with background("wait", "demo") as waiting:
        assert first_line(waiting) == "demo: running\n"
        assert vm("reset", "demo").exit_code == 0
        while status(vm)["resets"] != 2:
            assert waiting.poll() is None
        assert vm("stop", "demo").exit_code == 0
        assert waiting.wait(STEP_SECONDS) == 0
        assert first_line(waiting) == "demo: stopped\n"


def test_an_nmi_is_for_vcpus_that_there_are(vm: Vm) -> None:
    assert vm("start", "demo", "--memory", "256M", "--smp", "2").exit_code == 0
    refused = vm("nmi", "demo", "--vcpu", "2")
    assert (refused.exit_code, "has no vCPU 2; give 0 to 1, or none for all" in refused.output) == (1, True), refused.output
    assert vm("nmi", "demo", "--vcpu", "1").exit_code == 0
    assert status(vm)["state"] == "running", "its second vCPU was never started"
    assert vm("stop", "demo").exit_code == 0
    late = vm("nmi", "demo")
    assert (late.exit_code, "has ended" in late.output) == (1, True), late.output


def test_a_vm_that_runs_is_left_alone_if_asked_and_refused_otherwise(vm: Vm) -> None:
    assert vm("start", "demo", "--memory", "256M").exit_code == 0
    refused = vm("start", "demo")
    assert (refused.exit_code, refused.output) == (2, "splitvisor vm start: machine 'demo' runs here already\n")
    assert vm("start", "demo", "--if-stopped").exit_code == 0
    assert status(vm)["resets"] == 1
    assert vm("stop", "demo").exit_code == 0
    assert vm("start", "demo", "--if-stopped", "--memory", "256M").exit_code == 0
    assert status(vm)["state"] == "running"


def test_waiting_tells_of_back_ends_and_fails_with_cpu_service(vm: Vm, services: dict[str, Service]) -> None:
    with background("start", "demo", "--memory", "256M", "--wait") as waiting:
        assert first_line(waiting) == "demo: running\n"
        services["of-client"].kill()
        assert first_line(waiting) == "demo: of_client_service is lost\n"
        services["of-client"].start()
        assert first_line(waiting) == "demo: of_client_service is attached again\n"
        services["cpu"].kill()
        assert waiting.wait(STEP_SECONDS) == 4
        assert waiting.stderr is not None
        [line] = waiting.stderr.read().splitlines()
        assert line.startswith("splitvisor vm start: ")
    services["cpu"].start()


def test_a_waiter_may_go_and_the_vm_goes_on(vm: Vm) -> None:
    with background("start", "demo", "--memory", "256M", "--wait") as waiting:
        assert first_line(waiting) == "demo: running\n"
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(STEP_SECONDS) == 128 + signal.SIGTERM
    assert status(vm)["state"] == "running"
    late = vm("wait", "demo", "--timeout", "0.05")
    assert (late.exit_code, late.output.splitlines()[-1]) == (124, "splitvisor vm wait: demo did not end within 0.05 s")


BAD: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("status", "demo"), 2, "start it with `splitvisor vm start demo`"),
    (("start", "Not A Name"), 2, "is not a name"),
    (("start", "demo", "--memory", "1"), 2, "is out of range"),
    (("start", "demo", "--kernel", "/nonexistent/vmlinux"), 2, "/nonexistent/vmlinux"),
    (("start", "demo", "--initrd", "/nonexistent/initrd"), 2, "there is no kernel to give it to"),
    (("start", "demo", "--connect", "cpu=unix:/nonexistent"), 2, "no address of hcall, vio, of-client"),
    (("start", "demo", "--cpu", "unix:/tmp/nobody.sock"), 4, "/tmp/nobody.sock"),
    (("pause", "demo", "--cpu", "unix:/tmp/nobody.sock"), 1, "/tmp/nobody.sock"),
)


def test_what_cannot_be_done_is_one_line(vm: Vm) -> None:
    for arguments, code, text in BAD:
        done = vm(*arguments)
        assert (done.exit_code, done.output.count("\n")) == (code, 1), done.output
        assert text in done.output


def test_another_vms_name_is_refused(vm: Vm) -> None:
    assert vm("start", "demo", "--memory", "256M").exit_code == 0
    done = vm("stop", "other")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert done.output.startswith("splitvisor vm stop: no machine 'other' here; ")
    assert status(vm)["state"] == "running"


def test_every_service_is_healthy(services: dict[str, Service]) -> None:
    assert [health([service.address]) for service in services.values()] == [0, 0, 0, 0]
