# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk with Debian: systemd, its own kernel and initrd, on ext4 behind GRUB in a PReP partition.

    python -m splitvisor.devtools.debian_disk [FILE]

makes it, unless it is there, and prints its path; without FILE it is kept beside the other guests. It boots to a login on the
console; root's password is "debian".
"""

from __future__ import annotations

import fcntl
import sys
import tempfile
from pathlib import Path

from splitvisor.devtools import foreign_root
from splitvisor.devtools.debian_root import DebianRootError, mirror
from splitvisor.devtools.foreign_root import run_in, unpack
from splitvisor.errors.problem import ProblemError
from splitvisor.guests.apt import ForeignApt
from splitvisor.guests.disk_image import DISK_TOOLS, FILE_SYSTEM, has_tools, make_disk_of
from splitvisor.guests.fetch import cache_directory

ARCHITECTURE = "ppc64el"
PACKAGES = (
    "?essential", "usr-is-merged", "apt", "debian-archive-keyring", "e2fsprogs", "grub-ieee1275", "initramfs-tools", "iproute2",
    "linux-image-powerpc64le", "systemd-sysv", "udev",
)  # fmt: skip
"""For apt, which adds what they depend on."""
FORMAT = 1
"""Raised when the disk is made in another way: the cached one is then not used."""
HOST_NAME, PASSWORD = "debian", "debian"
MIB = 2048
"""Size of the file system, of which 0.6 GB are used."""
STEP_S = 1800.0
"""For a step in the root: the longest sets up all packages and makes the initrd, in a minute where nothing else runs."""
_SETTINGS = {
    "etc/hostname": f"{HOST_NAME}\n",
    "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOST_NAME}\n",
    "etc/fstab": f"UUID={FILE_SYSTEM} / ext4 errors=remount-ro 0 1\n",
    "etc/systemd/network/80-dhcp.network": "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    # On a busy machine an emulated one is slow to begin, which is no reason to do without a login.
    "etc/systemd/system.conf.d/patience.conf": "[Manager]\nDefaultTimeoutStartSec=15min\n",
    "etc/systemd/system/dev-hvc0.device.d/patience.conf": "[Unit]\nJobRunningTimeoutSec=15min\n",
    # What an initrd has is said, not guessed from the machine on which it is made.
    "etc/initramfs-tools/conf.d/modules": "MODULES=list\n",
    "usr/share/initramfs-tools/modules.d/splitvisor": "ibmvscsi\nsd_mod\next4\n",
    # systemd makes one at the start when it is empty.
    "etc/machine-id": "",
    # All tables are made when packages are set up; without these files systemd makes them again at the first start.
    "etc/.updated": "",
    "var/.updated": "",
}
CONFIGURATION = f"""\
set timeout=2
menuentry "Debian GNU/Linux" {{
    linux /vmlinux root=UUID={FILE_SYSTEM} ro console=hvc0 quiet
    initrd /initrd.img
}}
"""
"""Of GRUB; update-grub in the guest replaces it."""


def cached() -> Path:
    """Return where the disk is kept; it may not be there."""
    return cache_directory() / f"debian-system-{FORMAT}.disk"


def make(path: Path) -> Path:
    """Make the disk, unless it is there, and return its path. Raises ProblemError, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            if reason := why_not():
                raise DebianRootError(f"a disk with Debian cannot be made: {reason}")
            with tempfile.TemporaryDirectory(prefix="debian-system-", dir=path.parent) as scratch:
                _make(Path(scratch), path)
    return path


def why_not() -> str:
    """Return why this machine cannot make one, in one line; an empty text when it can."""
    tools = "" if has_tools(DISK_TOOLS) else f"it needs {', '.join(DISK_TOOLS)}; apt-get install grub-common fdisk e2fsprogs"
    return foreign_root.why_not() or tools


def _make(scratch: Path, path: Path) -> None:
    root, new = scratch / "root", scratch / "new.disk"
    apt = ForeignApt(scratch / "apt", ARCHITECTURE)
    apt.update()
    unpack(root, apt.with_dependencies(PACKAGES))
    # Every other package may already want the users that these two make.
    run_in(root, ("dpkg", "--force-depends", "--configure", "base-passwd", "base-files"), STEP_S)
    for name, text in _SETTINGS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    run_in(root, ("dpkg", "--configure", "-a"), STEP_S)
    run_in(root, ("chpasswd",), STEP_S, f"root:{PASSWORD}\n")
    run_in(root, ("systemctl", "enable", "systemd-networkd"), STEP_S)
    if mirror():
        suite = run_in(root, ("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"), STEP_S).strip()
        (root / "etc/apt/sources.list").write_text(f"deb {mirror()} {suite} main\n")
    make_disk_of(new, root, root / "usr/lib/grub/powerpc-ieee1275", CONFIGURATION, MIB)
    new.rename(path)


if __name__ == "__main__":
    try:
        print(make(Path(sys.argv[1]) if sys.argv[1:] else cached()))
    except (ProblemError, OSError) as error:
        sys.exit(f"dev: {error}")
