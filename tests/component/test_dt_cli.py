# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor dt` against a real hcall_service process, found by its address or by the run that has the VM."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from splitvisor.cli.app import make_app
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import device_tree_pb2_grpc
from splitvisor.tree import fdt
from tests.guests.harness import ROOT
from tests.real_trees import build_request
from tests.services import Service

DEADLINE_S = 20


class Trees:
    """A service with two revisions: the seed, and what firmware made of it."""

    def __init__(self, directory: Path) -> None:
        self.service = Service("hcall", directory, "--store", str(directory / "trees.sqlite"))
        self.channel = grpc.insecure_channel(self.service.address)
        self.stub: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(self.channel)
        self.seed: bytes = self.stub.BuildTree(build_request("guest"), timeout=DEADLINE_S).blob
        tree = fdt.read(self.seed)
        chosen, bus = tree.root.find("/chosen"), tree.root.find("/vdevice")
        assert chosen is not None
        assert bus is not None
        bus.properties |= {"#address-cells": b"\0\0\0\1", "#size-cells": b"\0\0\0\0"}
        chosen.properties["bootargs"] = b"quiet\0"
        tree.root.children.append(fdt.Node("new", {"list": b"one\0two\0"}))
        self.head = fdt.emit(tree)
        self.put(self.head)

    def put(self, blob: bytes) -> None:
        request = pb.PutTreeRequest(vm="guest", origin=pb.TREE_ORIGIN_UPDATE_DT, blob=blob)
        self.stub.PutTree(request, timeout=DEADLINE_S)

    def close(self) -> None:
        self.channel.close()
        self.service.kill()


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trees]:
    trees = Trees(tmp_path_factory.mktemp("dt"))
    yield trees
    trees.close()


@pytest.fixture
def run_directory(trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in progress, as `splitvisor run` tells of itself; nothing else runs."""
    monkeypatch.setattr("splitvisor.run.running_vms.socket_parents", lambda: [tmp_path])
    directory = tmp_path / "splitvisor-run"
    directory.mkdir()
    content = {"vm": "guest", "pid": os.getpid(), "services": {"hcall": trees.service.address}, "pids": {}}
    (directory / "run.json").write_text(json.dumps(content))
    return directory


def dt(*arguments: str, colour: bool = False, status: int = 0) -> str:
    done = CliRunner().invoke(make_app(), ["dt", *arguments], color=colour)
    assert done.exit_code == status, (done.output, done.stderr)
    return done.stdout if status == 0 else done.output


def test_a_tree_is_shown_as_dtc_prints_it_and_exported_as_it_was_stored(trees: Trees, tmp_path: Path) -> None:
    address = ("--address", trees.service.address)
    text = dt("show", "guest", *address)
    assert text.startswith("/dts-v1/;\n")
    assert '\t\tbootargs = "quiet";\n' in text
    assert dt("export", "guest", "--dts", *address) == text
    for name, expected in (("t.dtb", trees.head), ("t.dts", text.encode())):
        dt("export", "guest", "-o", str(tmp_path / name), *address)
        assert (tmp_path / name).read_bytes() == expected
    dt("export", "guest", "-r", "seed", "-o", str(tmp_path / "t.dtb"), *address)
    assert (tmp_path / "t.dtb").read_bytes() == trees.seed


def test_the_only_running_vm_and_its_service_are_found(run_directory: Path) -> None:
    assert dt("show", "/new") == 'new {\n\tlist = "one\\0two";\n};\n'
    assert dt("show", "guest", "/new") == dt("show", "/new")
    assert dt("get", "/chosen", "bootargs") == "quiet\n"
    assert dt("get", "/chosen", "bootargs", "-r", "seed") == dt("get", "/chosen", "bootargs", "-r", "1") == "console=hvc0\n"
    assert dt("get", "guest", "/new", "list") == "one\ntwo\n"
    assert dt("get", "/new", "list", "--raw") == "one\0two\0"
    assert dt("get", "/cpus") == "#address-cells\n#size-cells\nPowerPC,POWER8@0/\nPowerPC,POWER8@1/\n"
    assert dt("get", "/cpus", "#address-cells") == "<0x01>\n"


def test_history_is_newest_first(trees: Trees, run_directory: Path) -> None:
    lines = dt("history").splitlines()
    assert [line.split()[0] for line in lines][-2:] == ["2", "1"]
    assert lines[0].endswith("head")
    assert "seed" in lines[-1]
    listed = json.loads(dt("history", "--json"))
    assert listed[-1]["origin"] == "seed"
    assert listed[-1]["sha256"] == hashlib.sha256(trees.seed).hexdigest()
    assert listed[-1]["size"] == len(trees.seed)


def test_differences_are_told_by_path_and_property(run_directory: Path) -> None:
    text = dt("diff", "seed..2")
    assert text.splitlines() == [
        "--- guest revision 1 (seed)",
        "+++ guest revision 2 (update-dt)",
        "  /chosen",
        '-     bootargs = "console=hvc0";',
        '+     bootargs = "quiet";',
        "  /vdevice",
        "+     #address-cells = <0x01>;",
        "+     #size-cells = <0x00>;",
        "+ /new",
        '+     list = "one\\0two";',
        "5 differences",
    ]
    assert dt("diff", "guest", "1..1", "--exit-code").endswith("0 differences\n")
    dt("diff", "seed..2", "--exit-code", status=1)
    changes = json.loads(dt("diff", "seed..2", "--json"))["changes"]
    assert changes[0] == {
        "path": "/chosen", "property": "bootargs", "kind": "changed",
        "before": {"hex": b"console=hvc0\0".hex(), "text": ["console=hvc0"]},
        "after": {"hex": b"quiet\0".hex(), "text": ["quiet"]},
    }  # fmt: skip
    assert {"path": "/new", "property": None, "kind": "added"} in changes


def test_json_has_the_whole_tree(trees: Trees, run_directory: Path) -> None:
    shown = json.loads(dt("show", "-r", "2", "--json"))
    assert (shown["vm"], shown["revision"], shown["origin"]) == ("guest", 2, "update-dt")

    def built(node: dict[str, Any]) -> fdt.Node:
        properties = {name: bytes.fromhex(value["hex"]) for name, value in node["properties"].items()}
        return fdt.Node(node["name"], properties, [built(child) for child in node["children"]])

    assert built(shown["node"]) == fdt.read(trees.head).root
    assert json.loads(dt("get", "/new", "--json")) == {"properties": ["list"], "children": []}
    assert json.loads(dt("get", "/new", "list", "--json"))["text"] == ["one", "two"]


def test_a_tree_is_validated_with_status_1_when_something_is_wrong(run_directory: Path, tmp_path: Path) -> None:
    assert "valid" in dt("validate", "-r", "2")
    assert "/vdevice/vty@71000000: reg has 4 bytes" in dt("validate", "-r", "seed", status=1)
    (tmp_path / "x.dtb").write_bytes(b"\xd0\r\xfe\xed" + bytes(60))
    assert "totalsize: " in dt("validate", "--file", str(tmp_path / "x.dtb"), status=1)
    found = json.loads(dt("validate", "-r", "seed", "--json", status=1))["findings"]
    assert found[0]["path"] == "/vdevice/vty@71000000"


def test_colours_are_for_terminals_that_want_them(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (("show",), ("history",), ("diff", "1..2"), ("validate", "-r", "2")):
        assert "\x1b[" not in dt(*arguments)
        assert "\x1b[" in dt(*arguments, colour=True)
        with monkeypatch.context() as patch:
            patch.setenv("NO_COLOR", "1")
            assert "\x1b[" not in dt(*arguments, colour=True)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("show", "other"), 2, "guest"),
        (("show", "guest", "/nowhere"), 1, "/nowhere"),
        (("get", "/new", "nothing"), 1, "nothing"),
        (("get", "guest"), 2, "PATH"),
        (("show", "-r", "99"), 1, "99"),
        (("show", "-r", "nonsense"), 2, "seed"),
        (("show", "-r", "quiesce"), 1, "quiesce"),
        (("diff", "a", "b"), 2, "FROM..TO"),
        (("export", "-o", "/nowhere/x.dtb"), 2, "/nowhere"),
        (("validate", "--file", "/nowhere/x.dtb"), 2, "/nowhere"),
        (("history", "--address", "unix:/nowhere/s"), 2, "name"),
        (("history", "guest", "--address", "unix:/nowhere/s"), 1, "/nowhere/s"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(run_directory: Path, arguments: tuple[str, ...], status: int, text: str) -> None:
    output = dt(*arguments, status=status)
    assert text in output
    assert len(output.splitlines()) == 1


def test_without_a_running_vm_a_name_is_asked_for(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_directory / "run.json").unlink()
    monkeypatch.delenv("SPLITVISOR_CONNECT", raising=False)
    assert dt("history", status=2) == (
        "splitvisor dt history: no VM is running; name one, and give --address ADDRESS for services started by hand\n"
    )
    monkeypatch.setenv("SPLITVISOR_CONNECT", "hcall=unix:/nowhere/s")
    assert dt("history", status=2).startswith("splitvisor dt history: name the VM; SPLITVISOR_CONNECT has addresses of services")


def test_watch_tells_what_comes_and_what_it_changes(trees: Trees) -> None:
    command = [sys.executable, "-m", "splitvisor", "dt", "watch", "guest", "--address", trees.service.address]
    known = len(trees.stub.ListRevisions(pb.ListRevisionsRequest(vm="guest"), timeout=DEADLINE_S).revisions)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--json", "--count", str(known + 1)], stdout=subprocess.PIPE, text=True, env=environment
    ) as watching:
        killer = threading.Timer(DEADLINE_S, watching.kill)
        killer.start()
        assert watching.stdout is not None
        seen = [json.loads(watching.stdout.readline())["revision"] for _ in range(known)]
        trees.put(trees.seed)
        seen.append(json.loads(watching.stdout.readline())["revision"])
        assert watching.wait(DEADLINE_S) == 0
        killer.cancel()
    assert seen == list(range(1, known + 2))
    text = dt("watch", "guest", "--diff", "--count", "2", "--address", trees.service.address)
    assert '+     bootargs = "quiet";' in text
