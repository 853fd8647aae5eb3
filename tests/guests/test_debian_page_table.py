# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel has its hash page table made larger and smaller while it runs, and goes on with it."""

from __future__ import annotations

import pytest

from splitvisor.guests.fetch import MARKER
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Guests

PROMPT = "guest# "
ORDER = "/sys/kernel/debug/powerpc/hpt_order"
FIRST = 22
"""Log2 of the bytes of the table of a machine with 512 MiB."""


@pytest.mark.parametrize("vcpus", ["1", "4"])
def test_the_page_table_is_resized_under_a_running_kernel(run: Run, guests: Guests, vcpus: str) -> None:
    console = run(
        "--name", "resize", "--kernel", str(guests.kernel), "--initrd", str(guests.shell), "--append", "console=hvc0 panic=-1",
        "--smp", vcpus,
    )  # fmt: skip
    console.expect(PROMPT, BOOT_SECONDS)
    console.type("mount -t debugfs debugfs /sys/kernel/debug; seq 1 50000 | sha256sum\n")
    digest = console.expect(r"^([0-9a-f]{64})  -")[1]
    for order in (FIRST + 1, FIRST, FIRST + 1):
        console.type(f'echo {order} > {ORDER}; echo "order $(cat {ORDER})"; seq 1 50000 | sha256sum\n')
        console.expect(rf"^order {order}\r?$")
        assert console.expect(r"^([0-9a-f]{64})  -")[1] == digest
    console.type(f"echo {FIRST + 2} > {ORDER} || echo 'too large'; echo \"order $(cat {ORDER})\"\n")
    console.expect(r"^too large")
    console.expect(rf"^order {FIRST + 1}\r?$")

    saved = console.runtime / "resized.snapshot"
    done = console.splitvisor("vm", "save", "resize", str(saved))
    assert done.returncode == 0, done
    console.type("poweroff\n")
    assert console.wait() == 0
    calls = {call["name"]: call["count"] for call in console.report()["calls"]}
    assert (calls["H_RESIZE_HPT_PREPARE"] >= 3, calls["H_RESIZE_HPT_COMMIT"]) == (True, 3)

    restored = run("--from", str(saved))
    restored.type(f'\necho "order $(cat {ORDER})"; seq 1 50000 | sha256sum\n')
    restored.expect(rf"^order {FIRST + 1}\r?$")
    assert restored.expect(r"^([0-9a-f]{64})  -")[1] == digest
    restored.type("reboot\n")
    restored.expect(MARKER, BOOT_SECONDS)
    restored.expect(PROMPT)
    restored.type(f'mount -t debugfs debugfs /sys/kernel/debug; echo "order $(cat {ORDER})"; poweroff\n')
    restored.expect(rf"^order {FIRST}\r?$")
    assert restored.wait() == 0
