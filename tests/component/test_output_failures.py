# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands at a running machine whose output cannot be written, and services and runs without standard streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from splitvisor.machine.service_addresses import CONNECT_VARIABLE
from splitvisor.process.streams import FAILED, READER_GONE
from splitvisor.run.exit_status import ExitStatus
from tests.command_ends import FULL, READER_GONE_OUTPUT, closing, commands, wrong_ends
from tests.demo_machine import machine_stub, start_demo
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.services import Service

PRINTING: Mapping[str, tuple[str, ...]] = {
    "console list": ("demo",),
    "console log": ("demo",),
    "console expect": ("demo", "Type help"),
    "dt diff": ("demo",),
    "dt export": ("demo",),
    "dt get": ("demo", "/chosen"),
    "dt history": ("demo",),
    "dt parent": ("demo",),
    "dt show": ("demo",),
    "dt validate": ("demo",),
    "dt watch": ("demo", "--count", "1"),
    "fault kinds": (),
    "protos": (),
    "top": ("demo", "--once", "--interval", "0.1"),
    "version": (),
    "vm devices": ("demo",),
    "vm disks": ("demo",),
    "vm nets": ("demo",),
    "vm status": ("demo",),
}
"""Commands that print something about a machine: the arguments with which they do."""
OTHER: Mapping[str, str] = {
    "bench": "measures for minutes",
    "certs": "makes files",
    "console attach": "ends with 0, see test_console_cli.py",
    "console send": "prints nothing",
    "fault": "tests/component/test_fault_cli.py",
    "guests": "uses the network",
    "health": "prints nothing",
    "new-device": "makes files",
    "record": "reads recordings; its output is that of the others",
    "replay": "the same",
    "run": "see below",
    "service": "see below",
    "trace": "prints when the guest makes calls; its output is that of the others",
    "vm": "changes a machine",
}
"""Commands, or groups of them, that are not run: why."""


def test_the_tables_name_every_command() -> None:
    names = [" ".join(command) for command in commands()[1:]]
    groups = {name for name in names if any(other.startswith(f"{name} ") for other in names)}
    missing = [name for name in names if name not in {*PRINTING, *OTHER, *groups} and name.partition(" ")[0] not in OTHER]
    assert missing == []


def test_a_command_says_in_one_line_that_its_output_cannot_be_written(services: dict[str, Service]) -> None:
    connect = ",".join(f"{name}={service.address}" for name, service in services.items())
    with machine_stub(services) as stub:
        start_demo(stub, services)
    arguments = [[*name.split(), *more] for name, more in PRINTING.items()]
    # The first shows that the guest has written what the others print.
    arguments.sort(key=lambda each: "expect" not in each)
    table = [(each, "/dev/null", 0, 0) for each in arguments]
    table += [(each, FULL, FAILED, 1) for each in arguments]
    table += [(each, READER_GONE_OUTPUT, READER_GONE, 0) for each in arguments]
    assert wrong_ends(table, **{CONNECT_VARIABLE: connect}) == {}


def run(*arguments: str, stdout: int, runtime: Path, typed: bytes = b"", closed: tuple[int, ...] = ()) -> tuple[int, bytes]:
    done = subprocess.run(
        [*closing(closed), sys.executable, "-m", "splitvisor", "run", *arguments], cwd=ROOT, input=typed,
        stdout=stdout, stderr=subprocess.PIPE,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)}, timeout=STEP_SECONDS,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_run_whose_output_does_not_fit_on_the_disk_fails(short_path: Path) -> None:
    with open(FULL, "wb") as full:
        found = run("--memory", "256M", typed=b"off\n", stdout=full.fileno(), runtime=short_path)
    assert found == (ExitStatus.OUTPUT_FAILED, b"splitvisor run: standard output: No space left on device\n")


@pytest.mark.parametrize("closed", [(0,), (0, 1), (0, 1, 2)], ids=str)
def test_a_run_without_standard_streams_is_a_run(closed: tuple[int, ...], short_path: Path) -> None:
    found = run("--memory", "256M", "--exit-on", "Type help", stdout=subprocess.DEVNULL, runtime=short_path, closed=closed)
    assert found == (0, b"")


@pytest.mark.parametrize("entry", ["splitvisor", "splitvisor.service.main"])
def test_a_service_without_standard_streams_gets_them(entry: str, short_path: Path) -> None:
    words = ["service", "vio"] if entry == "splitvisor" else ["vio"]
    ready, write = os.pipe()
    process = subprocess.Popen(
        [*closing(range(3)), sys.executable, "-m", entry, *words, "--listen", f"unix:{short_path}/vio.sock",
         "--ready-fd", str(write)],
        cwd=ROOT, pass_fds=[write],
    )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(ready, "rb") as file:
            assert file.readline()
        assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)} == {os.devnull}
        process.terminate()
        assert process.wait(STEP_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_a_gateway_whose_address_cannot_be_printed_serves_all_the_same(short_path: Path) -> None:
    ready, write = os.pipe()
    command = [sys.executable, "-m", "splitvisor.service.main", "gateway", "--listen", f"unix:{short_path}/gateway.sock"]
    with open(FULL, "wb") as full:
        process = subprocess.Popen(
            [*command, "--listen-http", "127.0.0.1:0", "--ready-fd", str(write)], cwd=ROOT, pass_fds=[write],
            stdout=full, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(ready, "rb") as file:
            assert file.readline()
        process.terminate()
        assert process.wait(STEP_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("arguments", [("run",), ("service", "vio")], ids=str)
def test_a_limit_of_open_files_that_is_too_low_is_told(arguments: tuple[str, ...]) -> None:
    limited = ["sh", "-c", 'ulimit -n 32 && exec "$@"', "sh", sys.executable, "-m", "splitvisor", *arguments]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, timeout=STEP_SECONDS, check=False)
    told = "only 32 files may be open at once (ulimit -n); allow at least 64"
    assert (done.returncode, done.stderr.decode()) == (2, f"splitvisor {' '.join(arguments)}: {told}\n")


def test_a_run_among_names_that_are_not_text(short_path: Path) -> None:
    bad = os.fsdecode(b"caf\xe9")
    runtime = short_path / bad
    runtime.mkdir(mode=0o700)
    files = (f"{short_path}/{bad}.log", f"{short_path}/{bad}.json", f"{short_path}/{bad}.trees", f"{short_path}/{bad}.kept")
    flags = [word for pair in zip(("--log-file", "--report", "--store", "--transcripts"), files, strict=True) for word in pair]
    done = subprocess.run(
        [sys.executable, "-m", "splitvisor", "run", "--memory", "256M", "--exit-on", "Type help", *flags],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=STEP_SECONDS, check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime), "USER": bad, "TERM": bad, "LC_ALL": "C", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    assert all(os.path.exists(file) for file in files)
