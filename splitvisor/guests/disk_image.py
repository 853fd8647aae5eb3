# SPDX-License-Identifier: GPL-2.0-or-later
"""A small disk and a CD that boot GRUB. The disk is as grub-install lays it out: a GPT with a PReP partition, and ext4.

GRUB's core image is in the PReP partition from its first byte; it finds the file system by its UUID. No root is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from splitvisor.errors.problem import ProblemError

DISK_TOOLS = ("grub-mkimage", "sfdisk", "mke2fs")
CD_TOOLS = ("grub-mkrescue", "xorriso", "mformat")
PACKAGES = ("grub-common", "fdisk", "e2fsprogs", "xorriso", "mtools")
SECTOR_BYTES = 512
FIRST_SECTOR = 2048
PREP_MIB, ROOT_MIB = 8, 96
PREP_TYPE, LINUX_TYPE = "9E1A2D38-C612-4316-AA26-8B49521E5A8B", "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
FILE_SYSTEM = uuid.UUID("5f0c3a52-6a2b-4f5c-9d0e-7b1f8d1e2a43")
CORE_MODULES = ("part_gpt", "part_msdos", "ext2", "search_fs_uuid")
TIMEOUT_S = 120
_ADMINISTRATORS = "/usr/sbin:/sbin"
"""Where two of the tools are, which the path of a user may lack."""

CORE_CONFIGURATION = f"search.fs_uuid {FILE_SYSTEM} root\nset prefix=($root)/boot/grub\n"
CONFIGURATION = """\
set timeout=5
menuentry "Debian in its initramfs" {
    linux /boot/vmlinux console=hvc0
    initrd /boot/initrd.img
}
menuentry "Halt" { halt }
"""
ENVIRONMENT = "# GRUB Environment Block\n".ljust(1024, "#")
"""Variables that GRUB keeps with save_env: none."""


class DiskImageError(ProblemError):
    """A disk could not be made."""


def has_tools(tools: Sequence[str]) -> bool:
    """Whether this host has all of some tools."""
    return all(_found(tool) is not None for tool in tools)


def make_disk(path: Path, modules: Path, kernel: Path, initrd: Path, *, configuration: str = CONFIGURATION) -> None:
    """Make a disk.

    Args:
        path: the new file.
        modules: GRUB's modules for powerpc-ieee1275.
        kernel: becomes /boot/vmlinux.
        initrd: becomes /boot/initrd.img.
        configuration: grub.cfg.

    Raises DiskImageError, OSError.
    """
    scratch = path.with_suffix(".making")
    shutil.rmtree(scratch, ignore_errors=True)
    boot = scratch / "root/boot"
    boot.mkdir(parents=True)
    try:
        for source, name in ((kernel, "vmlinux"), (initrd, "initrd.img")):
            shutil.copyfile(source, boot / name)
        make_disk_of(path, scratch / "root", modules, configuration, ROOT_MIB)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_disk_of(path: Path, root: Path, modules: Path, configuration: str, mib: int) -> None:
    """Make a disk of a root, into which GRUB is put.

    Args:
        path: the new file.
        root: the directory whose files it has; by their owners here.
        modules: GRUB's modules for powerpc-ieee1275.
        configuration: grub.cfg.
        mib: size of its file system.

    Raises DiskImageError, OSError.
    """
    scratch = path.with_suffix(".parts")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        core = make_core(scratch, modules)
        grub = root / "boot/grub"
        files = grub / "powerpc-ieee1275"
        files.mkdir(parents=True, exist_ok=True)
        (grub / "grub.cfg").write_text(configuration)
        (grub / "grubenv").write_text(ENVIRONMENT)
        for file in (*modules.glob("*.mod"), *modules.glob("*.lst")):
            shutil.copyfile(file, files / file.name)
        file_system = scratch / "ext4"
        # Tables that are zeroed here cost nothing; a guest would write them all, at each start from a snapshot.
        options = ("-U", str(FILE_SYSTEM), "-L", "root", "-E", "lazy_itable_init=0")
        _run("mke2fs", "-q", "-t", "ext4", *options, "-d", str(root), str(file_system), f"{mib}m")
        _assemble(path, core, file_system, mib)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_cd(path: Path, modules: Path) -> None:
    """Make GRUB's own CD, with CHRP's boot script. modules: as for make_disk(). Raises DiskImageError, OSError."""
    empty = path.with_suffix(".making")
    empty.mkdir(exist_ok=True)
    try:
        _run("grub-mkrescue", "-d", str(modules), "-o", str(path), str(empty))
    finally:
        shutil.rmtree(empty, ignore_errors=True)


def make_core(directory: Path, modules: Path) -> Path:
    """Make GRUB's core image, as grub-install does. Raises DiskImageError."""
    core, configuration = directory / "core.elf", directory / "load.cfg"
    configuration.write_text(CORE_CONFIGURATION)
    options = ("-O", "powerpc-ieee1275", "-d", str(modules), "-n", "-p", "/boot/grub", "-c", str(configuration))
    _run("grub-mkimage", *options, "-o", str(core), *CORE_MODULES)
    return core


def _assemble(path: Path, core: Path, file_system: Path, mib: int) -> None:
    """Write the partition table and both partitions."""
    prep_sectors, root_sectors = (size * (1 << 20) // SECTOR_BYTES for size in (PREP_MIB, mib))
    root_at = FIRST_SECTOR + prep_sectors
    with path.open("wb") as disk:
        disk.truncate((root_at + root_sectors + FIRST_SECTOR) * SECTOR_BYTES)
    table = (
        f"label: gpt\nstart={FIRST_SECTOR}, size={prep_sectors}, type={PREP_TYPE}\n"
        f"start={root_at}, size={root_sectors}, type={LINUX_TYPE}\n"
    )
    _run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", str(path), text=table)
    for part, sector in ((core, FIRST_SECTOR), (file_system, root_at)):
        size = part.stat().st_size
        with part.open("rb") as source, path.open("r+b") as disk:
            disk.seek(sector * SECTOR_BYTES)
            while size and (data := source.read(1 << 20)):
                if any(data):
                    disk.write(data)
                else:
                    disk.seek(len(data), os.SEEK_CUR)


def _found(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:{_ADMINISTRATORS}")


def _run(tool: str, *arguments: str, text: str = "") -> None:
    command: Sequence[str] = (_found(tool) or tool, *arguments)
    try:
        subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except FileNotFoundError:
        raise DiskImageError(f"there is no {tool}", f"install {' '.join(PACKAGES)}") from None
    except subprocess.TimeoutExpired:
        raise DiskImageError(f"{tool} takes longer than {TIMEOUT_S} s", "try again") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise DiskImageError(f"{tool} failed: {last}", "please report it") from None
