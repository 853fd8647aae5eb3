# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run --fault`: things go wrong as the scenario says, the report proves it, and the guest does not notice."""

from __future__ import annotations

import os
from pathlib import Path

from cpu_service.routing.router import CALL_TIMEOUT_S
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Guests

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
    assert console.wait() == 0
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


def test_a_scenario_that_does_not_fit_is_refused(run: Run, short_path: Path) -> None:
    scenario = short_path / "scenario.toml"
    scenario.write_text('[[fault]]\nkind = "kill"\nbackend = "disk"\ndirection = "to-cpu"\n')
    console = run("--fault", str(scenario))
    assert console.wait() == 2
    assert "there is no back end 'disk'" in console._errors()
