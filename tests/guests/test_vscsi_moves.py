# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of a guest that is saved, restored and moved to other services while it writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from splitvisor.guests.commands import Commands, Terminal
from tests import terminals
from tests.disk_images import needs_qemu, qcow2_image, raw_image
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, ROOT, STEP_SECONDS, Guests
from tests.guests.sqlite_load import last_acknowledged, sqlite_check, sqlite_load
from tests.services import Service, start_services

pytestmark = needs_qemu
VM = f"disks-{os.getpid()}"
MIB = 1 << 20
SLOW_S = 300.0
FIO = (
    "fio --name=job --filename=/dev/sda --ioengine=libaio --direct=1 --iodepth=16 --rw=randwrite --bsrange=512-64k --size=16m "
    "--verify=crc32c --verify_fatal=1 --randrepeat=0"
)
ENDLESS = 100_000
"""Transactions."""


def machine(guests: Guests, directory: Path) -> tuple[str, ...]:
    """Options of a run with two disks."""
    raw, qcow2 = raw_image(directory / "disk.img", 64 * MIB), qcow2_image(directory / "disk.qcow2", 64 * MIB)
    boot = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
    return ("--name", VM, *boot, "--disk", str(raw), "--disk", str(qcow2))


def begin(guest: Commands) -> None:
    """Have both disks written, without end."""
    guest.wait_for("test -b /dev/sdb")
    guest.ok("mkfs.ext4 -q /dev/sdb && mount -t ext4 /dev/sdb /mnt", SLOW_S)
    loop = f"n=0; while [ ! -e /tmp/enough ]; do {FIO} || break; n=$((n+1)); done; echo fio ended $? after $n"
    guest.ok(f"({loop}) >/tmp/fio.log 2>&1 &")
    sqlite_load(guest, "/mnt/database", ENDLESS, log="/tmp/log")
    guest.wait_for("grep -q 'acknowledged 5$' /tmp/log", SLOW_S)


def end(guest: Commands) -> None:
    """Let both go on for a while, then verify everything."""
    acknowledged = last_acknowledged(guest.ok("tail -n 3 /tmp/log"))
    assert acknowledged >= 5
    guest.wait_for(f"grep -q 'acknowledged {acknowledged + 5}$' /tmp/log", SLOW_S)
    guest.ok("touch /tmp/enough")
    assert guest.wait_for("grep 'fio ended' /tmp/fio.log", SLOW_S).startswith("fio ended 0")
    guest.ok("kill $(pidof sqlite3); while pidof sqlite3 >/dev/null; do sleep 0.1; done")
    acknowledged = last_acknowledged(guest.ok("tail -n 3 /tmp/log"))
    assert sqlite_check(guest, "/mnt/database") >= acknowledged
    guest.ok("umount /mnt && e2fsck -fn /dev/sdb", SLOW_S)
    assert guest.ok("dmesg | grep -i -E 'i/o error|sense key|offline' || true") == ""


def at_prompt(terminal: Terminal) -> Commands:
    """Return the commands of a guest whose old output is shown again."""
    terminal.type("echo here I am\n")
    terminal.expect(r"^here I am\r?$", BOOT_SECONDS)
    return Commands(terminal)


def test_a_guest_that_is_saved_while_it_writes_goes_on(run: Run, guests: Guests, tmp_path: Path) -> None:
    console = run(*machine(guests, tmp_path))
    console.expect("guest# ", BOOT_SECONDS)
    begin(Commands(console))
    # Saved and running on, the run has its disks as before.
    saved = console.splitvisor("vm", "save", VM, str(tmp_path / "first.snapshot"))
    assert saved.returncode == 0, saved.stderr
    guest = at_prompt(console)
    last = last_acknowledged(guest.ok("tail -n 3 /tmp/log"))
    guest.wait_for(f"grep -q 'acknowledged {last + 3}$' /tmp/log", SLOW_S)
    saved = console.splitvisor("vm", "save", VM, str(tmp_path / "guest.snapshot"), "--stop")
    assert saved.returncode == 0, saved.stderr
    assert console.wait() == 0
    restored = run("--from", str(tmp_path / "guest.snapshot"))
    end(at_prompt(restored))


def test_a_guest_that_moves_while_it_writes_takes_its_disks_along(
    run: Run, guests: Guests, tmp_path: Path, short_path: Path
) -> None:
    with ExitStack() as stack:
        here, there = short_path / "here", short_path / "there"
        here.mkdir()
        there.mkdir()
        source, target = start_services(here), start_services(there)
        for service in (*source.values(), *target.values()):
            stack.callback(service.end)
        console = run("--connect", addresses(source), *machine(guests, tmp_path))
        console.expect("guest# ", BOOT_SECONDS)
        begin(Commands(console))
        command = ("migrate", VM, "--cpu", source["cpu"].address, "--to", target["cpu"].address)
        others = {name: service for name, service in target.items() if name != "cpu"}
        moved = subprocess.run(
            [sys.executable, "-m", "splitvisor", "vm", *command, "--connect", addresses(others)],
            cwd=ROOT, capture_output=True, text=True, timeout=STEP_SECONDS, check=False,
        )  # fmt: skip
        assert moved.returncode == 0, moved.stderr
        terminal = terminals.Terminal(target["vio"].address, VM)
        stack.callback(terminal.close)
        end(at_prompt(terminal))


def addresses(services: dict[str, Service]) -> str:
    """Return what --connect takes."""
    return ",".join(f"{name}={service.address}" for name, service in services.items())
