# SPDX-License-Identifier: GPL-2.0-or-later
"""Components of Debian's installer: its own where a mirror has them, the others made of Debian's ordinary packages.

Nothing but the installer ever asks a mirror for udebs, so that a partial one may lack them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from splitvisor.guests.apt import ForeignApt, GuestError, run, unpack
from splitvisor.guests.modules import modules_with_dependencies
from tests.guests.installer_mirror import ARCHITECTURE, SUITE, make_udeb

MODULES = ("ibmvscsi", "sd_mod", "ext4")
TOOLS = {"fdisk": "sbin/sfdisk", "e2fsprogs": "sbin/mke2fs"}
"""Programs, by their package."""
LIBRARIES = ("libcom-err2", "libext2fs2", "libfdisk1", "libsmartcols1")
"""What they need that the installer has not."""
SCRIPTS = Path(__file__).parent / "installer"


def udebs_of(apt: ForeignApt, mirror: str, scratch: Path) -> list[Path]:
    """Fetch and make components.

    Args:
        apt: for ordinary packages.
        mirror: where Debian's packages come from.
        scratch: a directory to work in.

    Raises GuestError.
    """
    made = scratch / "udebs"
    made.mkdir()
    own = _udeb_apt(mirror, scratch / "apt-of-udebs")
    return [
        own.download("base-installer"),
        _first(own, "debootstrap-udeb", lambda: _debootstrap(apt, scratch, made)),
        _first(own, "user-setup-udeb", lambda: _user_setup(apt, scratch, made)),
        _first(own, "finish-install", lambda: _finish(scratch, made)),
        _modules(apt, scratch, made),
        _tools(apt, scratch, made),
        _partitioner(scratch, made),
        _base(scratch, made),
        _grub(scratch, made),
    ]


def _udeb_apt(mirror: str, directory: Path) -> ForeignApt:
    """Return an apt that knows udebs only."""
    apt = ForeignApt(directory, ARCHITECTURE)
    sources = directory / "sources.list"
    sources.write_text(f"deb {mirror} {SUITE} main/debian-installer\n")
    with (directory / "apt.conf").open("a") as settings:
        settings.write(f'Dir::Etc::SourceList "{sources}";\nDir::Etc::SourceParts "/dev/null";\n')
    apt.update()
    return apt


def _first(own: ForeignApt, name: str, make: Callable[[], Path]) -> Path:
    """Return Debian's own component where it can be had, else one that is made."""
    try:
        return own.download(name)
    except GuestError:
        return make()


def _debootstrap(apt: ForeignApt, scratch: Path, made: Path) -> Path:
    """Make debootstrap-udeb of debootstrap, which has the same files."""
    package = unpack(apt, "debootstrap", scratch, quiet)
    fields = {"Package": "debootstrap-udeb", "Version": package.version, "Depends": "mounted-partitions"}
    return make_udeb(made, package.root, fields)


def _user_setup(apt: ForeignApt, scratch: Path, made: Path) -> Path:
    """Make user-setup-udeb of user-setup, which has the same scripts and questions."""
    package = unpack(apt, "user-setup", scratch, quiet)
    hooks = package.root / "usr/lib/finish-install.d"
    hooks.mkdir()
    shutil.copyfile(SCRIPTS / "06user-setup", hooks / "06user-setup")
    (hooks / "06user-setup").chmod(0o755)
    run(["dpkg-deb", "--control", str(apt.download("user-setup")), str(scratch / "user-setup")])
    fields = {"Package": "user-setup-udeb", "Version": package.version, "Installer-Menu-Item": "2400", "Depends": "cdebconf-udeb"}
    return make_udeb(made, package.root, fields, (SCRIPTS / "user-setup.postinst", scratch / "user-setup/templates"))


def _finish(scratch: Path, made: Path) -> Path:
    """Make what stands for finish-install."""
    fields = {
        "Package": "finish-install", "Installer-Menu-Item": "7800",
        "Depends": "cdebconf-udeb, installed-base, created-fstab, bootable-system", "Description": "Finish the installation",
    }  # fmt: skip
    return make_udeb(made, scratch / "finish", fields, (SCRIPTS / "finish.postinst",))


def _modules(apt: ForeignApt, scratch: Path, made: Path) -> Path:
    """Make the drivers that the installer's initial RAM disk lacks, out of the kernel's package."""
    kernel = unpack(apt, apt.dependency("linux-image-powerpc64le", "linux-image-"), scratch, quiet)
    [tree] = (kernel.root / "lib/modules").iterdir()
    root = scratch / "modules"
    for module in modules_with_dependencies(tree, MODULES):
        path = root / "lib/modules" / tree.name / module.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(module.data)
    fields = {"Package": f"disk-modules-{tree.name}-di", "Version": kernel.version, "Kernel-Version": tree.name}
    return make_udeb(made, root, fields)


def _tools(apt: ForeignApt, scratch: Path, made: Path) -> Path:
    """Make sfdisk and mkfs.ext4 for the installer, out of their packages."""
    root = scratch / "tools"
    (root / "sbin").mkdir(parents=True)
    (root / "etc").mkdir()
    for name, program in TOOLS.items():
        shutil.copy2(unpack(apt, name, scratch, quiet).root / program, root / program)
    (root / "sbin/mkfs.ext4").symlink_to("mke2fs")
    shutil.copy2(scratch / "unpacked/e2fsprogs/etc/mke2fs.conf", root / "etc")
    for name in LIBRARIES:
        for file in unpack(apt, name, scratch, quiet).root.rglob("*.so.*"):
            (root / "lib").mkdir(exist_ok=True)
            shutil.copy2(file, root / "lib", follow_symlinks=False)
    return make_udeb(made, root, {"Package": "disk-tools-udeb"})


def _partitioner(scratch: Path, made: Path) -> Path:
    """Make what stands for partman."""
    fields = {
        "Package": "partitioner", "Installer-Menu-Item": "4200", "Depends": "disk-tools-udeb",
        "Provides": "partitioned-harddrives, mounted-partitions, created-fstab", "Description": "Partition disks",
    }  # fmt: skip
    return make_udeb(made, scratch / "partitioner", fields, (SCRIPTS / "partitioner.postinst",))


def _base(scratch: Path, made: Path) -> Path:
    """Make what stands for bootstrap-base and di-utils-mapdevfs."""
    root = scratch / "base"
    for name, source in (("usr/lib/debootstrap/pkgdetails", "pkgdetails"), ("usr/bin/mapdevfs", "mapdevfs")):
        (root / name).parent.mkdir(parents=True)
        shutil.copyfile(SCRIPTS / source, root / name)
        (root / name).chmod(0o755)
    fields = {
        "Package": "bootstrap-base", "Installer-Menu-Item": "6500",
        "Depends": "cdebconf-udeb, debootstrap-udeb, mounted-partitions, base-installer",
        "Provides": "installed-base, kernel-installer, di-utils-mapdevfs", "Description": "Install the base system",
    }  # fmt: skip
    return make_udeb(made, root, fields, (SCRIPTS / "base.postinst", SCRIPTS / "base.templates"))


def _grub(scratch: Path, made: Path) -> Path:
    """Make what stands for grub-installer."""
    fields = {
        "Package": "grub-on-prep", "Installer-Menu-Item": "7400", "Depends": "installed-base, kernel-installer",
        "Provides": "bootable-system", "Description": "Install GRUB on the PReP partition",
    }  # fmt: skip
    return make_udeb(made, scratch / "grub", fields, (SCRIPTS / "grub.postinst",))


def quiet(message: str) -> None:
    """Say nothing of what is fetched."""
