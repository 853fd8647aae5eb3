# SPDX-License-Identifier: GPL-2.0-or-later
"""CDs that are exchanged under Debian's own driver: mounted, locked, ejected from both sides, across a kill and a snapshot."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

from splitvisor.guests.commands import Commands
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Console, Guests
from tests.guests.test_vscsi import MIB, needs_xorriso
from tests.services import Service

pytestmark = needs_xorriso
VM = f"media-{os.getpid()}"
MOUNT = "mount -t iso9660 -o ro /dev/sr0 /mnt"
SLOW_S = 120.0


def burn(directory: Path, seed: int, size: int) -> tuple[Path, str]:
    """Make a CD with a file; return its image and the file's sum."""
    tree, image = directory / f"tree{seed}", directory / f"cd{seed}.iso"
    tree.mkdir()
    data = random.Random(seed).randbytes(size)
    (tree / "data.bin").write_bytes(data)
    command = ("xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", f"CD{seed}", "-o", str(image), str(tree))
    subprocess.run(command, check=True, capture_output=True)
    return image, hashlib.sha256(data).hexdigest()


def drive(console: Console) -> dict[str, Any]:
    """Return what `vm disks` says of the only drive."""
    listed = console.splitvisor("vm", "disks", VM, "--json")
    assert listed.returncode == 0, listed.stderr
    [found] = json.loads(listed.stdout)
    return {"image": found["image"], **found["drive"]}


def command(console: Console, *arguments: str) -> None:
    done = console.splitvisor("vm", *arguments)
    assert done.returncode == 0, done.stderr


def check(guest: Commands, wanted: str) -> None:
    """Mount what is in the drive, and read it past all caches."""
    guest.wait_for(MOUNT, SLOW_S)
    assert guest.ok("sha256sum /mnt/data.bin", SLOW_S).split()[0] == wanted


def test_a_cd_is_exchanged_while_the_guest_runs(run: Run, guests: Guests, short_path: Path, tmp_path: Path) -> None:
    (one, first), (two, second) = burn(tmp_path, 1, 2 * MIB + 5), burn(tmp_path, 2, 3 * MIB + 7)
    vio = Service("vio", short_path)
    try:
        boot = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
        console = run(*boot, "--name", VM, "--cdrom", "empty", "--connect", f"vio={vio.address}")
        console.expect("guest# ", BOOT_SECONDS)
        guest = Commands(console)
        guest.wait_for("test -b /dev/sr0")
        guest.ok("echo 0 >/proc/sys/dev/cdrom/autoclose")
        assert "No medium" in guest.run("dd if=/dev/sr0 of=/dev/null count=1").output
        assert drive(console) == {"image": None, "tray_open": False, "locked": False}

        command(console, "cd-insert", VM, str(one))
        check(guest, first)
        assert drive(console) == {"image": str(one), "tray_open": False, "locked": True}
        refused = console.splitvisor("vm", "cd-insert", VM, str(two))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "the guest has locked the tray; eject the medium in the guest, or use force" in refused.stderr
        assert guest.ok("sha256sum /mnt/data.bin").split()[0] == first

        guest.ok("umount /mnt && eject /dev/sr0")
        assert drive(console) == {"image": str(one), "tray_open": True, "locked": False}
        command(console, "cd-insert", VM, str(two))
        check(guest, second)
        # The process that has the drive is killed under the mounted CD, and its successor has the same one.
        vio.kill()
        vio.start()
        guest.ok("echo 3 >/proc/sys/vm/drop_caches")
        assert guest.ok("sha256sum /mnt/data.bin", SLOW_S).split()[0] == second
        assert drive(console)["image"] == str(two)

        command(console, "cd-eject", VM, "--force")
        guest.ok("echo 3 >/proc/sys/vm/drop_caches")
        assert guest.run("cat /mnt/data.bin >/dev/null", SLOW_S).status != 0
        guest.ok("umount /mnt")
        assert "No medium" in guest.run("dd if=/dev/sr0 of=/dev/null count=1").output
        command(console, "cd-insert", VM, str(one))
        command(console, "save", VM, str(tmp_path / "guest.snapshot"), "--stop")
        assert console.wait() == 0
    finally:
        vio.end()
    restored = run("--from", str(tmp_path / "guest.snapshot"))
    restored.type("echo here I am\n")
    restored.expect(r"^here I am\r?$", BOOT_SECONDS)
    guest = Commands(restored)
    check(guest, first)
    assert drive(restored) == {"image": str(one), "tray_open": False, "locked": True}
    assert guest.ok("dmesg | grep -i -E 'oops:|cut here|offline' || true") == ""
