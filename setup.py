# SPDX-License-Identifier: GPL-2.0-or-later
"""What pyproject.toml cannot say of the build: what must be there, the wheel's tag, archives that only their contents decide.

With SOURCE_DATE_EPOCH set, two builds of the same files are the same bytes, whatever the umask, the user and the directory.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import FileError

ROOT = Path(__file__).resolve().parent
LOCK = Path("gateway_service/web/package-lock.json")
VENDOR = Path("gateway_service/static/vendor")
SOURCES = Path("gateway_service/web/sources")
PROTO = Path("proto")
MANUAL = Path("man/splitvisor.1")
PLATFORM = "manylinux_2_17_x86_64"
"""The wheel has x86-64 machine code that needs no library but Unicorn's (cpu_service/engine/native), and calls Linux by ctypes.
No C library is linked; 2.17 is the oldest that the wheels of its dependencies are built for."""

os.umask(0o022)  # Modes get into archives.


def check_generated() -> None:
    """Raise FileError unless the man page is there, and what the web page has of others, in the versions of the lock file."""
    if not (ROOT / MANUAL).exists():
        raise FileError(f"{MANUAL} is not there; run ./dev docs first")
    held = ROOT / VENDOR / LOCK.name
    if not held.exists() or held.read_bytes() != (ROOT / LOCK).read_bytes():
        raise FileError(f"{VENDOR} does not have what {LOCK} lists; run ./dev web first, which needs npm")


def set_modes(tree: Path) -> None:
    """Let no file have a mode of its own: the checkout's would get into the wheel."""
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


class BuildPy(build_py):
    """Adds the contracts, for back ends in other languages, and sees that the web page is whole."""

    def run(self) -> None:
        """Copy the modules and their data."""
        check_generated()
        super().run()
        if not self.editable_mode:
            for proto in (ROOT / PROTO).rglob("*.proto"):
                target = Path(self.build_lib, "splitvisor", proto.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(proto, target)
            set_modes(Path(self.build_lib))


class MachineCode(Distribution):
    """Something that belongs where machine code is installed; setuptools asks for extension modules to know."""

    def has_ext_modules(self) -> bool:
        """It has none, but might as well."""
        return True


class BdistWheel(bdist_wheel):
    """A wheel for any Python 3 on one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return Python, ABI and platform."""
        return "py3", "none", PLATFORM

    def write_wheelfile(self, wheelfile_base: Any, *arguments: Any) -> None:
        """Write the file of tags, the last of those that describe the wheel."""
        super().write_wheelfile(wheelfile_base, *arguments)
        set_modes(Path(wheelfile_base).parent)


class Sdist(sdist):
    """A source archive that has the page's sources too, and says nothing about who packed it."""

    def run(self) -> None:
        """Pack it."""
        check_generated()
        if not (ROOT / SOURCES).is_dir():
            raise FileError(f"{SOURCES}, the source code of {VENDOR}, is not there; run ./dev web first, which needs npm")
        super().run()

    def make_archive(
        self, base_name: Any, format: str, root_dir: Any = None, base_dir: str | None = None, owner: str | None = None,
        group: str | None = None,
    ) -> str:  # fmt: skip
        """Write the archive; only gztar is known."""
        if format != "gztar" or base_dir is None:
            raise FileError(f"the source archive is a .tar.gz, not {format}")
        name = f"{base_name}.tar.gz"
        moment = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
        tree = Path(root_dir or os.curdir, base_dir)

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = moment
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        with (
            open(name, "wb") as file,
            gzip.GzipFile("", "wb", mtime=moment, fileobj=file) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in [tree, *sorted(tree.rglob("*"))]:
                archive.add(path, Path(base_dir, path.relative_to(tree)), recursive=False, filter=plain)
        return name


setup(distclass=MachineCode, cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel, "sdist": Sdist})
