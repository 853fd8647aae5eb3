# SPDX-License-Identifier: GPL-2.0-or-later
"""Real guests, saved and restored in fresh services, and moved from one cpu_service to another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from splitvisor.net.channels import open_channel
from splitvisor.rpc import machine_pb2, machine_pb2_grpc
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, ROOT, STEP_SECONDS, Console, Guests
from tests.services import Service, start_services
from tests.terminals import Terminal

PROMPT = "guest# "
COUNT = "i=0; while :; do echo $((i+=1)); done\n"
"""Prints running numbers for ever: whenever the guest is saved, it prints."""
CTRL_C = "\x03"
MORE = 1000
"""Numbers to wait for after a guest was saved or moved."""


VM = f"saved-{os.getpid()}"
"""Found by name: other runs of this user must not have it."""


def boot(guests: Guests) -> tuple[str, ...]:
    return ("--kernel", str(guests.kernel), "--initrd", str(guests.shell), "--append", "console=hvc0 panic=-1")


def save(console: Console, file: Path, *arguments: str) -> None:
    done = console.splitvisor("vm", "save", VM, str(file), *arguments)
    assert done.returncode == 0, done.stderr
    assert "was paused for" in done.stdout


def whole(before: str, after: str) -> str:
    """All of a guest's output, of which a second console has shown the end of what the first has, and what came then."""
    start = before.rfind(after[:100])
    assert start >= 0, "the second console starts behind the end of the first"
    assert after.startswith(before[start:])
    return before[:start] + after


def numbers(text: str) -> list[int]:
    start = text.index("\n1\r\n")
    return [int(line) for line in re.findall(r"^(\d+)\r?$", text[start:], re.MULTILINE)]


def count_on(console: Console | Terminal, before: str = "") -> str:
    """Wait for MORE numbers, stop, and return all that two consoles have shown. Nothing is lost and nothing doubled in it."""
    last = numbers(before or console.text)[-1]
    console.expect(rf"^{last + MORE}\r?$", BOOT_SECONDS)
    console.type(CTRL_C)
    console.expect(re.escape(PROMPT))
    text = whole(before, console.text) if before else console.text
    assert numbers(text) == list(range(1, len(numbers(text)) + 1))
    return text


@pytest.fixture(scope="module")
def at_prompt(guests: Guests) -> Iterator[Path]:
    """A snapshot of Debian at the shell's prompt."""
    directory = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    console = Console(("--name", VM, *boot(guests)), directory)
    try:
        console.expect(PROMPT, BOOT_SECONDS)
        save(console, directory / "guest.snapshot", "--stop")
        assert console.wait() == 0
        yield directory / "guest.snapshot"
    finally:
        console.close()
        shutil.rmtree(directory)


@pytest.mark.parametrize("arguments", [(), ("--smp", "2", "--no-shared-memory")], ids=["one-vcpu", "two-vcpus-through-streams"])
def test_a_shell_goes_on_in_fresh_services(run: Run, guests: Guests, short_path: Path, arguments: tuple[str, ...]) -> None:
    console = run("--name", VM, *boot(guests), *arguments, "--store", str(short_path / "trees.sqlite"))
    console.expect(PROMPT, BOOT_SECONDS)
    history = console.splitvisor("dt", "history", VM).stdout
    assert "quiesce" in history
    console.type("echo kept > /tmp/file; cat /proc/uptime\n")
    uptime = r"^(\d+\.\d+) \d+\.\d+\r?$"
    before = float(console.expect(uptime)[1])
    snapshot = short_path / "guest.snapshot"
    save(console, snapshot)
    # Saving leaves it running.
    console.type("echo lost > /tmp/file; cat /tmp/file; poweroff\n")
    console.expect(r"^lost\r?$")
    assert console.wait() == 0
    assert list(short_path.glob(".guest*")) == []

    restored = run("--from", str(snapshot))
    restored.type("cat /tmp/file /proc/uptime; sleep 1; cat /proc/uptime; date -u +%s; nproc\n")
    restored.expect(r"^kept\r?$", BOOT_SECONDS)
    after = float(restored.expect(uptime)[1])
    later = float(restored.expect(uptime)[1])
    assert before <= after < before + 60
    assert later >= after + 0.9
    guests_time = int(restored.expect(r"^(\d{10})\r?$")[1])
    assert abs(guests_time - datetime.now(UTC).timestamp()) < BOOT_SECONDS
    restored.expect(rf"^{2 if arguments else 1}\r?$")
    # The trees are part of the machine, in a store that did not know it.
    assert restored.splitvisor("dt", "history", VM).stdout == history
    restored.type("poweroff\n")
    assert restored.wait() == 0


def test_a_guest_saved_while_it_prints_loses_and_doubles_nothing(run: Run, at_prompt: Path, short_path: Path) -> None:
    console = run("--from", str(at_prompt))
    console.type(COUNT)
    console.expect(r"^300\r?$", BOOT_SECONDS)
    snapshot = short_path / "guest.snapshot"
    save(console, snapshot, "--stop")
    assert console.wait() == 0
    restored = run("--from", str(snapshot))
    count_on(restored, console.text)
    restored.type("poweroff\n")
    assert restored.wait() == 0


def test_nvram_is_part_of_the_machine(run: Run, guests: Guests, short_path: Path) -> None:
    """SLOF's variables live in nvram: what it has set is there after the machine was restored."""
    console = run("--name", VM, "--firmware", str(guests.slof))
    console.expect(r"^0 > ", BOOT_SECONDS)
    console.type("setenv boot-command saved-with-it\r")
    console.expect("ok")
    snapshot = short_path / "guest.snapshot"
    save(console, snapshot, "--stop")
    assert console.wait() == 0
    restored = run("--from", str(snapshot))
    # The first answer after a start: on a busy machine the services' start alone has taken 26 s.
    restored.expect(r"ok", BOOT_SECONDS)
    restored.type("printenv boot-command\r")
    restored.expect("saved-with-it")
    restored.type("reset-all\r")
    restored.expect(r"SLOF", BOOT_SECONDS)
    restored.expect(r"^0 > ", BOOT_SECONDS)
    restored.type("printenv boot-command\r")
    restored.expect("saved-with-it")
    restored.type("power-off\r")
    assert restored.wait() == 0


def test_the_demo_guest_goes_on(run: Run, short_path: Path) -> None:
    console = run("--name", VM)
    console.expect(r"Type help for the commands")
    console.expect(r"^> ")
    snapshot = short_path / "guest.snapshot"
    save(console, snapshot, "--stop")
    assert console.wait() == 0
    restored = run("--from", str(snapshot))
    restored.type("ls\r")
    restored.expect("vdevice", BOOT_SECONDS)
    restored.type("off\r")
    assert restored.wait() == 0


@pytest.mark.parametrize("flag", ["--memory=1G", "--smp=2", "--kernel=x", "--no-shared-memory"])
def test_flags_that_would_change_a_saved_machine_are_refused(run: Run, short_path: Path, flag: str) -> None:
    console = run("--from", str(short_path / "any"), flag)
    assert console.wait() == 2
    assert console.process.stderr is not None
    errors = console.process.stderr.read().decode()
    assert flag.partition("=")[0] in errors
    assert len(errors.splitlines()) == 1


class Moving:
    """Debian at its prompt, restored on services of its own, beside another cpu_service."""

    def __init__(self, directory: Path, snapshot: Path, stack: ExitStack) -> None:
        self.services = start_services(directory)
        for service in self.services.values():
            stack.callback(service.end)
        self.other = directory / "other"
        self.other.mkdir()
        self.target = Service("cpu", self.other, "--ram-dir", str(self.other))
        stack.callback(self.target.end)
        connect = ",".join(f"{name}={service.address}" for name, service in self.services.items() if name != "cpu")
        restored = self.vm("restore", str(snapshot), "--cpu", self.services["cpu"].address, "--connect", connect)
        assert restored.returncode == 0, restored.stderr
        self.terminal = Terminal(self.services["vio"].address, VM)
        stack.callback(self.terminal.close)
        self.terminal.expect(PROMPT)

    @staticmethod
    def vm(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "splitvisor", "vm", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)

    def migrate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.vm("migrate", VM, "--cpu", self.services["cpu"].address, "--to", self.target.address, *arguments)

    def state(self, service: Service) -> machine_pb2.GetStatusResponse:
        with open_channel(service.address) as channel:
            stub = machine_pb2_grpc.MachineServiceStub(channel)
            request = machine_pb2.GetStatusRequest(vm=VM)
            status: machine_pb2.GetStatusResponse = stub.GetStatus(request, timeout=STEP_SECONDS)
            return status


@pytest.fixture
def moving(short_path: Path, at_prompt: Path) -> Iterator[Moving]:
    with ExitStack() as stack:
        yield Moving(short_path, at_prompt, stack)


def test_a_guest_moves_while_it_prints_and_its_terminal_stays(moving: Moving) -> None:
    moving.terminal.type(COUNT)
    moving.terminal.expect(r"^300\r?$")
    moved = moving.migrate()
    assert moved.returncode == 0, moved.stderr
    assert "was paused for" in moved.stdout
    assert moving.state(moving.services["cpu"]).state == machine_pb2.MACHINE_STATE_STOPPED
    assert moving.state(moving.target).state == machine_pb2.MACHINE_STATE_RUNNING
    count_on(moving.terminal)
    moving.terminal.type("echo typed $((40 + 2))\n")
    moving.terminal.expect(r"^typed 42\r?$")


def test_a_guest_moves_to_other_back_ends(moving: Moving) -> None:
    with ExitStack() as stack:
        hcall = Service("hcall", moving.other, "--store", str(moving.other / "trees.sqlite"))
        others = {
            "hcall": hcall,
            "vio": Service("vio", moving.other),
            "of-client": Service("of-client", moving.other, "--device-tree", hcall.address),
        }
        for service in others.values():
            stack.callback(service.end)
        moving.terminal.type(COUNT)
        moving.terminal.expect(r"^300\r?$")
        connect = ",".join(f"{name}={service.address}" for name, service in others.items())
        moved = moving.migrate("--connect", connect)
        assert moved.returncode == 0, moved.stderr
        moving.terminal.expect(r"\[VM_ENDED\]")
        before = moving.terminal.text.partition("[VM_ENDED]")[0]
        terminal = Terminal(others["vio"].address, VM)
        stack.callback(terminal.close)
        count_on(terminal, before)


def test_a_guest_that_cannot_move_goes_on(moving: Moving) -> None:
    moving.terminal.type(COUNT)
    moving.terminal.expect(r"^300\r?$")
    refused = moving.migrate("--connect", f"vio=unix:{moving.other}/nobody.sock")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "vio_service" in refused.stderr
    assert moving.state(moving.services["cpu"]).state == machine_pb2.MACHINE_STATE_RUNNING
    count_on(moving.terminal)
