# SPDX-License-Identifier: GPL-2.0-or-later
"""Back ends are killed while Debian runs: the guest lives on, and says and hears everything."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from splitvisor.guests.fetch import GuestError, fetch, resolve
from splitvisor.rpc import machine_pb2, machine_pb2_grpc
from tests.guests.harness import BOOT_SECONDS, STEP_SECONDS, Console
from tests.services import Service

COUNT = 150


@pytest.fixture
def console(services: dict[str, Service], short_path: Path) -> Iterator[Console]:
    """Debian's shell on services that outlive the run."""
    try:
        fetch(print)
    except GuestError as error:
        pytest.skip(f"no real guests: {error}")
    connect = ",".join(f"{name}={service.address}" for name, service in services.items())
    kernel, initrd = str(resolve("kernel", "debian")), str(resolve("initrd", "debian"))
    run = Console(("--connect", connect, "--kernel", kernel, "--initrd", initrd, "--append", "console=hvc0"), short_path)
    yield run
    run.close()


def wait_until_lost(backend: str, cpu: Service) -> None:
    """Wait until cpu_service has noticed that a back end does not answer."""
    deadline = time.monotonic() + STEP_SECONDS
    with grpc.insecure_channel(cpu.address) as channel:
        stub = machine_pb2_grpc.MachineServiceStub(channel)
        while time.monotonic() < deadline:
            status = stub.GetStatus(machine_pb2.GetStatusRequest(vm="guest"), timeout=STEP_SECONDS)
            if not next(known.attached for known in status.backends if known.name == backend):
                return
    raise AssertionError(f"{backend} stands still and cpu_service did not notice")


def test_the_guest_outlives_every_back_end(console: Console, services: dict[str, Service]) -> None:
    console.expect("guest# ", BOOT_SECONDS)
    # vio_service is killed while the guest listens: what a console service has shown nobody yet dies with it.
    console.type(f"for i in $(seq 1 {COUNT}); do echo line $i; [ $i = 10 ] && read go; sleep 0.05; done; echo all said\n")
    for number, name in ((10, "vio"), (60, "hcall"), (100, "of-client")):
        console.expect(rf"^line {number}\r?\n")  # The whole line: killed within, what it has not acknowledged is said again.
        services[name].kill()
        services[name].start()
        if name == "vio":
            console.type("\n")
    console.expect(r"^all said\r?$", BOOT_SECONDS)
    said = [line.strip() for line in console.text.splitlines()]
    assert [line for line in said if line.startswith("line ")] == [f"line {number}" for number in range(1, COUNT + 1)]

    console.type("echo heard $((6 * 7))\n")
    console.expect(r"^heard 42\r?$")
    console.type("busybox poweroff -f\n")
    assert console.wait(BOOT_SECONDS) == 0
    reconnects = {backend["name"]: backend["reconnects"] for backend in console.report()["backends"]}
    assert all(reconnects[name] >= 1 for name in ("vio_service", "hcall_service", "of_client_service"))


def test_a_back_end_that_stands_still_delays_the_guest_and_loses_nothing(console: Console, services: dict[str, Service]) -> None:
    console.expect("guest# ", BOOT_SECONDS)
    console.type(f"for i in $(seq 1 {COUNT}); do echo line $i; done; echo all said\n")
    console.expect(r"^line 5\r?$")
    vio = services["vio"].process
    vio.send_signal(signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, vio.pid, os.WSTOPPED)
        wait_until_lost("vio_service", services["cpu"])
    finally:
        vio.send_signal(signal.SIGCONT)
    console.expect(r"^all said\r?$", BOOT_SECONDS)
    said = [line.strip() for line in console.text.splitlines()]
    assert [line for line in said if line.startswith("line ")] == [f"line {number}" for number in range(1, COUNT + 1)]
    console.type("busybox poweroff -f\n")
    assert console.wait(BOOT_SECONDS) == 0
