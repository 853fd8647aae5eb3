# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests and runs for the tests here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitvisor.bench.peers import PROGRAM
from splitvisor.guests.commands import Commands
from splitvisor.guests.fetch import GRUB, RNG_MODULES, VTERM_MODULES, GuestError, fetch, resolve
from tests.guests.harness import BOOT_SECONDS, Console, Guests
from tests.guests.hosts import Host, two_hosts

Run = Callable[..., Console]
IoGuest = Callable[..., Commands]
IO_PROMPT = "guest# "


@pytest.fixture(scope="session")
def guests() -> Guests:
    try:
        fetch(print)
    except GuestError as error:
        pytest.skip(f"no real guests: {error}")
    return Guests(
        resolve("kernel", "debian"),
        resolve("initrd", "debian"),
        resolve("initrd", "debian-poweroff"),
        resolve("initrd", "debian-slots"),
        resolve("initrd", "debian-io"),
        resolve("initrd", "debian-kexec"),
        resolve("module", RNG_MODULES[0]),
        tuple(resolve("module", name) for name in VTERM_MODULES),
        resolve("firmware", "slof"),
        resolve("firmware", "vof"),
        resolve(*GRUB),
    )


@pytest.fixture
def run(short_path: Path) -> Iterator[Run]:
    """Start a run; it is ended with the test, and must have left nothing behind."""
    consoles: list[Console] = []

    def start(*arguments: str, terminal: bool = False) -> Console:
        consoles.append(Console(arguments, short_path, terminal=terminal))
        return consoles[-1]

    yield start
    for console in consoles:
        console.close()
    assert list(short_path.glob("splitvisor-*")) == []


@pytest.fixture
def io_guest(run: Run, guests: Guests) -> IoGuest:
    """Boot the guest with disks and networks, with further options of `splitvisor run`; its commands answer."""

    def start(*options: str) -> Commands:
        files = ("--kernel", str(guests.kernel), "--initrd", str(guests.io))
        console = run(*files, "--append", "console=hvc0 panic=-1", *options)
        console.expect(IO_PROMPT, BOOT_SECONDS)
        return Commands(console)

    return start


@pytest.fixture
def qemu() -> str:
    found = shutil.which(PROGRAM)
    if found is None:
        pytest.skip("there is no qemu-system-ppc64 to compare with; it is in the package qemu-system-ppc")
    return found


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made
