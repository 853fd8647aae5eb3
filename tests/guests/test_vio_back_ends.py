# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian on a VIO bus of several processes: its run's vio_service, a second vio_service, and back ends of others."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from examples.cpp.conftest import built  # noqa: F401
from splitvisor.cli.app import make_app
from splitvisor.testing import BackendProgram, RunningProgram
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, STEP_SECONDS, Console, Guests
from tests.guests.test_debian_hotplug import initrd, on_the_bus, start_handler  # noqa: F401
from tests.services import Service

PROMPT = "guest# "
APPEND = ("--append", "console=hvc0 panic=-1")
VM = "many"
SECOND, FOREIGN = 0x7100_003C, 0x7100_0038
"""Each further back end has four slots, the first of them at the end of the bus."""
TERMINALS = {0x7100_0000: "hvc0", SECOND: "hvc1", FOREIGN: "hvc2"}
"""Linux numbers its consoles in the order of the nodes, which is that of the back ends."""
TICKS = 30


def machine_file(directory: Path, *backends: tuple[str, str, str]) -> Path:
    """A machine with a terminal and an NVRAM at vio_service, and a device at each of these (name, address, kind)."""
    text = '[[device]]\nkind = "vty"\n[[device]]\nkind = "nvram"\n'
    for name, address, kind in backends:
        text += f'[[device]]\nkind = "{kind}"\nbackend = "{name}"\n[[backend]]\nname = "{name}"\naddress = "{address}"\n'
    path = directory / "machine.toml"
    path.write_text(text)
    return path


@pytest.fixture
def second(short_path: Path) -> Iterator[Service]:
    """A second vio_service, which keeps transcripts, and so has every byte once whatever becomes of its process."""
    directory = short_path / "second"
    directory.mkdir()
    service = Service("vio", directory, "--transcripts", str(directory / "log"))
    yield service
    service.end()


@pytest.fixture
def foreign(built: Path, short_path: Path) -> Iterator[RunningProgram]:  # noqa: F811
    """A terminal in C++, a unix socket on its other side."""
    directory = short_path / "foreign"
    directory.mkdir()
    program = RunningProgram(BackendProgram("vty_cpp", [built / "vty", "--terminals", directory]), directory)
    yield program
    program.stop()


class Socket:
    """Somebody at the terminal in C++."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self.text = ""
        self._position = 0

    def type(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + STEP_SECONDS
        while (match := re.compile(pattern, re.MULTILINE).search(self.text, self._position)) is None:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            data = self._socket.recv(1 << 16)
            assert data, f"no {pattern!r}, it ended after {self.text[-1000:]!r}"
            self.text += data.decode(errors="replace")
        self._position = match.end()
        return match

    def close(self) -> None:
        self._socket.close()


def ask(name: str) -> str:
    """What a shell does to talk to whoever is at a terminal, once."""
    return f"(echo '{name}: who is there?'; read -r line; echo \"{name}: it is $line\") <>/dev/{name} >&0 &\n"


def tick(name: str) -> str:
    """What a shell does to write numbers to a terminal for ever."""
    return f"(i=0; while :; do echo {name} tick $((i+=1)); sleep 0.05; done) >/dev/{name} &\n"


def last_tick(name: str, text: str) -> int:
    return int(re.findall(rf"{name} tick (\d+)\r?\n", text)[-1])


def expect_ticks(terminal: Console | Socket, name: str, more: int = TICKS) -> None:
    """Wait for so many more ticks than there are."""
    seen = last_tick(name, terminal.text) if "tick" in terminal.text else 0
    terminal.expect(rf"{name} tick {seen + more}\r?\n")


def whole(name: str, text: str) -> int:
    """Return how many ticks there are in a terminal's text; each is there once, in order."""
    ticks = [int(number) for number in re.findall(rf"{name} tick (\d+)\r?\n", text)]
    assert ticks == list(range(1, len(ticks) + 1)), f"{name} lost or doubled something"
    return len(ticks)


def reconnects(console: Console) -> dict[str, int]:
    status = console.splitvisor("vm", "status", VM, "--json").stdout
    return {each["name"]: each["reconnects"] for each in json.loads(status)["backends"]}


def test_three_processes_have_a_terminal_each_and_a_crash_of_one_is_nothing_to_the_others(
    run: Run, guests: Guests, short_path: Path, second: Service, foreign: RunningProgram
) -> None:
    machine = machine_file(short_path, ("second", second.address, "vty"), ("vty_cpp", foreign.address, "vty"))
    console = run("--name", VM, "--machine", str(machine), "--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND)
    console.expect(PROMPT, BOOT_SECONDS)
    assert on_the_bus(console) == ["71000000", "71000001", f"{FOREIGN:x}", f"{SECOND:x}"]
    listed = console.splitvisor("vm", "devices", VM).stdout.splitlines()
    assert [line.split()[:3] for line in listed] == [
        ["0x71000000", "vty", "vio_service"], ["0x71000001", "nvram", "vio_service"], [f"{SECOND:#x}", "vty", "second"],
    ], "the program in C++ is not asked: it does not serve VioBusService"  # fmt: skip
    consoles = console.splitvisor("console", "list", VM).stdout
    assert [line.split()[1] for line in consoles.splitlines() if line.startswith(VM)] == ["0x71000000", f"{SECOND:#x}"]
    seen = json.loads(console.splitvisor("top", VM, "--once", "--json").stdout)
    assert [each["console"] for each in seen["consoles"]] == ["0x71000000", f"{SECOND:#x}"]

    # Each is typed at and read from.
    foreign_name, second_name = TERMINALS[FOREIGN], TERMINALS[SECOND]
    socket_path = short_path / "foreign" / f"{VM}.vty"
    at_foreign = Socket(socket_path)
    console.type(ask(foreign_name) + ask(second_name))
    at_foreign.expect("who is there")
    at_foreign.type("a program in C\r")
    at_foreign.expect(f"{foreign_name}: it is a program in C")
    asked = ("console", "expect", VM, f"{second_name}: it is another process", "--unit", hex(SECOND))
    answered = console.splitvisor(*asked, "--send", r"another process\r")
    assert answered.returncode == 0, answered.stderr
    console.type("echo hvc0: it is $((40+2))\n")
    console.expect("hvc0: it is 42")

    # While one of them is away the others go on.
    console.type(tick(foreign_name) + tick("hvc0"))
    expect_ticks(console, "hvc0")
    expect_ticks(at_foreign, foreign_name)
    second.kill()
    expect_ticks(console, "hvc0")
    expect_ticks(at_foreign, foreign_name)
    second.start()

    # And it comes back in the middle of what the guest writes to it.
    console.type(tick(second_name))
    read = ("console", "expect", VM, "--unit", hex(SECOND), "--timeout", "20", "--regex")
    assert console.splitvisor(*read, f"{second_name} tick {TICKS}").returncode == 0
    second.kill()
    second.start()
    log = console.splitvisor("console", "log", VM, "--unit", hex(SECOND)).stdout
    assert console.splitvisor(*read, f"{second_name} tick {last_tick(second_name, log) + TICKS}").returncode == 0
    expect_ticks(console, "hvc0")
    expect_ticks(at_foreign, foreign_name)

    assert reconnects(console) == {"hcall_service": 0, "of_client_service": 0, "vio_service": 0, "second": 2, "vty_cpp": 0}
    whole(foreign_name, at_foreign.text)
    whole(second_name, console.splitvisor("console", "log", VM, "--unit", hex(SECOND)).stdout)
    whole("hvc0", console.text)
    console.type("dmesg | grep -ci -e 'blocked for more' -e hvc.*error; echo errors\n")
    console.expect(r"^0\r?\n(hvc0 tick \d+\r?\n)*errors\r?$")
    at_foreign.close()
    console.type("poweroff\n")
    assert console.wait() == 0


def lamp(directory: Path, hcall: Service) -> RunningProgram:
    """The device that `new-device --vio` writes, served by a process of its own."""
    written = CliRunner().invoke(make_app(), ["new-device", "lamp", "--vio", "--directory", str(directory)])
    assert written.exit_code == 0, written.output
    command = [sys.executable, str(directory / "lamp/lamp.py"), "--device-tree", hcall.address]
    return RunningProgram(BackendProgram("lamp", command), directory)


def test_devices_come_and_go_at_other_back_ends_too(run: Run, guests: Guests, initrd: Path, short_path: Path) -> None:  # noqa: F811
    second_path = short_path / "second"
    second_path.mkdir()
    with ExitStack() as stack:
        hcall = Service("hcall", short_path, "--store", str(short_path / "trees.sqlite"))
        stack.callback(hcall.end)
        second = Service("vio", second_path, "--device-tree", hcall.address)
        stack.callback(second.end)
        lamps = lamp(short_path, hcall)
        stack.callback(lamps.stop)
        console = run(
            "--name", VM, "--connect", f"hcall={hcall.address}", "--backend", f"second={second.address},lamp={lamps.address}",
            "--kernel", str(guests.kernel), "--initrd", str(initrd), *APPEND,
        )  # fmt: skip
        console.expect(PROMPT, BOOT_SECONDS)
        start_handler(console)
        assert on_the_bus(console) == ["71000000", "71000001"]

        added = console.splitvisor("vm", "device-add", VM, "vty", "--backend", "second")
        assert (added.returncode, added.stdout.split()[:3]) == (0, [f"{SECOND:#x}", "vty", "second"]), added
        console.expect("dlpar: added 3000003c")
        added = console.splitvisor("vm", "device-add", VM, "lamp", "--backend", "lamp")
        assert (added.returncode, added.stdout.split()[:3]) == (0, [f"{FOREIGN:#x}", "lamp", "lamp"]), added
        console.expect("dlpar: added 30000038")
        assert on_the_bus(console) == ["71000000", "71000001", f"{FOREIGN:x}", f"{SECOND:x}"]
        console.type(f"cat /proc/device-tree/vdevice/lamp@{FOREIGN:x}/compatible; echo\n")
        console.expect("example,lamp")
        console.type(ask("hvc1"))
        answered = console.splitvisor(
            "console", "expect", VM, "hvc1: it is new", "--unit", hex(SECOND), "--send", r"new\r", "--timeout", "20"
        )
        assert answered.returncode == 0, answered.stderr

        # A crash of either is none of the guest's business: what it has is what there is.
        for each in (second, lamps):
            each.kill()
            each.start()
        listed = console.splitvisor("vm", "devices", VM).stdout.splitlines()
        assert [line.split()[2] for line in listed] == ["vio_service", "vio_service", "lamp", "second"]
        assert all("configured" in line for line in listed)

        wrong = console.splitvisor("vm", "device-add", VM, "disk", "--backend", "lamp")
        assert (wrong.returncode, "lamp has no kind of device 'disk'; it has: lamp" in wrong.stderr) == (1, True), wrong
        nobody = console.splitvisor("vm", "device-add", VM, "vty", "--backend", "disks")
        assert (nobody.returncode, nobody.stderr) == (
            2, f"splitvisor vm device-add: --backend: VM {VM!r} has no back end 'disks'; known: vio_service, second, lamp\n"
        )  # fmt: skip

        for address in (FOREIGN, SECOND):
            removed = console.splitvisor("vm", "device-remove", VM, hex(address))
            assert (removed.returncode, removed.stdout) == (0, f"{address:#x} is removed\n"), removed
        assert on_the_bus(console) == ["71000000", "71000001"]
        console.type("poweroff\n")
        assert console.wait() == 0


def test_a_machine_of_several_processes_is_saved_and_goes_on_in_fresh_ones(run: Run, guests: Guests, short_path: Path) -> None:
    second_path = short_path / "second"
    second_path.mkdir()
    snapshot = short_path / "many.snapshot"
    with ExitStack() as stack:
        hcall = Service("hcall", short_path, "--store", str(short_path / "trees.sqlite"))
        stack.callback(hcall.end)
        second = Service("vio", second_path)
        stack.callback(second.end)
        lamps = lamp(short_path, hcall)
        stack.callback(lamps.stop)
        machine = machine_file(short_path, ("second", second.address, "vty"), ("lamp", lamps.address, "lamp"))
        images = ("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND)
        console = run("--name", VM, "--machine", str(machine), *images)
        console.expect(PROMPT, BOOT_SECONDS)
        console.type(tick("hvc1"))
        read = ("console", "expect", VM, "--unit", hex(SECOND), "--timeout", "20", "--regex")
        assert console.splitvisor(*read, f"hvc1 tick {TICKS}").returncode == 0
        devices = console.splitvisor("vm", "devices", VM).stdout
        saved = console.splitvisor("vm", "save", VM, str(snapshot), "--stop")
        assert saved.returncode == 0, saved.stderr
        assert console.wait() == 0
        console.close()
        for each in (second, lamps):
            each.kill()
            each.start()
        restored = run("--from", str(snapshot))
        restored.type("echo restored $((40 + 2))\n")
        restored.expect(r"^restored 42\r?$", BOOT_SECONDS)
        assert restored.splitvisor("vm", "devices", VM).stdout == devices
        log = restored.splitvisor("console", "log", VM, "--unit", hex(SECOND)).stdout
        assert restored.splitvisor(*read, f"hvc1 tick {last_tick('hvc1', log) + TICKS}").returncode == 0
        assert whole("hvc1", restored.splitvisor("console", "log", VM, "--unit", hex(SECOND)).stdout) > 2 * TICKS
        restored.type("poweroff\n")
        assert restored.wait() == 0
