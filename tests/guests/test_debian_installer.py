# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's installer on an empty disk, unattended, from a mirror on this host; then the system that it installed.

Debian's own, unmodified: the installer's kernel and initial RAM disk (menu, network, mirror, preseeding, download of components),
base-installer, and all packages of the installed system. Mirrors within reach lack most components (udebs). These are made when
the test runs: the drivers of disks and ext4 out of the kernel's package, sfdisk and mkfs.ext4 out of theirs, debootstrap-udeb and
user-setup-udeb out of the packages with the same files. Scripts in installer/ stand for partman, bootstrap-base, grub-installer
and finish-install. Where a mirror has debootstrap-udeb, user-setup-udeb or finish-install, Debian's are used.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from splitvisor.devtools.debian_root import mirror
from splitvisor.guests.apt import ForeignApt, GuestError, unpack
from splitvisor.guests.disk_image import LINUX_TYPE, PREP_TYPE
from tests.guests.conftest import Run
from tests.guests.debian_system import BOOT_S, GATEWAY, check_network, check_system, log_in, power_off, served
from tests.guests.installer_mirror import ARCHITECTURE, SUITE, SYSTEM, make_mirror
from tests.guests.installer_udebs import SCRIPTS, quiet, udebs_of

INSTALLER = "debian-installer-12-netboot-ppc64el"
IMAGES = f"usr/lib/debian-installer/images/12/{ARCHITECTURE}/text/debian-installer/{ARCHITECTURE}"
DISK_BYTES = 4 << 30
INSTALL_S = 7200.0
TOOL_S = 120.0
PASSWORD = "debian"
SECTOR_BYTES = 512
SAID = (
    "Configuring the network with DHCP", "preseed: successfully loaded preseed file", "Loading additional components",
    "partitioner: ", "EXT4-fs .* mounted filesystem", "Install the base system",
    "in-target: Setting up linux-image-", "in-target: Installation finished. No error reported.", "finish-install: ",
)  # fmt: skip
"""What the installer says, in this order."""


@pytest.mark.long
@pytest.mark.timeout(INSTALL_S + 3 * BOOT_S)
def test_debian_is_installed_on_an_empty_disk(run: Run, short_path: Path, tmp_path: Path) -> None:
    apt = ForeignApt(tmp_path / "apt", ARCHITECTURE)
    apt.update()
    try:
        images = unpack(apt, INSTALLER, tmp_path, quiet).root / IMAGES
        packages = [*apt.with_dependencies(SYSTEM), *udebs_of(apt, mirror(), tmp_path)]
    except GuestError as error:
        pytest.skip(f"no installer of {SUITE}: {error}")
    site, disk = tmp_path / "site", tmp_path / "disk.img"
    make_mirror(site / "debian", packages)
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    with served(site) as port:
        _preseed(site / "preseed.cfg", port)
        _install(run, images, disk, port)
    _check(disk)
    _use(run, short_path, disk)


def _preseed(path: Path, port: int) -> None:
    text = (SCRIPTS / "preseed.cfg").read_text()
    for name, value in {"MIRROR": f"{GATEWAY}:{port}", "SUITE": SUITE, "PASSWORD": PASSWORD}.items():
        text = text.replace(f"@{name}@", value)
    path.write_text(text)


def _install(run: Run, images: Path, disk: Path, port: int) -> None:
    """Let the installer do its work; it powers off."""
    words = f"console=hvc0 auto=true priority=critical url=http://{GATEWAY}:{port}/preseed.cfg DEBIAN_FRONTEND=text TERM=dumb"
    files = ("--kernel", str(images / "vmlinux"), "--initrd", str(images / "initrd.gz"), "--append", words)
    began = time.monotonic()
    console = run("--memory", "2G", "--disk", f"{disk},cache=unsafe", "--net", "user,ipv6=off", *files)
    for said in SAID:
        console.expect(said, INSTALL_S)
    assert console.wait(INSTALL_S) == 0, console.text[-3000:]
    print(f"installed in {time.monotonic() - began:.0f} s")


def _check(disk: Path) -> None:
    """What the installer left, seen from this host."""
    table = json.loads(_output("sfdisk", "--json", str(disk)))["partitiontable"]
    assert table["label"] == "gpt"
    prep, system = table["partitions"]
    assert (prep["type"], system["type"]) == (PREP_TYPE, LINUX_TYPE)
    offset = system["start"] * SECTOR_BYTES
    _output("e2fsck", "-f", "-n", f"{disk}?offset={offset}")
    status = _output("debugfs", "-R", "cat /var/log/installer/status", f"{disk}?offset={offset}")
    assert "Package: base-installer\n" in status
    with disk.open("rb") as file:
        file.seek(prep["start"] * SECTOR_BYTES)
        assert file.read(4) == b"\x7fELF"


def _use(run: Run, short_path: Path, disk: Path) -> None:
    """Boot the installed system and have it fetch a file."""
    console = run("--memory", "1G", "--disk", str(disk), "--net", "user", "--boot", "disk")
    console.expect("boot: PReP partition 1 of disk", BOOT_S)
    guest = log_in(console)
    check_system(guest)
    check_network(guest, short_path)
    power_off(console, guest)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
