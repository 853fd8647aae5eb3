# SPDX-License-Identifier: GPL-2.0-or-later
"""A host without space, or with errors, under Debian's own driver: the VM is paused, and nothing is lost when it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from splitvisor.guests.commands import Commands
from tests.disk_images import needs_nbdkit, raw_image
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Console, Guests
from tests.guests.test_vscsi import MIB, disks, nbd_server

VM = f"full-{os.getpid()}"
SLOW_S = 600.0
WRITE = "dd if=/dev/urandom of=/tmp/data bs=1M count=12 2>/dev/null && cp /tmp/data /mnt/data && sync && echo written"


@contextmanager
def small_file_system(directory: Path, size: int) -> Iterator[Path]:
    """A file system of its own in memory."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def status(console: Console) -> dict[str, Any]:
    """Return what `vm status` says; nothing when the services of a run are not there yet."""
    answer = console.splitvisor("vm", "status", VM, "--json")
    found: dict[str, Any] = json.loads(answer.stdout) if answer.returncode == 0 else {"error": answer.stderr}
    return found


def paused(console: Console) -> str:
    """Wait until the VM is paused; return why."""
    deadline = time.monotonic() + SLOW_S
    while (found := status(console)).get("state") != "paused":
        assert time.monotonic() < deadline, found
    return str(found["detail"])


def resume(console: Console) -> None:
    done = console.splitvisor("vm", "resume", VM)
    assert done.returncode == 0, done.stderr


def boot(run: Run, guests: Guests, *options: str) -> tuple[Console, Commands]:
    files = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
    console = run(*files, "--name", VM, *options)
    console.expect("guest# ", BOOT_SECONDS)
    return console, Commands(console)


def begin(guest: Commands) -> None:
    """Have data written that the host has no room for, to a file system on the disk, in the background."""
    disks(guest, "sda")
    guest.ok("mkfs.ext4 -q /dev/sda && mount -t ext4 /dev/sda /mnt", SLOW_S)
    guest.ok(f"({WRITE}) >/tmp/log 2>&1 &")


def check(guest: Commands) -> None:
    """Everything was written, is on the disk, and the guest knows of no error."""
    assert guest.wait_for("grep written /tmp/log", SLOW_S) == "written"
    guest.ok("umount /mnt && echo 3 >/proc/sys/vm/drop_caches && e2fsck -fn /dev/sda", SLOW_S)
    guest.ok("mount -t ext4 -o ro /dev/sda /mnt && cmp /tmp/data /mnt/data", SLOW_S)
    assert guest.ok("dmesg | grep -i -E 'i/o error|sense key|offline|blocked for|ext4-fs error' || true") == ""


def test_a_full_host_pauses_the_machine_until_there_is_room(run: Run, guests: Guests, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    with small_file_system(room, 24 * MIB) as directory:
        image, ballast = raw_image(directory / "disk.img", 64 * MIB), directory / "ballast"
        ballast.write_bytes(bytes(10 * MIB))
        console, guest = boot(run, guests, "--disk", str(image))
        begin(guest)
        assert paused(console) == f"{image}: No space left on device; when that is put right, `vm resume` tries again"
        shown = console.splitvisor("vm", "status", VM).stdout.splitlines()[0]
        assert shown.startswith(f"{VM}: paused: {image}: No space left on device;")
        # It is still full: the VM is paused again.
        resume(console)
        assert "No space left" in paused(console)
        # A snapshot has what waits, too, and both go on from there.
        saved = console.splitvisor("vm", "save", VM, str(tmp_path / "guest.snapshot"), "--stop")
        assert saved.returncode == 0, saved.stderr
        assert console.wait() == 0
        assert console.process.stderr is not None
        said = console.process.stderr.read().decode()
        assert said.count(f"splitvisor run: {VM} is paused: {image}: No space left on device") == 2, said
        restored = run("--from", str(tmp_path / "guest.snapshot"))
        assert "No space left" in paused(restored)
        ballast.unlink()
        resume(restored)
        restored.type("echo here I am\n")
        restored.expect(r"^here I am\r?$", BOOT_SECONDS)
        check(Commands(restored))
        restored.close()


@needs_nbdkit
def test_errors_pause_the_machine_and_the_service_may_be_killed_meanwhile(run: Run, guests: Guests, tmp_path: Path) -> None:
    fails = {each: tmp_path / each for each in ("pread", "pwrite")}
    triggers = [f"error-{each}-{setting}" for each in fails for setting in ("rate=100%", f"file={fails[each]}")]
    scenario = tmp_path / "scenario.toml"
    scenario.write_text('[[fault]]\nkind = "kill"\nbackend = "vio"\ndirection = "to-backend"\nmessages = ["reset"]\nat = [99]\n')
    with nbd_server(tmp_path, "--filter=error", "memory", "64M", "error=EIO", *triggers) as place:
        console, guest = boot(run, guests, "--disk", f"{place},werror=stop,rerror=stop", "--fault", str(scenario))
        disks(guest, "sda")
        fails["pwrite"].touch()
        begun = "dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null && dd if=/tmp/data of=/dev/sda bs=64k oflag=direct"
        guest.ok(f"({begun} && echo written) >/tmp/log 2>&1 &")
        assert paused(console).endswith(": Input/output error; when that is put right, `vm resume` tries again")
        killed = console.splitvisor("fault", "kill", VM, "vio")
        assert killed.returncode == 0, killed.stderr
        assert status(console)["state"] == "paused"
        fails["pwrite"].unlink()
        resume(console)
        assert "written" in guest.wait_for("grep written /tmp/log", SLOW_S)
        # A read that fails waits likewise, and the data is there when it is over.
        guest.ok("echo 3 >/proc/sys/vm/drop_caches")
        fails["pread"].touch()
        guest.ok("(cmp -n 4194304 /dev/sda /tmp/data && echo same) >/tmp/log 2>&1 &")
        assert "Input/output error" in paused(console)
        fails["pread"].unlink()
        resume(console)
        assert guest.wait_for("grep same /tmp/log", SLOW_S) == "same"
        assert guest.ok("dmesg | grep -i -E 'i/o error|sense key|offline' || true") == ""
