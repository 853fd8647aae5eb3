# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian on a disk, from the firmware to a login: PReP partition, GRUB, kernel, ext4, systemd, DHCP, a file from this host."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.guests.conftest import Run
from tests.guests.debian_system import BOOT_S, GATEWAY, cached_disk, log_in, served, sha256
from tests.guests.harness import Guests

FILE_BYTES = 3_000_000
LEASE_S = 60.0
STATE_S = 300.0


@pytest.mark.timeout(3 * BOOT_S)
def test_debian_boots_from_its_disk_and_works(run: Run, short_path: Path) -> None:
    disk = cached_disk()
    before = disk.stat().st_mtime_ns
    (short_path / "file").write_bytes(random.Random(12).randbytes(FILE_BYTES))
    digest = sha256(short_path / "file")
    console = run("--memory", "1G", "--disk", f"{disk},snapshot", "--net", "user", "--boot", "disk")
    console.expect("boot: PReP partition 1 of disk", BOOT_S)
    console.expect("Debian GNU/Linux", BOOT_S)
    guest = log_in(console)
    assert guest.ok("cat /proc/1/comm; uname -m; findmnt -no FSTYPE /; . /etc/os-release; echo $ID").split() == [
        "systemd", "ppc64le", "ext4", "debian",
    ]  # fmt: skip
    assert guest.ok("systemctl is-system-running --wait || systemctl --failed --no-legend", STATE_S) == "running"
    guest.wait_for("ip -4 -brief address | grep -w 10.0.2.15/24", LEASE_S)
    assert "ADDRESS=10.0.2.15" in guest.ok("cat /run/systemd/netif/leases/*").split(), "networkd has the lease"
    with served(short_path) as port:
        # apt's own client, which also compares the digest.
        fetch = f"/usr/lib/apt/apt-helper download-file http://{GATEWAY}:{port}/file /root/file SHA256:{digest}"
        guest.ok(fetch, STATE_S)
    assert guest.ok("sha256sum </root/file").split()[0] == digest
    assert guest.run("dmesg | grep -E 'I/O error|EXT4-fs error|BUG:|Oops:'").output == ""
    console.type("poweroff\n")
    assert console.wait(BOOT_S) == 0
    assert disk.stat().st_mtime_ns == before, "what the guest wrote is thrown away"


@pytest.mark.timeout(3 * BOOT_S)
def test_slof_boots_it_from_its_disk_too(run: Run, guests: Guests) -> None:
    """By SLOF's own driver for v-scsi: it loads GRUB, and GRUB reads kernel and initrd through it."""
    disk = cached_disk()
    console = run("--memory", "1G", "--disk", f"{disk},snapshot", "--firmware", str(guests.slof))
    console.expect(r"8000000000000000 DISK\s+: \"SPLITVSR DISK", BOOT_S)
    console.expect("Debian GNU/Linux", BOOT_S)
    guest = log_in(console)
    firmware = "strings() { tr '\\0' '\\n' <\"/proc/device-tree/$1\" | grep .; }; strings openprom/model; strings chosen/bootpath"
    model, path = guest.ok(firmware).splitlines()
    assert model.startswith("SLOF"), "its firmware is SLOF"
    assert path.endswith("/disk@8000000000000000")
    assert guest.ok("systemctl is-system-running --wait || systemctl --failed --no-legend", STATE_S) == "running"
    assert guest.ok("cat /proc/1/comm; findmnt -no FSTYPE /; cut -d' ' -f1 /proc/cmdline").split() == [
        "systemd", "ext4", "BOOT_IMAGE=/vmlinux",
    ]  # fmt: skip
    guest.ok("dd if=/dev/urandom of=/root/file bs=1M count=8 conv=fsync 2>/dev/null; sha256sum /root/file >/root/sum")
    guest.ok("echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /root/sum")
    assert guest.run("dmesg | grep -E 'I/O error|EXT4-fs error|BUG:|Oops:'").output == ""
    console.type("poweroff\n")
    assert console.wait(BOOT_S) == 0
