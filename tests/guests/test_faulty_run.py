# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run --fault`: things go wrong as the scenario says, the report proves it, and the guest does not notice."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

from cpu_service.routing.router import CALL_TIMEOUT_S
from splitvisor.guests.commands import Commands
from tests.guests.conftest import IO_PROMPT, Run
from tests.guests.harness import BOOT_SECONDS, Guests

SLOW_S = 300.0
MIB = 1 << 20
SOON = CALL_TIMEOUT_S - 5
"""Before a call that has no answer would end by itself."""

SCENARIO = """
seed = 3
[[fault]]
kind = "lose"
backend = "vio"
direction = "to-cpu"
every = 12
limit = 4
[[fault]]
kind = "jitter"
direction = "to-backend"
seconds = 0.01
[[fault]]
kind = "kill"
backend = "vio"
direction = "to-backend"
messages = ["posted"]
at = [6]
[[fault]]
kind = "stop"
backend = "hcall"
direction = "to-cpu"
seconds = 0.2
at = [1]
"""


def test_the_demo_guest_notices_nothing(run: Run, short_path: Path) -> None:
    scenario = short_path / "scenario.toml"
    scenario.write_text(SCENARIO)
    name = f"faulty-{os.getpid()}"
    console = run("--name", name, "--fault", str(scenario), "--transcripts", str(short_path / "log"))
    console.expect("> ")
    for number in range(6):
        console.type("help\n")
        console.expect("power off")
        console.expect("> ")
        if number == 2:
            stopped = console.splitvisor("fault", "stop", name, "of-client", "--for", "0.1")
            assert (stopped.returncode, stopped.stderr) == (0, "")
            assert str(console.pids()["of-client"]) in stopped.stdout
    console.type("off\n")
    assert console.wait(SLOW_S) == 0
    counts = console.report()["faults"]["counts"]
    assert (counts["lose"], counts["kill"], counts["stop"]) == (4, 1, 1)
    assert counts["jitter"] > 20
    assert (short_path / "log" / f"{name}-71000000.log").read_bytes().decode() == console.text


POLLING = """
seed = 1
[[fault]]
kind = "lose"
backend = "vio"
direction = "to-cpu"
messages = ["reply"]
at = [1, 2, 3]
"""


def test_a_restored_slof_goes_on_when_its_first_replies_are_lost(run: Run, guests: Guests, short_path: Path) -> None:
    """SLOF asks for input all the time: the reply that is lost again and again is that of one call, and may have the input."""
    console = run("--name", "polls", "--firmware", str(guests.slof))
    console.expect(r"^0 > ", BOOT_SECONDS)
    snapshot, scenario = short_path / "slof.snapshot", short_path / "scenario.toml"
    saved = console.splitvisor("vm", "save", "polls", str(snapshot), "--stop")
    assert saved.returncode == 0, saved.stderr
    assert console.wait() == 0
    scenario.write_text(POLLING)
    restored = run("--from", str(snapshot), "--fault", str(scenario))
    restored.type('." sum " 1234 1111 + u.\r')
    restored.expect("sum 2345", SOON)
    restored.type("power-off\r")
    assert restored.wait() == 0
    assert restored.report()["faults"]["counts"] == {"lose": 3}


DISK = """
seed = 11
[[fault]]
kind = "lose"
backend = "vio"
direction = "to-cpu"
messages = ["crq_entries"]
every = 60
[[fault]]
kind = "duplicate"
backend = "vio"
direction = "to-cpu"
messages = ["crq_entries"]
every = 7
[[fault]]
kind = "reorder"
backend = "vio"
direction = "to-cpu"
messages = ["crq_entries"]
every = 25
[[fault]]
kind = "lose"
backend = "vio"
direction = "to-backend"
messages = ["posted"]
every = 50
[[fault]]
kind = "delay"
backend = "vio"
direction = "to-cpu"
messages = ["crq_entries"]
probability = 0.1
seconds = 0.05
"""


def test_a_disk_whose_messages_are_lost_doubled_and_late_is_a_slow_disk(run: Run, guests: Guests, short_path: Path) -> None:
    scenario, image = short_path / "scenario.toml", short_path / "disk.img"
    scenario.write_text(DISK)
    data = random.Random(11).randbytes(8 * MIB)
    image.write_bytes(data)
    files = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
    console = run(*files, "--disk", str(image), "--fault", str(scenario))
    console.expect(IO_PROMPT, SLOW_S)
    guest = Commands(console)
    guest.wait_for("test -b /dev/sda", SLOW_S)
    read = guest.ok("dd if=/dev/sda bs=64k iflag=direct 2>/dev/null | sha256sum", SLOW_S)
    assert read.split()[0] == hashlib.sha256(data).hexdigest()
    guest.ok("dd if=/dev/urandom of=/tmp/m bs=4k count=256 && dd if=/tmp/m of=/dev/sda bs=4k oflag=direct", SLOW_S)
    wrote = guest.ok("sha256sum /tmp/m", SLOW_S)
    assert wrote.split()[0] == hashlib.sha256(image.read_bytes()[:MIB]).hexdigest()
    assert guest.ok("dmesg | grep -i -E 'i/o error|sense key|offline|abort' || true", SLOW_S) == ""
    console.type("poweroff -f\n")
    assert console.wait(SLOW_S) == 0
    counts = console.report()["faults"]["counts"]
    assert all(counts[kind] > 0 for kind in ("lose", "duplicate", "reorder", "delay")), counts


def test_a_scenario_that_does_not_fit_is_refused(run: Run, short_path: Path) -> None:
    scenario = short_path / "scenario.toml"
    scenario.write_text('[[fault]]\nkind = "kill"\nbackend = "disk"\ndirection = "to-cpu"\n')
    console = run("--fault", str(scenario))
    assert console.wait() == 2
    assert "there is no back end 'disk'" in console._errors()
