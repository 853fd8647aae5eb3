# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands find the services of a VM by its name, and say in one line why they cannot."""

from __future__ import annotations

import json
import os
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from typer.testing import CliRunner

from splitvisor.cli.app import make_app
from splitvisor.cli.dt_parent import parent
from splitvisor.machine.service_addresses import CONNECT_VARIABLE
from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc
from splitvisor.run import running_vms as module
from splitvisor.run.running_vms import NoSuchVmError, namesake, running_vms, service_address


@pytest.fixture(autouse=True)
def runtime(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "socket_parents", lambda: [short_path])
    return short_path


def write_run(runtime: Path, directory: str, vm: str, pid: int | None = None, **services: str) -> Path:
    path = runtime / f"splitvisor-{directory}" / "run.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"vm": vm, "pid": os.getpid() if pid is None else pid, "services": services}))
    return path


def test_a_vm_is_found_by_its_name(runtime: Path) -> None:
    write_run(runtime, "a", "one", vio="unix:/1")
    write_run(runtime, "b", "two", vio="unix:/2")
    assert service_address("two", "vio") == "unix:/2"


def test_a_mistyped_name_is_recognized(runtime: Path) -> None:
    write_run(runtime, "a", "web-1", vio="unix:/1")
    with pytest.raises(NoSuchVmError, match=r"^no VM 'wbe1' is running \(running: web-1\); did you mean web-1\?$"):
        service_address("wbe1", "vio")


def test_a_second_vm_of_a_name_is_noted(runtime: Path) -> None:
    write_run(runtime, "a", "one", vio="unix:/1")
    write_run(runtime, "b", "dead", pid=1 << 30, vio="unix:/1")
    what = f"another VM 'one' is running, process {os.getpid()}; commands that name it need an address; --name NAME gives"
    assert namesake("one").startswith(what)
    assert namesake("two") == namesake("dead") == ""


def test_runs_that_have_ended_or_are_being_written_do_not_count(runtime: Path) -> None:
    write_run(runtime, "a", "dead", pid=1 << 30, vio="unix:/1")
    write_run(runtime, "b", "half", vio="unix:/2").write_text('{"vm": "ha')
    write_run(runtime, "c", "odd").write_text("[]")
    assert list(running_vms()) == []
    with pytest.raises(NoSuchVmError, match=r"no VM 'dead' is running \(running: none\); give --vio ADDRESS"):
        service_address("dead", "vio")


def test_a_directory_of_somebody_else_does_not_count(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runtime, "a", "theirs", vio="unix:/1")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert list(running_vms()) == []


def test_two_vms_of_one_name_are_not_guessed_between(runtime: Path) -> None:
    write_run(runtime, "a", "twin", hcall="unix:/1")
    write_run(runtime, "b", "twin", hcall="unix:/2")
    with pytest.raises(NoSuchVmError, match=r"2 VMs 'twin' are running; give --hcall ADDRESS, one of: unix:/1, unix:/2"):
        service_address("twin", "hcall")


def test_the_environment_says_where_services_are_before_any_run(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runtime, "a", "one", vio="unix:/1", hcall="unix:/2")
    monkeypatch.setenv(CONNECT_VARIABLE, "vio=unix:/3,cpu=unix:/4")
    assert service_address("one", "vio") == "unix:/3"
    assert service_address("elsewhere", "cpu") == "unix:/4"
    assert service_address("one", "hcall") == "unix:/2"
    monkeypatch.setenv(CONNECT_VARIABLE, "vio")
    result = CliRunner().invoke(make_app(), ["vm", "devices", "one"])
    assert (result.exit_code, result.output) == (
        2, "splitvisor vm devices: SPLITVISOR_CONNECT: vio has no address; give vio=unix:/path or vio=host:port\n",
    )  # fmt: skip


def test_a_list_of_consoles_says_that_no_vm_is_running(runtime: Path) -> None:
    result = CliRunner().invoke(make_app(), ["console", "list"])
    assert (result.exit_code, result.output) == (
        2, "splitvisor console list: no VM is running; give --vio ADDRESS for services started by hand\n",
    )  # fmt: skip


class Trees(device_tree_pb2_grpc.DeviceTreeServiceServicer):
    """Answers as hcall_service would for a VM that it knows, and one that it does not."""

    def GetInterruptParent(self, request: device_tree_pb2.GetInterruptParentRequest, context: Any) -> Any:
        if request.vm == "bad":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad name")
        if request.vm == "new":
            source = device_tree_pb2.INTERRUPT_PARENT_SOURCE_FALLBACK
            return device_tree_pb2.GetInterruptParentResponse(phandle=0x1111, source=source, reason="no tree yet")
        source = device_tree_pb2.INTERRUPT_PARENT_SOURCE_STORED_TREE
        return device_tree_pb2.GetInterruptParentResponse(phandle=0x7E01, source=source, revision=4, path="/pic")

    def _refuse(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not asked for here")

    BuildTree = PutTree = GetTree = GetProperty = ListRevisions = LookUpNode = ChangeNodes = _refuse
    WatchRevisions = _refuse


@pytest.mark.parametrize(
    ("vm", "text", "fields"),
    [
        ("old", "0x7e01  from the stored tree: /pic in revision 4\n",
         {"phandle": 0x7E01, "source": "stored-tree", "revision": 4, "path": "/pic"}),
        ("new", "0x1111  the fixed fallback: no tree yet\n",
         {"phandle": 0x1111, "source": "fallback", "revision": 0, "reason": "no tree yet"}),
    ],
)  # fmt: skip
def test_dt_parent_says_which_and_from_where(runtime: Path, vm: str, text: str, fields: dict[str, object]) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    device_tree_pb2_grpc.add_DeviceTreeServiceServicer_to_server(Trees(), server)
    address = f"unix:{runtime}/hcall.sock"
    server.add_insecure_port(address)
    server.start()
    dt = typer.Typer()
    dt.command()(parent)
    try:
        assert CliRunner().invoke(dt, [vm, "--hcall", address]).output == text
        write_run(runtime, "a", vm, hcall=address)
        assert json.loads(CliRunner().invoke(dt, [vm, "--json"]).output) == fields
        failed = CliRunner().invoke(dt, ["bad", "--hcall", address])
        assert (failed.exit_code, failed.output) == (1, "splitvisor dt parent: bad name\n")
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("devices", "none"), "vm devices: no VM 'none' is running"),
        (("disks", "none"), "vm disks: no VM 'none' is running"),
        (("nets", "none"), "vm nets: no VM 'none' is running"),
        (("device-add", "none", "vty", "--address", "x"), "vm device-add: 'x' is not a unit address"),
        (("device-add", "none", "nvram", "--option", "bytes"), "vm device-add: --option: 'bytes' is not NAME=VALUE; give"),
        (("device-add", "none", "vty", "--option", "server=a", "--option", "server=b"), "--option: server is given twice"),
        (
            ("device-add", "none", "v-scsi", "--option", "disk=a"),
            "vm device-add: --option: disk: is not an option of v-scsi; did",
        ),
        (
            ("device-add", "none", "v-scsi", "--option", "disk0=a,x"),
            "--option: disk0: a,x: 'x' is not an option of a disk; known",
        ),
        (("device-remove", "none", "0x100000000"), "vm device-remove: '0x100000000' is not a unit address"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(make_app(), ["vm", *arguments])
    assert (result.exit_code, text in result.output, result.output.count("\n")) == (2, True, 1)


def test_a_service_that_does_not_answer_is_status_1(runtime: Path) -> None:
    result = CliRunner().invoke(make_app(), ["vm", "devices", "x", "--vio", f"unix:{runtime}/none.sock"])
    assert (result.exit_code, result.output.count("\n")) == (1, 1), result.output
