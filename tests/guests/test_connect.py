# SPDX-License-Identifier: GPL-2.0-or-later
"""A run on services that run already: they outlive it and serve the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.guests.conftest import Run
from tests.guests.harness import ROOT, STEP_SECONDS


@contextmanager
def service(name: str, directory: Path, *arguments: str) -> Iterator[str]:
    """Run a service until the block ends; gives its address."""
    address = f"unix:{directory}/{name}.sock"
    ready_read, ready_write = os.pipe()
    command = [sys.executable, "-m", "splitvisor", "service", name, "--listen", address, "--ready-fd", str(ready_write)]
    process = subprocess.Popen([*command, *arguments], cwd=ROOT, pass_fds=(ready_write,), stderr=subprocess.DEVNULL)
    os.close(ready_write)
    try:
        with os.fdopen(ready_read, "rb") as ready:
            assert ready.readline(), f"service {name} did not start"
        yield address
    finally:
        process.terminate()
        assert process.wait(STEP_SECONDS) == 0


def test_services_outlive_a_run_and_serve_the_next(run: Run, short_path: Path) -> None:
    with ExitStack() as stack:
        hcall = stack.enter_context(service("hcall", short_path, "--store", str(short_path / "trees.sqlite")))
        vio = stack.enter_context(service("vio", short_path))
        of_client = stack.enter_context(service("of-client", short_path, "--device-tree", hcall))
        cpu = stack.enter_context(service("cpu", short_path, "--ram-dir", str(short_path)))
        connect = ("--connect", f"cpu={cpu},hcall={hcall}", "--connect", f"vio={vio},of-client={of_client}")
        for _ in range(2):
            console = run(*connect)
            console.expect("Type help for the commands")
            console.expect("> ")
            assert console.pids() == {}
            console.type("off\r")
            assert console.wait() == 0
            console.close()


def test_a_run_that_is_refused_leaves_the_machine_alone_that_runs_there(run: Run, short_path: Path) -> None:
    with ExitStack() as stack:
        hcall = stack.enter_context(service("hcall", short_path, "--store", str(short_path / "trees.sqlite")))
        vio = stack.enter_context(service("vio", short_path))
        of_client = stack.enter_context(service("of-client", short_path, "--device-tree", hcall))
        cpu = stack.enter_context(service("cpu", short_path, "--ram-dir", str(short_path)))
        connect = ("--connect", f"cpu={cpu},hcall={hcall}", "--connect", f"vio={vio},of-client={of_client}")
        first = run("--name", "first", *connect)
        first.expect("Type help for the commands")
        first.expect("> ")
        second = run("--name", "second", *connect)
        assert second.wait() == 2
        first.type("ls /vdevice\r")
        first.expect("vty@71000000")
        first.type("off\r")
        assert first.wait() == 0
        first.close()


def test_a_back_end_that_is_not_there_is_named_and_status_4(run: Run, short_path: Path) -> None:
    missing = f"unix:{short_path}/nobody.sock"
    console = run("--connect", f"vio={missing}")
    assert console.wait() == 4
    assert console.process.stderr is not None
    errors = console.process.stderr.read().decode()
    assert "vio_service" in errors
    assert missing in errors
