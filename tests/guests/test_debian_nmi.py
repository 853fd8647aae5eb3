# SPDX-License-Identifier: GPL-2.0-or-later
"""A system reset interrupt makes Debian's kernel report and panic, whatever it is doing, and stops the others when it panics."""

from __future__ import annotations

import pytest

from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Console, Guests

PROMPT = "guest# "


def boot(run: Run, guests: Guests, vcpus: str) -> Console:
    console = run(
        "--name", "nmi", "--kernel", str(guests.kernel), "--initrd", str(guests.shell), "--append", "console=hvc0 panic=-1",
        "--smp", vcpus,
    )  # fmt: skip
    console.expect(PROMPT, BOOT_SECONDS)
    return console


@pytest.mark.parametrize(("vcpus", "options"), [("1", ()), ("4", ()), ("4", ("--vcpu", "2"))])
def test_an_operators_nmi_is_reported_and_panics(run: Run, guests: Guests, vcpus: str, options: tuple[str, ...]) -> None:
    console = boot(run, guests, vcpus)
    sent = console.splitvisor("vm", "nmi", "nmi", *options)
    assert (sent.returncode, sent.stderr) == (0, ""), sent
    console.expect("Oops: System Reset, sig: 6")
    console.expect("Kernel panic - not syncing: System Reset")
    assert console.wait() == 3, "the kernel has told of its end"
    assert "corrupt r3" not in console.text, "r3 leads to where the kernel finds its own"


def test_a_panic_stops_the_other_vcpus_by_their_system_reset(run: Run, guests: Guests) -> None:
    console = boot(run, guests, "4")
    console.type("echo c > /proc/sysrq-trigger\n")
    console.expect("Kernel panic - not syncing: sysrq triggered crash")
    assert console.wait() == 3
    assert "corrupt r3" not in console.text
    calls = {call["name"]: call["count"] for call in console.report()["calls"]}
    assert calls["H_SIGNAL_SYS_RESET"] >= 1
