# SPDX-License-Identifier: GPL-2.0-or-later
"""Firmware that others wrote, unmodified: SLOF with its Forth, VOF, and GRUB as a client program of our own firmware."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from splitvisor.bench.slof import qemu_command
from splitvisor.guests.fetch import MARKER
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, STEP_SECONDS, Console, Guests

SLOF_PROMPT = "^0 > "
APPEND = ("--append", "console=hvc0 panic=-1")


def calls(console: Console) -> dict[str, dict[str, Any]]:
    """What the guest called, by name."""
    return {call["name"]: call for call in console.report()["calls"]}


def test_slofs_prompt_takes_commands(run: Run, guests: Guests) -> None:
    console = run("--firmware", str(guests.slof))
    console.expect(SLOF_PROMPT, BOOT_SECONDS)
    console.type("3 4 + .\r")
    console.expect(r"7  ok\r$")
    console.expect(SLOF_PROMPT)
    console.type("dev /vdevice ls\r")
    assert "vty@71000000" in console.expect(r"ls(?s:.*?)^0 > ").group()
    console.type("dev / .properties\r")
    assert "Splitvisor" in console.expect(r"\.properties(?s:.*?)^0 > ").group()
    assert "\a" not in console.text, "SLOF rings the bell at characters that nobody typed"


def test_slof_waits_for_longer_than_half_a_time_base_counts(run: Run, guests: Guests) -> None:
    """The lower half wraps every 8.39 s; without the upper one, a wait over a wrap is one without end."""
    console = run("--firmware", str(guests.slof))
    console.expect(SLOF_PROMPT, BOOT_SECONDS)
    console.type("milliseconds d# 8500 ms milliseconds swap - .d\r")
    waited = int(console.expect(r"(\d+)  ok\r$").group(1))
    assert 8500 <= waited < 8500 + 1000 * STEP_SECONDS


def test_slof_writes_what_it_writes_on_qemu(run: Run, guests: Guests, qemu: str) -> None:
    """Byte for byte, but for the PCI bus that only QEMU has."""
    command = [*qemu_command(qemu), "-m", "512M", "-bios", str(guests.slof)]
    expected = dialogue(command).replace(b"Populating /pci@800000020000000\r\n", b"")
    console = run("--firmware", str(guests.slof))
    console.expect(SLOF_PROMPT, BOOT_SECONDS)
    console.type("3 4 + .\r")
    console.expect(r"ok\r$")
    console.expect("0 > \x1b7")
    assert console.text.encode() == expected


def dialogue(command: list[str]) -> bytes:
    """Let a machine start to SLOF's prompt and compute; return what it wrote."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        deadline = time.monotonic() + BOOT_SECONDS
        for awaited, answer in ((b"\n0 > \x1b7", b"3 4 + .\r"), (b"ok\r\n0 > \x1b7", b"")):
            while awaited not in shown:
                assert select.select([process.stdout], [], [], deadline - time.monotonic())[0], shown
                data = os.read(process.stdout.fileno(), 1 << 16)
                assert data, shown
                shown += data
            process.stdin.write(answer)
            process.stdin.flush()
        process.kill()
    return shown


def test_slofs_variables_are_kept_over_reset_and_power_off(run: Run, guests: Guests, tmp_path: Path) -> None:
    nvram = ("--nvram", str(tmp_path / "nvram"))
    console = run("--firmware", str(guests.slof), *nvram)
    console.expect("No NVRAM common partition, re-initializing", BOOT_SECONDS)
    console.expect(SLOF_PROMPT, BOOT_SECONDS)
    console.type("setenv boot-file kept-by-splitvisor\r")
    console.expect(SLOF_PROMPT)
    console.type("reset-all\r")
    console.expect("QEMU Starting")
    console.expect(SLOF_PROMPT, BOOT_SECONDS)
    console.type("power-off\r")
    assert console.wait() == 0
    made = calls(console)
    assert made["nvram-fetch"]["count"] > 5000
    assert made["nvram-fetch"]["seconds"] == 0, "a round trip each would make the prompt a second later than QEMU's"
    assert made["system-reboot"]["count"] == made["power-off"]["count"] == 1

    console = run("--firmware", str(guests.slof), *nvram)
    console.expect(SLOF_PROMPT, BOOT_SECONDS)
    assert "re-initializing" not in console.text
    console.type("printenv boot-file\r")
    console.expect("Current: kept-by-splitvisor")


def test_slof_boots_a_kernel_that_the_machine_loads(run: Run, guests: Guests, tmp_path: Path) -> None:
    log = tmp_path / "log"
    images = "--firmware", str(guests.slof), "--kernel", str(guests.kernel), "--initrd", str(guests.poweroff)
    console = run(*images, *APPEND, "--log-file", str(log))
    console.expect("Detected RAM kernel at 400000", BOOT_SECONDS)
    console.expect(r"Calling ibm,client-architecture-support\.\.\. done", BOOT_SECONDS)
    console.expect("Quiescing Open Firmware", BOOT_SECONDS)
    console.expect(MARKER, BOOT_SECONDS)
    assert console.wait(BOOT_SECONDS) == 0
    made = calls(console)
    assert made["H_CAS"] == {**made["H_CAS"], "owner": "of_client_service", "count": 1}
    assert made["quiesce"]["count"] == made["H_UPDATE_DT"]["count"] == 1
    events = [json.loads(line) for line in log.read_text().splitlines()]
    [stored] = [event for event in events if event["event"] == "H_UPDATE_DT stored"]
    assert stored["revision"] == 3, "after the seed and what was agreed with the client"
    assert "H_OF_CLIENT" not in made, "SLOF has a client interface of its own"


def test_vof_boots_debian(run: Run, guests: Guests) -> None:
    console = run("--firmware", str(guests.vof), "--kernel", str(guests.kernel), "--initrd", str(guests.poweroff), *APPEND)
    console.expect(MARKER, BOOT_SECONDS)
    assert console.wait() == 0
    assert "H_OF_CLIENT" in calls(console)


def test_grub_shows_its_prompt_and_takes_commands(run: Run, guests: Guests) -> None:
    if not guests.grub.exists():
        pytest.skip("there is no grub-mkimage to make GRUB with; it is in the package grub-common")
    console = run("--kernel", str(guests.grub))
    console.expect("Minimal BASH-like line editing", BOOT_SECONDS)
    console.expect("grub> ")
    console.type("echo said by grub\r")
    console.expect("\n\rsaid by grub")
    console.expect("grub> ")
    console.type("lsmmap\r")
    console.expect(r"base_addr = 0x[0-9a-f]+, length = 0x[0-9a-f]+, available RAM")
    console.expect("grub> ")
    console.type("halt\r")
    assert console.wait() == 0
