# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's driver for the platform's random number generator finds it, and its numbers look random."""

from __future__ import annotations

import base64
from collections import Counter
from itertools import groupby
from pathlib import Path

from splitvisor.guests.cpio import Entry, archive
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Console, Guests

SAMPLE = 2500
"""Bytes: the 20,000 bits of a FIPS 140-2 test. The bounds here are wider: good numbers fail once in 10**9 samples."""


def sample(console: Console, number: int) -> bytes:
    console.type(f"dd if=/dev/hwrng bs={SAMPLE} count=1 iflag=fullblock 2>/dev/null | base64 -w 0; echo; echo end of {number}.\n")
    text = console.expect(rf"^([A-Za-z0-9+/=]+)\r?\nend of {number}\.")[1]
    return base64.b64decode(text, validate=True)


def check_randomness(data: bytes) -> None:
    bits = "".join(f"{byte:08b}" for byte in data)
    assert len(bits) == 8 * SAMPLE
    assert 9_550 < bits.count("1") < 10_450
    nibbles = Counter(bits[start : start + 4] for start in range(0, len(bits), 4))
    poker = 16 / 5000 * sum(count**2 for count in nibbles.values()) - 5000
    assert 0.1 < poker < 80
    assert max(len(list(run)) for _, run in groupby(bits)) < 45


def test_the_hardware_generator_gives_random_numbers(run: Run, guests: Guests, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd.cpio"
    driver = Entry.program("pseries-rng.ko", guests.rng_driver.read_bytes())
    initrd.write_bytes(guests.shell.read_bytes() + archive([driver, Entry.link("bin/insmod", "busybox")]))
    console = run("--kernel", str(guests.kernel), "--initrd", str(initrd), "--append", "console=hvc0 panic=-1")
    console.expect("guest# ", BOOT_SECONDS)
    console.type("insmod /pseries-rng.ko; cat /sys/class/misc/hw_random/rng_current\n")
    console.expect(r"^pseries_rng")
    first, second = sample(console, 1), sample(console, 2)
    check_randomness(first)
    check_randomness(second)
    assert first != second
    console.type("poweroff\n")
    assert console.wait() == 0
