# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm disks` and `vm nets`, and what `top` shows of them, for a machine on real services."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from splitvisor.cli.app import make_app
from splitvisor.machine.service_addresses import CONNECT_VARIABLE
from splitvisor.rpc import trap_pb2
from tests.component.trap_client import wait_until
from tests.demo_machine import machine_stub, start_demo
from tests.disk_images import raw_image
from tests.services import Service

MIB = 1 << 20
Run = Callable[..., Any]


@pytest.fixture
def splitvisor(services: dict[str, Service], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands for these services."""
    monkeypatch.setenv(CONNECT_VARIABLE, ",".join(f"{name}={service.address}" for name, service in services.items()))
    runner = CliRunner()
    return lambda *arguments: runner.invoke(make_app(), arguments)


def start(services: dict[str, Service], *devices: trap_pb2.DeviceSpec) -> None:
    with machine_stub(services) as stub:
        start_demo(stub, services, devices)


def objects(answer: Any) -> Any:
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.output)


def test_disks_and_networks_are_listed(splitvisor: Run, services: dict[str, Service], tmp_path: Path) -> None:
    image, cd = raw_image(tmp_path / "disk.img", MIB), raw_image(tmp_path / "cd.iso", 2 * MIB)
    options = {"disk0": f"{image},serial=D", "cdrom0": str(cd)}
    lan = trap_pb2.DeviceSpec(kind="l-lan", options={"net": "switch=lab", "mac": "02:00:00:00:00:07"})
    start(services, trap_pb2.DeviceSpec(kind="v-scsi", options=options), lan)
    disk, drive = objects(splitvisor("vm", "disks", "demo", "--json"))
    nothing = {"count": 0, "bytes": 0, "seconds": 0.0}
    assert disk == {
        "disk": "disk0", "unit_address": 0x71000001, "target": 0, "image": str(image), "serial": "D", "bytes": MIB,
        "read_only": False, "errors": 0, "depth": 0, "deepest": 0, "reads": nothing, "writes": nothing, "flushes": nothing,
        "discards": nothing,
    }  # fmt: skip
    assert (drive["disk"], drive["image"], drive["drive"]) == ("cdrom0", str(cd), {"tray_open": False, "locked": False})
    head, first, second = splitvisor("vm", "disks", "demo").output.splitlines()
    assert head.split()[:4] == ["DISK", "ADAPTER", "TARGET", "SIZE"]
    assert first.split()[:4] == ["disk0", "0x71000001", "0", "1.0M"]
    assert second.endswith(str(cd))

    [net] = objects(splitvisor("vm", "nets", "demo", "--json"))
    none = {"frames": 0, "bytes": 0, "dropped": 0}
    assert net == {
        "unit_address": 0x71000002, "mac": "02:00:00:00:00:07", "open": False, "network": "switch=lab", "sent": none,
        "received": none,
    }  # fmt: skip
    assert splitvisor("vm", "nets", "demo").output.splitlines()[1].split()[:3] == ["0x71000002", "02:00:00:00:00:07", "closed"]

    seen = objects(splitvisor("top", "demo", "--once", "--json", "--interval", "0.1"))
    assert [each["disk"] for each in seen["disks"]] == ["0x71000001 disk0", "0x71000001 cdrom0"]
    assert [each["device"] for each in seen["networks"]] == ["0x71000002"]


def test_a_machine_without_them_says_so(splitvisor: Run, services: dict[str, Service]) -> None:
    start(services)
    no_drive = splitvisor("vm", "cd-eject", "demo")
    assert (no_drive.exit_code, "demo has no CD drive; start it with --cdrom FILE, or --cdrom empty" in no_drive.output) == (
        2,
        True,
    )
    assert splitvisor("vm", "disks", "demo").output == "demo has no disks\n"
    assert splitvisor("vm", "nets", "demo").output == "demo has no network devices\n"
    assert objects(splitvisor("vm", "disks", "demo", "--json")) == objects(splitvisor("vm", "nets", "demo", "--json")) == []


def test_a_medium_is_changed_and_outlives_the_process_that_has_the_drive(
    splitvisor: Run, services: dict[str, Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cd = raw_image(tmp_path / "cd.iso", MIB)
    start(services, trap_pb2.DeviceSpec(kind="v-scsi", options={"cdrom0": "empty"}))

    def places() -> list[str]:
        return [each["image"] for each in objects(splitvisor("vm", "disks", "demo", "--json"))]

    assert places() == [None]
    assert splitvisor("vm", "disks", "demo").output.splitlines()[1].endswith(" empty")
    monkeypatch.chdir(tmp_path)
    inserted = splitvisor("vm", "cd-insert", "demo", "cd.iso")
    assert (inserted.exit_code, inserted.output) == (0, f"cdrom0 at 0x71000001 has {cd}\n")
    assert places() == [str(cd)]
    services["vio"].kill()
    services["vio"].start()
    wait_until(lambda: splitvisor("vm", "disks", "demo", "--json").exit_code == 0, "vio_service has the VM again")
    assert places() == [str(cd)]
    assert splitvisor("vm", "cd-eject", "demo").output == "cdrom0 at 0x71000001 is empty\n"
    assert places() == [None]


def test_a_change_that_cannot_be_is_one_line(splitvisor: Run, services: dict[str, Service]) -> None:
    start(services, trap_pb2.DeviceSpec(kind="v-scsi", options={"cdrom0": "empty", "cdrom1": "empty"}))
    for arguments, status, text in (
        (("cd-insert", "demo", "missing.iso", "--drive", "cdrom1"), 1, "missing.iso: No such file or directory"),
        (("cd-insert", "demo", "x,readonly"), 2, "'readonly' is not an option of a CD"),
        (("cd-eject", "demo"), 2, "demo has 2 such drives: cdrom0 at 0x71000001, cdrom1 at 0x71000001; give --drive"),
        (("cd-eject", "demo", "--drive", "cdrom7"), 2, "demo has no such drive; it has: cdrom0 at 0x71000001, cdrom1 at"),
        (("cd-eject", "demo", "--adapter", "0x71000009"), 2, "demo has no such drive"),
        (("cd-eject", "demo", "--adapter", "here"), 2, "'here' is not a unit address"),
    ):
        answer = splitvisor("vm", *arguments)
        assert (answer.exit_code, answer.output.count("\n")) == (status, 1), answer.output
        assert text in answer.output
