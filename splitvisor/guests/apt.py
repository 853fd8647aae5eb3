# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages of another architecture, from the mirror in the machine's own apt sources.

They need an apt with its own state, so the machine's package lists stay as they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from splitvisor.errors.problem import ProblemError

APT_SECONDS = 900


class GuestError(ProblemError):
    """A guest cannot be had; one line that says why and what to do."""


class ForeignApt:
    """apt for another architecture, with its own state under a directory; the machine's own is only read."""

    def __init__(self, directory: Path, architecture: str) -> None:
        if shutil.which("apt-get") is None:
            raise GuestError("there is no apt-get", "on another system give --kernel and --initrd files of your own")
        self._directory = directory
        for name in ("state/lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        settings: Mapping[str, str] = {
            "APT::Architecture": architecture,
            "Dir::State": str(directory / "state"),
            "Dir::State::status": str(directory / "status"),
            "Dir::Cache": str(directory / "cache"),
            # Images of containers set both to nothing: then every command reads all lists.
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            # apt's own user cannot enter a home directory.
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
        }
        lines = [f'{key} "{value}";' for key, value in settings.items()]
        (directory / "apt.conf").write_text("\n".join([*lines, f'APT::Architectures {{"{architecture}";}};']) + "\n")
        self._libraries: dict[str, list[str]] = {}
        self._prepared: dict[str, Path] = {}
        self._environment = {**os.environ, "APT_CONFIG": str(directory / "apt.conf"), "LC_ALL": "C"}

    def update(self) -> None:
        """Read package lists. A list that is out of step does not matter when what is wanted can be had."""
        subprocess.run(["apt-get", "-q", "update"], env=self._environment, capture_output=True, timeout=APT_SECONDS, check=False)

    def dependency(self, package: str, prefix: str) -> str:
        """Return what a package depends on whose name starts with prefix."""
        for line in run(["apt-cache", "depends", package], self._environment).splitlines():
            kind, _, name = line.strip().partition(": ")
            if kind == "Depends" and name.startswith(prefix):
                return name
        raise GuestError(f"apt knows no {prefix}* that {package} depends on", "check the machine's sources with apt-get update")

    def libraries(self, package: str) -> list[str]:
        """Return the packages of libraries that a package depends on, directly."""
        if package not in self._libraries:
            lines = run(["apt-cache", "depends", package], self._environment).splitlines()
            words = [line.strip(" |").partition(": ") for line in lines]
            names = [name for kind, _, name in words if kind in {"Depends", "PreDepends"}]
            self._libraries[package] = [name for name in names if name.startswith(("lib", "zlib"))]
        return self._libraries[package]

    def prepare(self, packages: Collection[str]) -> None:
        """Fetch packages together, which takes less time than one after the other; download() then has them."""
        directory = self._directory / "together"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        run(["apt-get", "-q", "download", *packages], self._environment, directory)
        self._prepared = {package: next(directory.glob(f"{package}_*.deb")) for package in packages}

    def with_dependencies(self, packages: Collection[str]) -> list[Path]:
        """Fetch packages and what they need to be installed, and return their files. packages: names, or patterns of apt."""
        archives = self._directory / "cache/archives"
        options = ("-q", "-y", "--download-only", "--no-install-recommends")
        run(["apt-get", *options, "install", *packages], self._environment)
        return sorted(archives.glob("*.deb"))

    def download(self, package: str) -> Path:
        """Fetch a package; apt checks it against the signed lists."""
        if package in self._prepared:
            return self._prepared[package]
        directory = self._directory / "packages" / package
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        run(["apt-get", "-q", "download", package], self._environment, directory)
        return next(iter(sorted(directory.glob("*deb"))))


@dataclass(frozen=True)
class Package:
    """A package that was unpacked."""

    name: str
    version: str
    sha256: str
    """Of the package's file."""
    root: Path
    """Where its files are."""


def unpack(apt: ForeignApt, package: str, cache: Path, say: Callable[[str], None]) -> Package:
    """Fetch a package and unpack it below the cache, in unpacked/. Raises GuestError."""
    say(f"fetching {package}")
    file = apt.download(package)
    root = cache / "unpacked" / package
    root.mkdir(parents=True, exist_ok=True)
    run(["dpkg-deb", "-x", str(file), str(root)])
    version = run(["dpkg-deb", "-f", str(file), "Version"]).strip()
    return Package(package, version, hashlib.sha256(file.read_bytes()).hexdigest(), root)


def run(command: list[str], environment: Mapping[str, str] | None = None, directory: Path | None = None) -> str:
    """Run a command; return what it writes. Raises GuestError with the last line of its complaints."""
    try:
        done = subprocess.run(
            command, env=environment, cwd=directory, capture_output=True, text=True, timeout=APT_SECONDS, check=True
        )
    except FileNotFoundError:
        raise GuestError(f"there is no {command[0]}", "install the package that has it") from None
    except subprocess.TimeoutExpired:
        raise GuestError(f"{' '.join(command)} takes longer than {APT_SECONDS} s", "is the network there?") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise GuestError(f"{' '.join(command)} failed: {last}") from None
    return done.stdout
