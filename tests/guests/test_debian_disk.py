# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian on a disk, from the firmware to a login: PReP partition, GRUB, kernel, ext4, systemd, DHCP, a file from this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guests.conftest import Run
from tests.guests.debian_system import BOOT_S, cached_disk, check_network, check_running, check_system, log_in, power_off
from tests.guests.harness import Guests


@pytest.mark.timeout(3 * BOOT_S)
def test_debian_boots_from_its_disk_and_works(run: Run, short_path: Path) -> None:
    disk = cached_disk()
    before = disk.stat().st_mtime_ns
    console = run("--memory", "1G", "--disk", f"{disk},snapshot", "--net", "user", "--boot", "disk")
    console.expect("boot: PReP partition 1 of disk", BOOT_S)
    console.expect("Debian GNU/Linux", BOOT_S)
    guest = log_in(console)
    check_system(guest)
    check_network(guest, short_path)
    assert "ADDRESS=10.0.2.15" in guest.ok("cat /run/systemd/netif/leases/*").split(), "networkd has the lease"
    power_off(console, guest)
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
    check_running(guest)
    assert guest.ok("cat /proc/1/comm; findmnt -no FSTYPE /; cut -d' ' -f1 /proc/cmdline").split() == [
        "systemd", "ext4", "BOOT_IMAGE=/vmlinux",
    ]  # fmt: skip
    guest.ok("dd if=/dev/urandom of=/root/file bs=1M count=8 conv=fsync 2>/dev/null; sha256sum /root/file >/root/sum")
    guest.ok("echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /root/sum")
    power_off(console, guest)
