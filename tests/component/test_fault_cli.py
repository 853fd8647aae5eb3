# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor fault`: processes by their sockets, a proxy by hand, one line for what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from splitvisor.faults.journal import read_journal
from splitvisor.rpc import console_pb2, console_pb2_grpc
from tests.component.trap_client import Client
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.services import Service

SCENARIO = '[[fault]]\nkind = "refuse-memory"\nat = [1]\n'


def splitvisor(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "splitvisor", *arguments], capture_output=True, text=True, timeout=STEP_SECONDS, env=environment,
        check=False,
    )  # fmt: skip


def test_a_service_is_stopped_for_a_time_and_killed(short_path: Path) -> None:
    vio = Service("vio", short_path)
    began = time.monotonic()
    stopped = splitvisor("fault", "stop", "vm", "vio", "--for", "0.5", "--at", vio.address)
    assert (stopped.returncode, stopped.stdout) == (0, f"vio of vm: process {vio.process.pid}\n")
    assert time.monotonic() - began >= 0.5
    with grpc.insecure_channel(vio.address) as channel:
        stub = console_pb2_grpc.ConsoleServiceStub(channel)
        assert not stub.ListConsoles(console_pb2.ListConsolesRequest(), timeout=STEP_SECONDS).consoles
    assert splitvisor("fault", "kill", "vm", "vio", "--at", vio.address).returncode == 0
    assert vio.process.wait(STEP_SECONDS) == -9
    again = splitvisor("fault", "kill", "vm", "vio", "--at", vio.address)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "nobody listens" in again.stderr


def test_a_proxy_by_hand_passes_every_rpc_and_writes_its_journal(short_path: Path) -> None:
    scenario, journal = short_path / "s.toml", short_path / "journal"
    scenario.write_text(SCENARIO)
    vio = Service("vio", short_path)
    proxy = Service("fault", short_path, "--to", vio.address, "--scenario", str(scenario), "--journal", str(journal))
    try:
        client = Client(proxy.address).attached()
        with grpc.insecure_channel(proxy.address) as channel:
            stub = console_pb2_grpc.ConsoleServiceStub(channel)
            assert stub.ListConsoles(console_pb2.ListConsolesRequest(), timeout=STEP_SECONDS) is not None
        client.close()
    finally:
        proxy.end()
        vio.end()
    assert [(each["kind"], each["message"], each["vm"]) for each in read_journal(journal)] == [("refuse-memory", "hello", "vm")]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["kill", "vm", "disk"], "'disk' is not a service"),
        (["kill", "nobody", "vio"], "no VM 'nobody'"),
        (["stop", "vm", "vio", "--at", "127.0.0.1:1"], "is not a unix socket"),
        (["check", "/nonexistent.toml"], "cannot be read"),
        (["proxy", "--listen", "unix:/tmp/x.sock", "--to", "unix:/tmp/y.sock", "--scenario", "/no.toml"], "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], text: str) -> None:
    done = splitvisor("fault", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert text in done.stderr


def test_a_scenario_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    assert "refuse-memory" in splitvisor("fault", "check", str(path)).stdout
    assert "the back end's process gets SIGKILL" in splitvisor("fault", "kinds").stdout
