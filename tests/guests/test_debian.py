# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's unmodified kernel, from the first instruction to power-off, across four processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from splitvisor.guests.fetch import MARKER
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Guests

APPEND = ("--append", "console=hvc0 panic=-1")
PROMPT = "guest# "


@pytest.mark.parametrize("memory", [(), ("--no-shared-memory",)], ids=["shared", "through-streams"])
def test_the_shell_answers_and_power_off_ends_the_run(run: Run, guests: Guests, memory: tuple[str, ...]) -> None:
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND, *memory)
    console.expect(MARKER, BOOT_SECONDS)
    console.expect(PROMPT)
    pids = console.pids()
    assert set(pids) == {"cpu", "hcall", "vio", "of-client"}
    assert len({console.process.pid, *pids.values()}) == 5
    for name, pid in pids.items():
        assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == f"splitvisor service {name}".encode()

    console.type("expr 6 '*' 7; uname -m\n")
    console.expect(r"^42\r?$")
    console.expect(r"^ppc64le\r?$")
    console.type("cat /proc/device-tree/model; echo; grep -c . /proc/cpuinfo\n")
    console.expect("Splitvisor")
    console.type("poweroff\n")
    assert console.wait() == 0
    for pid in pids.values():
        assert not Path(f"/proc/{pid}").exists()

    report = console.report()
    assert report["state"] == "MACHINE_STATE_POWERED_OFF"
    mapped = {backend["ram_mapped"] for backend in report["backends"]}
    assert mapped == ({False} if memory else {True})
    owners = {call["owner"] for call in report["calls"]}
    assert owners >= {"vio_service", "hcall_service", "of_client_service"}


def test_four_vcpus_reach_user_space(run: Run, guests: Guests) -> None:
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND, "--smp", "4")
    console.expect(MARKER, BOOT_SECONDS)
    console.expect(PROMPT)
    console.type("grep -c ^processor /proc/cpuinfo\n")
    console.expect(r"^4\r?$")
    console.type("poweroff\n")
    assert console.wait() == 0


def test_a_command_from_a_pipe_is_run(run: Run, guests: Guests) -> None:
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND)
    console.type("echo piped $((40 + 2)); poweroff\n")
    console.end_input()
    console.expect(r"^piped 42\r?$", BOOT_SECONDS)
    assert console.wait() == 0


def test_a_long_output_arrives_whole(run: Run, guests: Guests) -> None:
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND)
    console.expect(PROMPT, BOOT_SECONDS)
    console.type("seq 1 3000; echo end of it; poweroff\n")
    console.expect(r"^end of it\r?$", BOOT_SECONDS)
    start = console.text.index("\n1\r\n")
    lines = console.text[start:].split()
    assert lines[:3000] == [str(number) for number in range(1, 3001)]
    assert console.wait() == 0


def test_the_guests_clock_is_the_hosts(run: Run, guests: Guests) -> None:
    """How exact it is, `splitvisor bench clock` tells; here it must only be the same clock, asleep and awake."""
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND)
    console.expect(PROMPT, BOOT_SECONDS)
    uptime = r"^(\d+\.\d+) \d+\.\d+\r?$"
    console.type("cat /proc/uptime; sleep 5; cat /proc/uptime\n")
    guest, host = -float(console.expect(uptime)[1]), -time.monotonic()
    guest += float(console.expect(uptime)[1])
    host += time.monotonic()
    assert guest > 4.9
    assert abs(guest - host) < 2.0
    console.type("poweroff\n")
    assert console.wait() == 0


@pytest.mark.parametrize("memory", ["256M", "16G"])
def test_the_smallest_and_the_largest_machine_power_off(run: Run, guests: Guests, memory: str) -> None:
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND, "--memory", memory)
    console.expect(PROMPT, BOOT_SECONDS)
    console.type("grep MemTotal /proc/meminfo\n")
    total = int(console.expect(r"^MemTotal: +(\d+) kB")[1]) >> 10
    megabytes = {"256M": 256, "16G": 16384}[memory]
    assert 0.7 * megabytes < total < megabytes
    console.type("poweroff\n")
    assert console.wait() == 0


def test_a_reboot_starts_the_guest_anew(run: Run, guests: Guests) -> None:
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND)
    console.expect(PROMPT, BOOT_SECONDS)
    console.type("reboot\n")
    console.expect("Restarting system")
    console.expect(MARKER, BOOT_SECONDS)
    console.expect(PROMPT)
    console.type("poweroff\n")
    assert console.wait() == 0


def test_exit_on_ends_the_run_when_the_text_appears(run: Run, guests: Guests) -> None:
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND, "--exit-on", MARKER)
    assert console.wait(BOOT_SECONDS) == 0
    assert MARKER in console.text


def test_power_off_without_the_text_is_status_1(run: Run, guests: Guests) -> None:
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.poweroff), *APPEND, "--exit-on", "never written")
    assert console.wait(BOOT_SECONDS) == 1


def test_a_kernel_without_an_initramfs_panics_on_the_console(run: Run, guests: Guests) -> None:
    console = run("--kernel", str(guests.kernel), "--append", "console=hvc0 panic=0", "--exit-on", "Kernel panic")
    assert console.wait(BOOT_SECONDS) == 0
