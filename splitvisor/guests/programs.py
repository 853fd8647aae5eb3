# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of packages, with the libraries that they are linked with, for an initramfs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from splitvisor.guests.apt import ForeignApt, GuestError, Package, unpack
from splitvisor.guests.cpio import Entry
from splitvisor.guests.elf import is_elf, needed, without

LIBRARIES = "lib/powerpc64le-linux-gnu"
LOADER = "lib64/ld64.so.2"
_PLACES = ("bin", "sbin", "usr/bin", "usr/sbin")
_LIBRARY_PLACES = (LIBRARIES, f"usr/{LIBRARIES}")


class Programs:
    """Collects programs and libraries; a library's package is looked for among those that the program's package depends on.

    Args:
        apt: where packages are had from.
        cache: they are unpacked below it.
        say: gets each step.
        left_out: sonames of libraries that programs do without.
    """

    def __init__(self, apt: ForeignApt, cache: Path, say: Callable[[str], None], left_out: Collection[str] = ()) -> None:
        self._apt, self._cache, self._say, self._left_out = apt, cache, say, left_out
        self._packages: dict[str, Package] = {}
        self._programs: dict[str, bytes] = {}
        self._libraries: dict[str, bytes] = {}

    def package(self, name: str) -> Package:
        """Return a package, unpacked. Raises GuestError."""
        if name not in self._packages:
            self._packages[name] = unpack(self._apt, name, self._cache, self._say)
        return self._packages[name]

    def add(self, package: str, names: Collection[str]) -> None:
        """Add programs of a package. Raises GuestError when it lacks one."""
        root = self.package(package).root
        for name in names:
            path = next((root / place / name for place in _PLACES if (root / place / name).is_file()), None)
            if path is None:
                raise GuestError(f"{package} has no program {name}", "please report it")
            data = path.read_bytes()
            if is_elf(data):
                missing = set(needed(data)) & set(self._left_out)
                data = without(data, missing) if missing else data
                self._add_libraries(data, (package,))
            self._programs[name] = data

    def add_library(self, package: str, soname: str) -> None:
        """Add a library that programs open while they run, so that none is linked with it. Raises GuestError."""
        self.package(package)
        self._add_library(soname, (package,))

    @property
    def names(self) -> list[str]:
        """The programs' names."""
        return sorted(self._programs)

    def entries(self) -> list[Entry]:
        """Return directories, programs in /bin, libraries, and the loader where programs name it."""
        parents = [Entry.directory(name) for name in ("lib", LIBRARIES, str(Path(LOADER).parent))]
        files: Mapping[str, bytes] = {
            **{f"bin/{name}": data for name, data in sorted(self._programs.items())},
            **{f"{LIBRARIES}/{name}": data for name, data in sorted(self._libraries.items())},
        }
        loader = Entry.link(LOADER, f"/{LIBRARIES}/{Path(LOADER).name}")
        return [*parents, *(Entry.program(name, data) for name, data in files.items()), loader]

    def _add_libraries(self, data: bytes, packages: tuple[str, ...]) -> None:
        """Add what a program or library needs. packages: its own, and those that led to it."""
        for soname in needed(data):
            self._add_library(soname, packages)

    def _add_library(self, soname: str, packages: tuple[str, ...]) -> None:
        if soname in self._libraries:
            return
        for name in (*self._packages, *self._likely_first(soname, packages)):
            path = _library(self.package(name).root, soname)
            if path is not None:
                data = self._libraries[soname] = path.read_bytes()
                # Not every library's package depends on all that it needs: the program's package then does.
                self._add_libraries(data, (name, *packages))
                return
        raise GuestError(f"no package that {packages[-1]} depends on has {soname}", "please report it")

    def _likely_first(self, soname: str, packages: tuple[str, ...]) -> list[str]:
        """Return where a library may be, so that few are fetched: most packages have the name of their library."""
        names = _named_after(soname)
        useless = {name for library in self._left_out for name in _named_after(library)}
        found = [name for package in packages for name in self._apt.libraries(package) if name not in useless]
        return sorted(found, key=lambda name: name not in names)


def _library(root: Path, soname: str) -> Path | None:
    return next((root / place / soname for place in _LIBRARY_PLACES if (root / place / soname).is_file()), None)


def _named_after(soname: str) -> set[str]:
    """Return how the package of a library may be called (Debian Policy 8.1)."""
    stem, _, version = soname.replace("_", "-").lower().partition(".so.")
    return {f"{stem}{version}", f"{stem}-{version}"}
